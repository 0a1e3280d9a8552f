"""A node that is a site: the gateway there runs the stage among its boards, and the node brings what that led to."""

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edgemeta.config import differences
from edgemeta.errors import ConfigError, EdgemetaError, InputError
from edgemeta.fed.between import answer_to, check_between, place_order
from edgemeta.fed.client import Update
from edgemeta.fed.messages import Work
from edgemeta.fed.runs import config_of, run_of
from edgemeta.flower import check_flower
from edgemeta.flower.records import Told
from edgemeta.link.address import gateway_address

PORT = 8000  # of a SuperLink
PAUSE_S = 0.2  # between two looks for an answer


def node_command(superlink: str, number: int | None, site: Path) -> list[str]:
    """Return the command of the SuperNode that stands for a site.

    superlink: the URL of a SuperLink; http:// is without encryption. Raises ConfigError without the tested version of
    Flower, without a number, and for what is no URL.
    """
    check_flower()
    if number is None:
        raise ConfigError("--superlink takes --partition-id K: which participant this site is there, counted from 0")
    encrypted, host, port, _ = gateway_address(superlink)
    with socket.socket() as free:  # a SuperNode talks with what it starts over a port of this machine
        free.bind(("127.0.0.1", 0))
        own = free.getsockname()[1]
    return [
        str(Path(sys.executable).with_name("flower-supernode")),
        *(() if encrypted else ("--insecure",)),
        *("--superlink", f"{host}:{port or PORT}", "--port", str(own)),
        *("--node-config", f"partition-id={number} site={json.dumps(str(site.absolute()))}"),
    ]


@asynccontextmanager
async def beside(command: Sequence[str], stopped: "asyncio.Future[int]") -> AsyncIterator[None]:
    """Run a SuperNode while the context lasts; `stopped` gets a result when it ends by itself, which is raised then."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # it looks for its programs there
    node = await asyncio.create_subprocess_exec(*command, env=os.environ | {"PATH": path})

    async def stop_with_it() -> None:
        await node.wait()
        if not stopped.done():
            stopped.set_result(signal.SIGTERM)

    ended = asyncio.ensure_future(stop_with_it())
    try:
        yield
        if node.returncode is not None:
            raise EdgemetaError(f"the SuperNode has ended by itself, with status {node.returncode}: see what it said")
    finally:
        if node.returncode is None:
            node.terminate()
        await ended


def check_site(site: Path, told: Told) -> None:
    """Raise ConfigError unless a site's run is the one that is asked for; its server and its data are its own."""
    ours, theirs = config_of(run_of(site)), told.config
    check_between(ours)
    unlike = [
        said for said in differences(ours, theirs) if said.startswith(("seed", "model.", "phases.", "evaluation."))
    ]
    if unlike:
        raise ConfigError(
            f"the run in {site} is another one ({'; '.join(unlike)}): 'edgemeta run new' begins one as it is asked for"
        )


def trained(site: Path, told: Told, work: Work, vectors: Any) -> Update:
    """Return what a site's boards come to in a round; raises InputError with the site's own word where they do not."""
    tensors, said = _asked(site, told, work, vectors)
    numbers = {"samples": int(said["samples"]), "gradient_evaluations": int(said["gradient_evaluations"])}
    return Update(shared=tensors, private={}, loss=float(said["loss"]), **numbers)


def evaluated(site: Path, told: Told, work: Work, vectors: Any) -> dict[str, Any]:
    """Return the scores of a site's boards as one participant's; raises InputError where there are none."""
    scores: dict[str, Any] = json.loads(_asked(site, told, work, vectors)[1]["scores"])
    return scores


def _asked(site: Path, told: Told, work: Work, vectors: Any) -> Any:
    check_site(site, told)
    run, key, end = run_of(site), secrets.token_hex(8), time.monotonic() + told.seconds
    place_order(run, key, work, vectors)
    while (answer := answer_to(run, key)) is None:
        if time.monotonic() > end:
            raise InputError(
                f"the gateway of {site} has not answered: is it running, as 'edgemeta server --superlink'?"
            )
        time.sleep(PAUSE_S)
    if "refused" in answer[1]:
        raise InputError(answer[1]["refused"])
    return answer
