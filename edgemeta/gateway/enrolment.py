"""What an operator does about devices and access, in a gateway's state directory; it may run meanwhile."""

import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path

from edgemeta.errors import ConfigError
from edgemeta.fed.runs import progress_of, run_of, runs
from edgemeta.fed.standing import Standing
from edgemeta.gateway.roster import Roster
from edgemeta.gateway.seen import read_seen
from edgemeta.gateway.tokens import (
    DEVICES_FILE,
    REMOVE,
    REPLACE,
    enroll,
    order,
    read_register,
    revoke,
    set_operator,
)
from edgemeta.link.address import PORT, gateway_address, is_local, with_port, without_zone
from edgemeta.link.joinfile import NAME, JoinFile, write_join_file
from edgemeta.link.trust import Offered, device_context, ends, gateway_context, rehearse, timeless
from edgemeta.reading import Missing, Reader, exists, followed

MAX_PEM_BYTES = 1 << 20
HELD = "asked no more: 'edgemeta devices release NAME' lets it take part again"
TLS = "tls"  # the folder in the state directory that `make_certificates` fills


@dataclass(frozen=True)
class Joining:
    """What was made for a device. rotated: an earlier token stays good until this one is used.

    overheard: the token goes over a network without encryption.
    """

    path: Path
    url: str
    rotated: bool
    overheard: bool


@dataclass(frozen=True)
class Listed:
    """A device as it is listed: one that was enrolled, has joined a run, or both.

    enrolled: seconds since 1970, None where no token was made for it; participant: in the newest run, None before it
    joined; kept: the number that is kept for it until then; runs: in how many it has taken part; seen: when it was last
    heard, in seconds since 1970, which a gateway at work writes down every ten minutes; standing: what keeps it out, ""
    where nothing does.
    """

    name: str
    enrolled: float | None
    participant: int | None
    kept: int | None
    runs: int
    seen: float | None
    standing: str


def enroll_device(
    state: Path, name: str, url: str | None, trust: Path | None, folder: Path, now: float, number: int | None = None
) -> Joining:
    """Make a token for a device and its join file NAME.join in `folder`.

    url: where the device finds the gateway; None: by the first name in its certificate. trust: a PEM file to be trusted
    instead of the gateway's own authority. A gateway whose certificate the device would refuse is found out here.
    number: the participant number that is kept for it. Raises ConfigError and StorageError; then nobody has a token.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"'{name}' cannot be a device here: expected up to 64 letters, digits, '-', '_' and '.'")
    for participant, joined in _roster(run_of(state)).names.items():
        if number is not None and (joined == name) != (participant == number):
            raise ConfigError(f"'{joined}' has joined as participant {participant}: '{name}' cannot be {number}")
    anchor = _read_anchor(followed(trust)) if trust else _own_anchor(state)
    if url is None:
        if trust or not anchor:
            raise ConfigError(
                "where will the device find this gateway? Give --url https://HOST:PORT, or have a certificate made "
                "first by 'edgemeta tls'"
            )
        host = next(iter(rehearse(_own_context(state), device_context(anchor), None).names), "")
        url = f"https://{f'[{host}]' if ':' in host else host}:{PORT}"
    url = with_port(url)
    encrypted, host, _, _ = gateway_address(url)
    if encrypted and not anchor:
        raise ConfigError(f"{url} takes a certificate: make one by 'edgemeta tls', or give yours as --trust FILE")
    if encrypted and not trust:
        rehearse(_own_context(state), device_context(anchor), without_zone(host))
    path, token = folder / f"{name}.join", secrets.token_hex(32)
    rotated = False

    def enrolled() -> None:
        nonlocal rotated
        rotated = enroll(state / DEVICES_FILE, name, token, now, number)

    # A kill in between leaves a token that nobody has, and the next one takes its place.
    write_join_file(path, JoinFile(url, name, token, anchor if encrypted else ""), before=enrolled)
    return Joining(path, url, rotated, overheard=not encrypted and not is_local(host))


def make_operator_token(state: Path) -> str:
    """Return a new operator's token; an earlier one is good no longer. Raises ConfigError and StorageError."""
    token = secrets.token_hex(32)
    set_operator(state / DEVICES_FILE, token)
    return token


def order_gateway(state: Path, name: str, what: str) -> None:
    """Have the gateway hold or release a device, at once when it runs. Raises ConfigError for one that never joined."""
    if name not in _roster(run_of(state)).names.values():
        raise ConfigError(f"no device '{name}' has joined here: 'edgemeta devices' lists them")
    order(state / DEVICES_FILE, name, what)


def remove_device(state: Path, name: str) -> None:
    """Have the run go on without a device: its place is free, and no token of it is good. Raises ConfigError."""
    path, joined = state / DEVICES_FILE, name in _roster(run_of(state)).names.values()
    enrolled = name in read_register(path).devices
    if not joined and not enrolled:
        raise ConfigError(f"no device '{name}' was enrolled or has joined here: 'edgemeta devices' lists them")
    if joined:
        order(path, name, REMOVE)
    if enrolled:
        revoke(path, name)


def replace_device(
    state: Path, name: str, new: str, url: str | None, trust: Path | None, folder: Path, now: float
) -> Joining | None:
    """Have another board take a device's place in the run, under the same name or another one.

    Where devices join by tokens it gets a join file, as by `enroll_device`, and the old board is shut out where its
    name is another one. Raises ConfigError and StorageError.
    """
    path, register = state / DEVICES_FILE, read_register(state / DEVICES_FILE)
    names = _roster(run_of(state)).names.values()
    if name not in names:
        raise ConfigError(f"no device '{name}' has joined here ('edgemeta devices' lists them): nobody has its place")
    if new != name and new in names:
        raise ConfigError(f"'{new}' has a place in the run already: 'edgemeta devices remove {name}' lets '{name}' go")
    made = enroll_device(state, new, url, trust, folder, now) if register.devices else None
    order(path, name, f"{REPLACE} {new}")
    if new != name and name in register.devices:
        revoke(path, name)
    return made


def list_devices(state: Path) -> list[Listed]:
    """Return the devices of a site, by name. Raises ConfigError and StorageError."""
    register, there = read_register(state / DEVICES_FILE), runs(state) or [state]
    rosters = [_roster(run).names for run in there]
    numbers, seen = {name: number for number, name in rosters[-1].items()}, read_seen(state)
    held = Standing(progress_of(there[-1]).strikes, {}).held
    standings = ("revoked", "", "a newer token is not used yet")
    listed = []
    for name in sorted({*register.devices, *(name for names in rosters for name in names.values())}):
        device, number = register.devices.get(name), numbers.get(name)
        enrolled, kept = (device.enrolled, device.number) if device else (None, None)
        taken = sum(name in names.values() for names in rosters)
        standing = HELD if number in held else standings[len(device.tokens)] if device else ""
        listed.append(Listed(name, enrolled, number, kept, taken, seen.get(name), standing))
    return listed


def _roster(run: Path) -> Roster:
    return Roster(run / "roster.json", 0, "")


def tls_of(state: Path, certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return what the gateway is to speak TLS with: what was given, else what the state directory has, else None.

    Raises ConfigError when it cannot be used.
    """
    own = state / TLS / "gateway.pem"
    if certificate is None and key is not None:
        raise ConfigError("--key goes with --cert: give both, or neither")
    if certificate is not None:
        return gateway_context(certificate, key)
    if not exists(own):
        return None
    context, anchor = _own_context(state), _own_anchor(state)
    if anchor:
        rehearse(context, device_context(anchor), None)  # one that has expired, say, is of no use to any device
    return context


def _own_context(state: Path) -> ssl.SSLContext:
    """Return what the state directory's certificate makes; the file is opened as all of the state are, past no link."""
    path = state / TLS / "gateway.pem"
    try:
        with Reader(path) as file:
            return gateway_context(path, opened=file.fileno())
    except Missing as error:
        raise ConfigError(f"{error}: make the certificate by 'edgemeta tls'") from None


def offered_of(state: Path, certificate: Path | None = None, key: Path | None = None) -> Offered | None:
    """Return what the gateway's certificate says, also when it has ended; None where it has none, or no device could
    trust it.

    It ends with the state directory's authority, when that is sooner.
    """
    path = followed(certificate) if certificate else state / TLS / "gateway.pem"
    if not exists(path):
        return None
    try:
        context = gateway_context(path, key) if certificate else _own_context(state)
        offered = rehearse(context, timeless(device_context(_read_anchor(path))), None)
        anchor = "" if certificate else _own_anchor(state)
        return offered._replace(until=min(offered.until, ends(anchor))) if anchor else offered
    except ConfigError:  # a chain that ends elsewhere, say
        return None


def names_of(state: Path, certificate: Path | None, key: Path | None) -> list[str]:
    """Return the names for which the gateway's certificate is, none where `offered_of` has none."""
    offered = offered_of(state, certificate, key)
    return [*offered.names] if offered else []


def _own_anchor(state: Path) -> str:
    path = state / TLS / "ca.pem"
    return _read_anchor(path) if exists(path) else ""


def _read_anchor(path: Path) -> str:
    """Return the certificates of a PEM file, without a key that may be in it too."""
    try:
        with Reader(path) as file:
            text = file.read_at(MAX_PEM_BYTES, 0).decode("ascii")
        found = [part.split("-----END")[0] for part in text.split("-----BEGIN CERTIFICATE-----")[1:]]
        anchor = "".join(f"-----BEGIN CERTIFICATE-----{part}-----END CERTIFICATE-----\n" for part in found)
        device_context(anchor)
    except UnicodeError as error:
        raise ConfigError(f"cannot read the certificate {path}: {error}; expected a PEM file") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return anchor
