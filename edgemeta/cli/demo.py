"""`edgemeta demo`: the whole thing on the built-in data."""

import click


@click.command()
def demo() -> None:
    """Meta-train, federate and adapt on the built-in data, beside FedAvg, in under a minute."""
    from edgemeta import api
    from edgemeta.cli.report import Progress, table
    from edgemeta.fed import Plan
    from edgemeta.fed.comparison import alone, fedavg_of

    prepared = api.prepare(api.config_of("demo"))
    config = prepared.config
    click.echo(
        f"{config.data.participants} participants with {len(prepared.participants[0].train_set)} small pictures each, "
        f"{config.data.partition}, every one with a camera of its own; {config.data.held_out} are new at the end.",
        err=True,
    )
    summaries = {}
    for name, settings in (("meta-trained, then FedAvg", config), ("FedAvg alone", fedavg_of(config))):
        click.echo(f"\n{name}", err=True)
        progress = Progress(Plan(settings).last_round)
        run = api.start(replace(prepared, config=settings), on_round=progress.on_round, on_participant=progress.on_participant)
        summaries[name] = run.summary
    theta = api.initial(prepared.network, config.seed, None)
    summaries["each alone"] = alone(config, prepared.network, theta, prepared.participants)
    rows = [[name, *_accuracies(summary)] for name, summary in summaries.items()]
