"""`edgemeta doctor`: what keeps this device from taking part."""

import json
import sys
from pathlib import Path

import click

from edgemeta.cli import options

MARKS = {True: "ok", False: "WRONG", None: "-"}


@click.command()
@click.argument("server", metavar="[URL]", required=False)
@click.option("--join", type=click.Path(path_type=Path), metavar="FILE", help="The device's join file, instead of URL.")
@click.option("--data", metavar="SPEC", help="This device's data, to look at its classes.")
@options.state("Where the device will keep its state.")
@click.option("--profile", type=click.Path(path_type=Path), metavar="FILE", help="The board's limits.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(
    server: str | None, join: Path | None, data: str | None, state: Path, profile: Path | None, as_json: bool
) -> None:
    """Check on a device whether it can take part in a gateway's run: network, trust, token, model, memory, speed.

    Exits with 0 when nothing is wrong, else with 1. It does not join, and changes nothing.
    """
    if (server is None) == (join is None):
        raise click.UsageError("give the gateway's URL, or a join file as --join FILE")
    from edgemeta.device.doctor import examine
    from edgemeta.device.profile import Profile, read_profile
    from edgemeta.names import shown

    limits = read_profile(profile) if profile else Profile()
    findings = []
    for finding in examine(server, join, data, state, limits):
        findings.append(finding)
        if not as_json:
            click.echo(f"{MARKS[finding.ok]:5}  {finding.check:10}  {shown(finding.text)}")
    well = all(finding.ok is not False for finding in findings)
    if as_json:
        checks = [{"check": finding.check, "ok": finding.ok, "text": finding.text} for finding in findings]
        click.echo(json.dumps({"ok": well, "checks": checks}))
    sys.exit(not well)
