"""`edgemeta demo`: the whole thing on the built-in data."""

import click


@click.command()
def demo() -> None:
    """Meta-train, federate and adapt on the built-in data, beside FedAvg, in under a minute."""
    from edgemeta import api
    from edgemeta.cli.compare import comparison_table
    from edgemeta.cli.report import Progress
    from edgemeta.fed import Plan

    prepared = api.prepare(api.config_of("demo"))
    config, participants = prepared.config, prepared.participants
    click.echo(
        f"{len(participants)} participants with {len(participants[0].train_set)} small pictures each "
        f"({config.data.partition}), every one with a camera of its own.\n"
        f"The last {config.data.held_out} are new: they take no part in training. First the run, then plain FedAvg:\n",
        err=True,
    )
    progress = Progress(Plan(config).last_round)
    summaries = api.compare(prepared, on_round=progress.on_round, on_participant=progress.on_participant)
    click.echo("\n" + comparison_table([summaries]))
    click.echo(
        f"\nAdapted: {config.evaluation.adapt_steps} local steps on {config.evaluation.support} of a participant's own "
        "pictures.\nAll took as many gradients on each participant; alone, a new one is given that whole time, too."
    )
