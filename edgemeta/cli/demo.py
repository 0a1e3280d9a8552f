"""`edgemeta demo`: the whole thing on the built-in data."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click


@click.command()
def demo() -> None:
    """Meta-train, federate and adapt on the built-in data, beside FedAvg, in under a minute."""
    from edgemeta import api
    from edgemeta.cli.report import Progress, table
    from edgemeta.fed import Plan
    from edgemeta.fed.comparison import alone, fedavg_of

    prepared = api.prepare(api.config_of("demo"))
    config, participants = prepared.config, prepared.participants
    click.echo(
        f"{len(participants)} participants with {len(participants[0].train_set)} small pictures each "
        f"({config.data.partition}), every one with a camera of its own.\n"
        f"The last {config.data.held_out} are new: they take no part in training.",
        err=True,
    )
    summaries = {}
    for name, settings in (("meta-training, then FedAvg", config), ("FedAvg", fedavg_of(config))):
        click.echo(f"\n{name}", err=True)
        progress = Progress(Plan(settings).last_round)
        summaries[name] = api.start(
            replace(prepared, config=settings), on_round=progress.on_round, on_participant=progress.on_participant
        ).summary
    click.echo("\neach alone", err=True)
    theta = api.initial(prepared.network, config.seed, None)
    summaries["each alone"] = alone(config, prepared.network, theta, participants)

    rows = [[name, *_accuracies(summary)] for name, summary in summaries.items()]
    rows[-1][1] = rows[-1][3] = "-"
    click.echo("\nAccuracy on test pictures, mean over participants, and the tenth percentile of the adapted ones:\n")
    click.echo(table(["", "participants", "adapted", "(p10)", "new ones", "adapted", "(p10)"], rows))
    click.echo(
        f"\nAdapted: {config.evaluation.adapt_steps} local steps on {config.evaluation.support} of a participant's own "
        "pictures.\nAll three took as many gradients on each participant; alone, a new one is given that whole time."
    )


def _accuracies(summary: Mapping[str, Any]) -> list[str]:
    """Return mean accuracies before and after adaptation and the tenth percentile, of participants and new ones."""
    cells = []
    for key in ("evaluation", "evaluation_new"):
        before, after = summary[key]["before"]["accuracy"], summary[key]["after"]["accuracy"]
        cells += [f"{100 * share:.1f}%" for share in (before["mean"], after["mean"], after["p10"])]
    return cells
