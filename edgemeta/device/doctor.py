"""What `edgemeta doctor` looks at on a device: each check says that it is well, or what is wrong and what to do."""

import math
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta.config import DataConfig, PhaseConfig
from edgemeta.device.calls import CONNECT_S, Away, Gateway
from edgemeta.device.guard import Guard, NoMemory, free_mb, needed_mb
from edgemeta.device.own import own_part
from edgemeta.device.profile import Profile
from edgemeta.errors import ConfigError, DataError
from edgemeta.fed.client import local_steps
from edgemeta.fed.description import Description
from edgemeta.fed.progress import Stage
from edgemeta.link.address import gateway_address, is_loopback, with_port, without_zone
from edgemeta.link.joinfile import JoinFile, read_join_file
from edgemeta.link.protocol import PROTOCOL
from edgemeta.link.trust import SHORT_DAYS, Offered, clock_is_behind, device_context, ended, explained
from edgemeta.meta import Samples, begin, steps_in
from edgemeta.meta.learners import shared_of, sizes, trained
from edgemeta.names import listed
from edgemeta.records import record_from

EARLIEST = 1_735_689_600  # 1 January 2025: a clock before it was never set
MOST_OFF_S = 300  # between two clocks that are both right
FILES = 8  # of a model's size, that a device's state directory may hold at a time
TIMED_STEPS = 3  # after a first one, which is slower
SUPPOSED_SAMPLES, SUPPOSED_CLASSES = 100, 5  # where no data is given to count


@dataclass(frozen=True)
class Finding:
    """One check. ok: None when it could not be made."""

    check: str
    ok: bool | None
    text: str


class _Wrong(Exception):
    """The checks that need what was looked at here cannot be made."""


def examine(url: str | None, join: Path | None, data: str | None, state: Path, profile: Profile) -> Iterator[Finding]:
    """Yield what is found, in the order in which a device meets it; no place in the run is taken."""
    run: tuple[Description, Mapping[str, Any]] | None = None
    try:
        given = "" if url is None else _good("address", with_port, url)
        joins = JoinFile(given, "", "") if join is None else _good("join file", read_join_file, join)
        if join is not None:
            yield Finding("join file", True, f"of '{joins.name}' for {joins.url}")
        for finding, said in _gateway(joins):
            yield finding
            if said is not None:
                run = _good("layout", Description.from_json, said), said
                run[0].network.threads = profile.threads
    except _Wrong as error:
        yield error.args[0]
    samples = SUPPOSED_SAMPLES
    if run is not None:
        network = run[0].network
        yield _place(run[1])
        text = f"{network.name} of {network.layout.size:,} parameters, {network.layout.fingerprint}"
        yield Finding("layout", True, text)
        finding, samples = _data(run[0], data)
        yield finding
    yield _disk(state, run)
    if run is None:
        yield Finding("memory", None, f"{free_mb():.0f} MB are free; the gateway did not say what a task takes")
        yield Finding("speed", None, "the gateway did not say what a round asks for")
    else:
        recipe = record_from(PhaseConfig, run[1]["recipe"])
        memory = _memory(run[0], recipe, samples, profile)
        yield memory
        yield _speed(run[0], recipe, samples, run[1]) if memory.ok else Finding("speed", None, "too little memory")


def _good(check: str, function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except ConfigError as error:
        raise _Wrong(Finding(check, False, str(error))) from None


def _gateway(joins: JoinFile) -> Iterator[tuple[Finding, Mapping[str, Any] | None]]:
    """Yield findings on the way to the gateway; the last one comes with what it says of the run."""
    gateway = _good("address", Gateway, joins.url, joins.certificate)
    encrypted, host, given, _ = gateway_address(joins.url)
    port = given or (443 if encrypted else 80)
    try:
        addresses = sorted({str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    except OSError as error:
        advice = "is it spelt right, and is the network up? Names in .local take avahi; an address always works"
        raise _Wrong(Finding("name", False, f"'{host}' is not known here ({error.strerror}): {advice}")) from None
    yield Finding("name", True, f"{host} is {', '.join(addresses)}"), None
    yield _connection(host, port), None
    local = all(map(is_loopback, addresses))
    if encrypted:
        yield _tls(host, port, joins.certificate), None
    else:
        text = "none: the gateway is on this machine" if local else "none: whoever is on this network can listen"
        yield Finding("TLS", True, text), None
    said = _said(gateway, joins)
    yield _clock(said), None
    yield Finding("token", True, f"the gateway knows it as '{said['name']}'" if said["name"] else "none needed"), None
    if joins.name and said["name"] not in (None, joins.name):
        text = f"the join file is of '{joins.name}', and its token of '{said['name']}': make it anew on the gateway"
        raise _Wrong(Finding("token", False, text))
    if said["protocol"] != PROTOCOL:
        text = f"version {said['protocol']} there and {PROTOCOL} here: install the same edgemeta on both"
        raise _Wrong(Finding("protocol", False, text))
    yield Finding("protocol", True, f"version {PROTOCOL} on both sides"), said


def _connection(host: str, port: int) -> Finding:
    try:
        start = time.monotonic()
        socket.create_connection((host, port), CONNECT_S).close()
    except TimeoutError:
        text = f"no answer from {host}:{port} in {CONNECT_S:g} s: another network, or a firewall in between"
    except ConnectionRefusedError:
        text = f"nothing listens on {host}:{port}: is the gateway running, and with --host 0.0.0.0 for other machines?"
    except OSError as error:
        text = f"{host}:{port} cannot be reached: {error.strerror or error}"
    else:
        return Finding("connection", True, f"port {port} answers in {1000 * (time.monotonic() - start):.0f} ms")
    raise _Wrong(Finding("connection", False, text))


def _tls(host: str, port: int, certificate: str) -> Finding:
    try:
        with (
            socket.create_connection((host, port), CONNECT_S) as plain,
            device_context(certificate).wrap_socket(plain, server_hostname=without_zone(host)) as secure,
        ):
            ends: Mapping[str, Any] = secure.getpeercert() or {}
            days = Offered((), ended(ends)).days_left(time.time())
            good = f"its certificate is good for {days} days"
            text = f"{secure.version()}, and the gateway is the one of the join file; {good}"
            return Finding("TLS", True, text + "; 'edgemeta tls' on the gateway renews it" * (days < SHORT_DAYS))
    except ssl.SSLError as error:
        check = "clock" if clock_is_behind(error) else "TLS"
        raise _Wrong(Finding(check, False, explained(error, host))) from None
    except OSError as error:
        raise _Wrong(Finding("TLS", False, f"the connection broke: {error.strerror or error}")) from None


def _said(gateway: Gateway, joins: JoinFile) -> Mapping[str, Any]:
    """Return what the gateway says of the run, checked for what is used here."""
    try:
        answer = gateway.call("GET", "/v1/run", session=joins.token)
        if answer.status in (401, 403) and answer.refusal:
            raise _Wrong(Finding("token", False, ": ".join(answer.refusal)))
        if answer.status != 200:
            text = f"it answered {answer.status} {': '.join(answer.refusal or ())}".rstrip()
            raise _Wrong(Finding("gateway", False, f"{text}: is an edgemeta gateway of this version there?"))
        said = answer.json()
        if not {"protocol", "name", "time", "recipe", "round_deadline_s"} <= said.keys():
            raise Away("it says nothing of a run: is it an edgemeta gateway of this version?")
        _good("protocol", record_from, PhaseConfig, said["recipe"])
        float(said["round_deadline_s"]), float(said["time"])
    except (Away, TypeError, ValueError) as error:
        raise _Wrong(Finding("gateway", False, str(error))) from None
    finally:
        gateway.close()
    return said


def _clock(said: Mapping[str, Any]) -> Finding:
    off_s, here = time.time() - float(said["time"]), time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if time.time() < EARLIEST:
        return Finding("clock", False, f"it is {here} here, it was never set: 'timedatectl set-ntp true' does that")
    if abs(off_s) > MOST_OFF_S:
        way = "ahead of" if off_s > 0 else "behind"
        text = f"it is {here} here, {abs(off_s):.0f} s {way} the gateway: 'timedatectl' on both says which one is wrong"
        return Finding("clock", False, text)
    return Finding("clock", True, f"{here}, as on the gateway")


def _place(said: Mapping[str, Any]) -> Finding:
    """Return the finding on what a device would be in the run; older gateways say less of it."""
    number, free, name = said.get("participant"), said.get("free"), said.get("name")
    if said.get("stage") == Stage.OVER:
        return Finding("run", True, "it is over: this device gets its model, and takes part in the next one")
    if number is not None:
        return Finding("run", True, f"at round {said['round']}; '{name}' is participant {number}")
    if free == 0:
        way = "'edgemeta devices replace OLD NEW' on the gateway gives it that of a board that is gone"
        text = f"at round {said['round']}; every place is taken: where none is this device's, {way}"
        return Finding("run", None, text)
    return Finding("run", True, f"at round {said['round']}" + (f"; {free} places are free" if free else ""))


def _data(run: Description, spec: str | None) -> tuple[Finding, int]:
    """Return the finding on this device's data, and how many training samples it has."""
    classes = ", ".join(run.classes[:8]) + (", ..." if len(run.classes) > 8 else "")
    own = run.network.embeds
    if spec is None and own:
        return Finding("classes", None, "every device has its own; --data SPEC looks at yours"), SUPPOSED_SAMPLES
    if spec is None:
        return Finding("classes", None, f"the run's are {classes}; --data SPEC looks at yours"), SUPPOSED_SAMPLES
    try:
        part = own_part(spec, run.network.input_shape, run.classes, DataConfig(), run.seed, 0, cut=False)
    except DataError as error:
        return Finding("classes", False, str(error)), SUPPOSED_SAMPLES
    samples = len(part.train_set)
    if own:
        return _own(part.train_set.classes, np.unique(part.train_set.labels, return_counts=True)[1], samples), samples
    text = f"all of {spec} are among the run's, {classes}; {samples} training samples"
    return Finding("classes", True, text), samples


def _own(classes: tuple[str, ...], counts: Any, samples: int) -> Finding:
    """Return the finding on a device's own classes. counts: how many training samples there are of each."""
    text = f"{len(classes)} of its own, {listed(classes)}; {samples} training samples"
    if len(counts) < 2:
        return Finding("classes", False, f"{text} of one class: there is nothing to tell it from; label another thing")
    if counts.min() < 2:
        return Finding("classes", False, f"{text}, of some class only one: two are needed to learn from; label more")
    return Finding("classes", True, text)


def _disk(state: Path, run: tuple[Description, Mapping[str, Any]] | None) -> Finding:
    folder = next(path for path in (state.absolute(), *state.absolute().parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"1")
            file.flush()
    except OSError as error:
        text = f"{folder} cannot be written ({error.strerror}): a card that went read-only wants to be replaced; else"
        return Finding("disk", False, f"{text} free some space, or give another --state")
    free = shutil.disk_usage(folder).free / 2**20
    needed = FILES * 4 * run[0].network.layout.size / 2**20 if run else 0.0
    if free < needed:
        return Finding("disk", False, f"{free:.0f} MB are free in {folder}, the state takes {needed:.0f}: free some")
    return Finding("disk", True, f"{free:,.0f} MB are free in {folder}, and the state takes {math.ceil(needed)}")


def _memory(run: Description, recipe: PhaseConfig, samples: int, profile: Profile) -> Finding:
    try:
        Guard(profile.memory_mb).check(run.network, recipe.batch_size, samples)
    except NoMemory as error:
        return Finding("memory", False, str(error))
    needed = needed_mb(run.network, recipe.batch_size, samples)
    return Finding("memory", True, f"{free_mb():,.0f} MB are free, and a task takes {needed:.0f} at most")


def _speed(run: Description, recipe: PhaseConfig, samples: int, said: Mapping[str, Any]) -> Finding:
    """Time some local steps of the recipe, on random samples."""
    rng, network, count = np.random.default_rng(0), run.network, max(2 * recipe.batch_size, 2)
    shape = (count, *network.input_shape)
    pictures = len(network.input_shape) == 3
    x: Any = rng.integers(0, 256, shape, np.uint8) if pictures else rng.standard_normal(shape, np.float32)
    classes = min(SUPPOSED_CLASSES, (network.headed or network).outputs) if network.embeds else network.outputs
    drawn = Samples(x, rng.integers(0, classes, count, np.int64))
    beside = {name: start(network) for name, start in shared_of(network, recipe.algorithm).items()}
    theta = network.init(0)[: sizes(network, recipe.algorithm)["theta"]]
    whole = trained(network, recipe.algorithm, classes)
    state = begin(whole, recipe, {"theta": theta, **beside}, {})
    few = replace(PhaseConfig(), algorithm=recipe.algorithm, batch_size=recipe.batch_size, settings=recipe.settings)
    times = [time.perf_counter()]
    for _ in local_steps(whole, few, state, drawn, np.random.default_rng):
        times.append(time.perf_counter())
        if len(times) > TIMED_STEPS + 1:
            break
    step_s = float(np.median(np.diff(times)[1:]))
    steps, deadline_s = steps_in(recipe, samples), float(said["round_deadline_s"])
    text = f"{steps} steps of {1000 * step_s:.3g} ms take {steps * step_s:.3g} s, a round is open for {deadline_s:g} s"
    if steps * step_s > deadline_s:
        advice = "give the run fewer local steps, a smaller model or batch_size, or a longer server.round_deadline_s"
        return Finding("speed", False, f"{text}: {advice}")
    return Finding("speed", True, text)
