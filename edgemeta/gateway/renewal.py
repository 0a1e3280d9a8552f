"""Certificates that are renewed while the gateway runs: their files are looked at again and again."""

import logging
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from edgemeta.errors import ConfigError, StorageError
from edgemeta.gateway.enrolment import TLS, offered_of, tls_of
from edgemeta.link.trust import DAY_S, SHORT_DAYS, Offered

log = logging.getLogger("edgemeta")

LOOK_S = 2.0  # between two looks at the files


class Renewal:
    """A gateway's certificate as it is in its files. offered: what it says; context: what to speak TLS with.

    clock: seconds since 1970. Raises ConfigError when it cannot be used at first, StorageError.
    """

    def __init__(
        self, state: Path, certificate: Path | None, key: Path | None, clock: Callable[[], float] = time.time
    ) -> None:
        self._state, self._certificate, self._key, self._clock = state, certificate, key, clock
        self._files = [certificate, key] if certificate else [state / TLS / "gateway.pem", state / TLS / "ca.pem"]
        self._seen, self._said = self._stamp(), -DAY_S
        self.context: ssl.SSLContext | None = tls_of(state, certificate, key)
        self.offered: Offered | None = offered_of(state, certificate, key)

    def renewed(self) -> bool:
        """Take up files that have changed since the last time; return whether that was done.

        What cannot be used is said, and what was used goes on; so is, once a day, that a certificate ends soon.
        """
        done = False
        if self.context is not None and (stamp := self._stamp()) != self._seen:
            self._seen = stamp
            try:
                context = tls_of(self._state, self._certificate, self._key)
                if context is None:
                    raise ConfigError(f"{self._files[0]} is gone: 'edgemeta tls' makes it")
                self.context, self.offered = context, offered_of(self._state, self._certificate, self._key)
                done = True
            except (ConfigError, StorageError) as error:
                log.error("the certificate before goes on: %s", error)
        self._warn()
        return done

    def _warn(self) -> None:
        now = self._clock()
        left = self.offered.days_left(now) if self.offered else SHORT_DAYS
        if left < SHORT_DAYS and now >= self._said + DAY_S:
            self._said = now
            log.warning("%s", ending(left, own=self._certificate is None))

    def _stamp(self) -> list[tuple[int, ...]]:
        """Return what changes when a file does; links are followed, as of those that other programs renew."""
        found: list[tuple[int, ...]] = []
        for file in filter(None, self._files):
            try:
                seen = os.stat(file)
                found.append((seen.st_ino, seen.st_mtime_ns, seen.st_size))
            except OSError:
                found.append(())
        return found


def ending(days: int, *, own: bool = True) -> str:
    """Say that a certificate ends in so many days, and what to do. own: `edgemeta tls` made it."""
    what = f"ends in {days} days" if days >= 0 else "has ended"
    how = "'edgemeta tls' renews it, and a gateway at work takes it up" if own else "renew the files of --cert"
    return f"the gateway's certificate {what}: {how}"
