"""Which devices may take part: hashes of their tokens, in a file that commands write while a gateway reads it.

A token is 256 random bits. Its plain sha256 is kept: slow hashes are for what people choose, and nobody finds 256
random bits by trying, however fast. A device may have two tokens at a time: enrolled again, it goes on with the old
one until it first joins with the new one. A token that was revoked or replaced is remembered, to say so to its holder.

This is policy without a network, as the roster is: whoever calls draws the tokens and knows the time.
"""

import copy
import hashlib
import hmac
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgemeta import disk
from edgemeta.errors import ConfigError, StorageError
from edgemeta.fed.refusal import Reason, Refused
from edgemeta.reading import reading
from edgemeta.storage import held, read_kept, storing, write_kept

log = logging.getLogger("edgemeta")

DEVICES_FILE = "devices.json"  # in a gateway's state directory
FORMAT = "edgemeta-devices/2"  # 1 had no number and no orders
HOLD, RELEASE, REMOVE, REPLACE = "hold", "release", "remove", "replace"  # orders; REPLACE is followed by " NEW-NAME"


@dataclass(frozen=True)
class Enrolled:
    """A device. enrolled: seconds since 1970; tokens: hashes of the good ones, newest first, none when revoked.

    number: the participant number that is kept for it.
    """

    enrolled: float
    tokens: tuple[str, ...]
    former: tuple[str, ...] = ()
    number: int | None = None


@dataclass
class Register:
    """Name -> device; the hash of the operator's token, "" when there is none; name -> order to the running gateway."""

    devices: dict[str, Enrolled] = field(default_factory=dict)
    operator: str = ""
    orders: dict[str, str] = field(default_factory=dict)


def enroll(path: Path, name: str, token: str, now: float, number: int | None = None) -> bool:
    """Let whoever has this token take part as `name`; return whether the device has another one that is still good.

    Of earlier tokens the one in use stays good, and one that was never used is replaced. number: the participant number
    to keep for it; None: as before. Raises StorageError, and ConfigError when the file is damaged or the number is kept
    for another device.
    """
    with _editing(path) as register:
        for other, kept in kept_numbers(register).items():
            if kept == number and other != name:
                raise ConfigError(f"participant {number} is kept for '{other}': give '{name}' another one")
        before = register.devices.get(name, Enrolled(now, ()))
        former = (*before.former, *before.tokens[:-1])
        tokens = (digest(token), *before.tokens[-1:])
        register.devices[name] = Enrolled(now, tokens, former, before.number if number is None else number)
        return bool(before.tokens)


def revoke(path: Path, name: str) -> bool:
    """Let no token of `name` be good any more; return whether there was one. Raises ConfigError for no such device."""
    with _editing(path) as register:
        before = register.devices.get(name)
        if before is None:
            raise ConfigError(f"no device '{name}' was enrolled here: 'edgemeta devices' lists them")
        register.devices[name] = replace(before, tokens=(), former=(*before.former, *before.tokens))
        return bool(before.tokens)


def set_operator(path: Path, token: str) -> None:
    """Make this the operator's token, in the place of an earlier one."""
    with _editing(path) as register:
        register.operator = digest(token)


def order(path: Path, name: str, what: str) -> None:
    """Have the gateway, when it next looks, hold a device (ask it no more) or release it."""
    with _editing(path) as register:
        register.orders[name] = what


def read_register(path: Path) -> Register:
    """Return what the file says, nothing when there is none. Raises ConfigError and StorageError."""
    advice = "restore it, or remove it and enroll every device anew"
    return read_kept(path, Register, FORMAT, advice) or Register()


def kept_numbers(register: Register) -> dict[str, int]:
    """Return device -> the participant number that is kept for it, of those that are not revoked."""
    return {
        name: device.number for name, device in register.devices.items() if device.tokens and device.number is not None
    }


def digest(token: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Tokens:
    """The register as a running gateway sees it: what a command changes holds from the next request on.

    required: without a token nobody takes part, even while no device is enrolled. It is so too as soon as one was
    enrolled, and stays so: neither revoking the last device nor losing the file opens the gateway. A file that is
    damaged later is reported, and what it said last holds. Raises ConfigError and StorageError at first.
    """

    def __init__(self, path: Path, *, required: bool = False) -> None:
        self._path, self._required = path, required
        self._seen, self._unread = _stamp(path), False
        self._register = read_register(path)

    @property
    def required(self) -> bool:
        """Whether joining takes a token."""
        self._required = self._required or bool(self._current().devices)
        return self._required

    @property
    def enrolled(self) -> int:
        """How many devices have a token that is good."""
        return sum(bool(device.tokens) for device in self._current().devices.values())

    @property
    def kept_numbers(self) -> dict[str, int]:
        """Device -> the participant number that is kept for it."""
        return kept_numbers(self._current())

    def owner(self, token: str | None) -> str:
        """Return whose token it is. Raises Refused."""
        if not token:
            raise Refused(
                Reason.TOKEN_REQUIRED,
                "this gateway knows its devices: send the token of a join file ('edgemeta enroll')",
            )
        hashed, owner, former = digest(token), None, False
        for name, device in self._current().devices.items():  # to the end, so that the time says nothing
            if _matches(hashed, device.tokens):
                owner = name
            former |= hashed in device.former
        if owner is None and former:
            raise Refused(Reason.REVOKED, "this token was revoked, or replaced by a newer one: ask for a new join file")
        if owner is None:
            raise Refused(Reason.BAD_TOKEN, "this gateway did not give this token: is the join file for another one?")
        return owner

    def orders(self) -> Mapping[str, str]:
        """Return what the operator has ordered, by device, and has not been followed yet."""
        return dict(self._current().orders)

    def followed(self, name: str, what: str) -> None:
        """Take note that an order was followed; one that was given meanwhile stays. Raises StorageError."""
        with _editing(self._path) as register:
            if register.orders.get(name) == what:
                del register.orders[name]

    def is_good(self, name: str, hashed: str) -> bool:
        """Say whether `hashed` is a token of `name` now."""
        device = self._current().devices.get(name)
        return device is not None and _matches(hashed, device.tokens)

    def is_operators(self, token: str | None) -> bool:
        """Say whether it is the operator's token."""
        operator = self._current().operator
        return bool(token) and bool(operator) and hmac.compare_digest(digest(token or ""), operator)

    def use(self, name: str, token: str) -> None:
        """Note that `name` joins with this token: when it is the newest, older ones are good no longer.

        Raises Refused when it was revoked meanwhile, and StorageError.
        """
        hashed = digest(token)
        known = self._current().devices.get(name)
        if known is not None and known.tokens == (hashed,):
            return
        with _editing(self._path) as register:
            device = register.devices.get(name)
            if device is None or hashed not in device.tokens:
                raise Refused(
                    Reason.REVOKED, "this token was revoked, or replaced by a newer one: ask for a new join file"
                )
            if hashed == device.tokens[0]:
                former = (*device.former, *device.tokens[1:])
                register.devices[name] = replace(device, tokens=(hashed,), former=former)

    def _current(self) -> Register:
        try:
            stamp = _stamp(self._path)
            if stamp != self._seen:
                self._register, self._seen = read_register(self._path), stamp
            self._unread = False
        except StorageError as error:  # tried again at the next request, and said once
            if not self._unread:
                log.error("%s; what it said before holds until then", error)
            self._unread = True
        except ConfigError as error:
            self._seen = stamp  # said once; looked at again when it changes again
            log.error("%s; what it said before holds until it can be read", error)
        return self._register


def _matches(hashed: str, known: Sequence[str]) -> bool:
    return sum(hmac.compare_digest(hashed, one) for one in known) > 0


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes when a file does: each change is a new file, so its number in the folder is another one."""
    with reading(path):
        found = disk.look(path)
    return (found.st_ino, found.st_mtime_ns, found.st_size, found.st_ctime_ns) if found else ()


@contextmanager
def _editing(path: Path) -> Iterator[Register]:
    """Read the register, let it be changed, and write it when it was, while nobody else does."""
    with storing(path):
        disk.make_folder(path.parent, named=True)
    with held(path.with_suffix(".lock")):
        register = read_register(path)
        before = copy.deepcopy(register)
        yield register
        if register != before:
            write_kept(path, register, FORMAT, private=True)
