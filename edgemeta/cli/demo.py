"""`edgemeta demo`: the whole thing on the built-in data, with a real gateway and real device processes."""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgemeta.config import RunConfig

THINGS, SHOWN, DRAWS = 3, 5, 20
NEVER = 1_000_000  # rounds: the last model alone is scored


@click.command()
def demo() -> None:
    """Meta-train, federate and adapt with a gateway and ten devices on this machine, beside FedAvg, in a minute."""
    from edgemeta import api
    from edgemeta.cli.compare import comparison_table
    from edgemeta.cli.report import Bar, Progress
    from edgemeta.config import to_toml
    from edgemeta.fed.plan import Plan

    prepared = api.prepare(api.config_of("demo"))
    config, participants = prepared.config, prepared.participants
    for line in prepared.left_out.why:
        click.echo(line, err=True)
    click.echo(
        f"{len(participants)} participants with {len(participants[0].train_set)} small pictures each "
        f"({config.data.partition}), every one with a camera of its own.\n"
        f"The last {config.data.held_out} are new: they take no part in training, and are scored only.\n",
        err=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run.toml").write_text(to_toml(config))
        summary = _over_http(Path(folder), len(participants), config.data.source, Progress(Plan(config).last_round))
    click.echo("\nThe same budget for plain FedAvg, and for everyone alone, in this process ...", err=True)
    jobs = min(os.cpu_count() or 1, 4)
    shown = Bar(time.monotonic())

    def hook(work: Any, done: int, count: int) -> None:
        shown.show(f"round {work.round}: {work.kind}", done, count, time.monotonic())

    summaries = {api.name_of(config): summary, **api.baselines(prepared, jobs, on_participant=hook)}
    shown.clear()
    click.echo("\n" + comparison_table([summaries]))
    click.echo(
        f"\nAdapted: {config.evaluation.adapt_steps} local steps on {config.evaluation.support} of a participant's own "
        "pictures.\nAll took as many gradients on each participant; alone, a new one is given that whole time, too."
    )
    click.echo("\nAnd with classes of one's own, in this process ...", err=True)
    shares = _things_of_its_own(config, jobs, hook)
    shown.clear()
    click.echo(
        f"\nA new device is shown {SHOWN} pictures of each of {THINGS} things, takes no training step, and names new "
        "ones rightly:\n" + "\n".join(f"    {name:30}{share:6.1%}" for name, share in shares.items())
    )


def _things_of_its_own(
    config: "RunConfig", jobs: int, on_participant: Callable[[Any, int, int], None] = lambda *_: None
) -> dict[str, float]:
    """Return how often new participants name their own things rightly, by what was trained together.

    The adaptation is the same, a mean of features for each thing, and so is the budget of gradients; for FedAvg all
    participants have named their things alike. Over DRAWS draws of THINGS things, and SHOWN pictures of each.
    """
    from dataclasses import replace

    from edgemeta import api
    from edgemeta.config import OWN
    from edgemeta.fed.comparison import fedavg_of

    few: dict[str, Any] = {
        "adaptation": "prototypes",
        "adapt_steps": None,
        "episodes": DRAWS,
        "ways": THINGS,
        "shots": (SHOWN,),
    }
    named = replace(fedavg_of(config), evaluation=replace(config.evaluation, every=NEVER, **few))
    phases = tuple(replace(phase, algorithm="protonet") for phase in named.phases)
    own = replace(named, phases=phases, model=replace(named.model, classes=OWN))
    return {
        name: api.simulate(run, jobs=jobs, on_participant=on_participant).summary["evaluation_new"]["episodes"][0][
            "accuracy"
        ]["mean"]
        for name, run in (("protonet", own), ("fedavg, the same adaptation", named))
    }


def _over_http(folder: Path, count: int, source: str, progress: Any) -> Any:
    """Run a gateway and `count` devices to the end, showing each round, and return the run's summary."""
    from edgemeta.bench.loopback import device, ended, gateway, records
    from edgemeta.errors import EdgemetaError
    from edgemeta.fed.scores import summarize

    with ExitStack() as stack:
        server, url = stack.enter_context(gateway(folder / "run.toml", folder / "gateway"))
        devices = [
            device(url, folder / f"device-{k}", "--data", source, "--partition-id", str(k)) for k in range(count)
        ]
        stack.enter_context(ended(*devices))
        click.echo(f"gateway: {url} (process {server.pid})", err=True)
        click.echo(f"devices: {count} processes, {devices[0].pid} to {devices[-1].pid}\n", err=True)
        shown = 0
        while any(process.poll() is None for process in devices):
            for record in records(folder / "gateway", shown):
                progress.on_round(record)
                shown += 1
            time.sleep(0.1)
        for process, k in zip([server, *devices], range(-1, count), strict=True):
            if process.poll():
                log = folder / ("gateway.log" if k < 0 else f"device-{k}.log")
                raise EdgemetaError(f"process {process.pid} of the demo failed: {log.read_text()[-500:].strip()}")
        for record in records(folder / "gateway", shown):
            progress.on_round(record)
        return summarize(records(folder / "gateway", 0))
