"""TLS on both sides: what a gateway offers, what a device trusts, and what it means when they do not agree.

TLS 1.2 up, with forward secrecy and authenticated ciphers only. A device trusts the certificates that it was given and
none of the system's: a gateway's own authority, and no other one in the world, can make a gateway for it.
"""

import math
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from edgemeta.errors import ConfigError

# ChaCha20 first: the processors of most boards have no instructions for AES, and take several times longer for it.
CIPHERS = "ECDHE+CHACHA20:ECDHE+AESGCM"  # of TLS 1.2; all of TLS 1.3 are of this kind
NO_CHECK_TIME = 0x200000  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python does not name
DAY_S = 86_400.0
SHORT_DAYS = 60  # from when on it is said that a certificate ends soon
NOT_YET_VALID, EXPIRED, WRONG_NAME, WRONG_ADDRESS = 9, 10, 62, 64  # OpenSSL's verify results


class Offered(NamedTuple):
    """What a gateway's certificate says. names: that it is for; until: when it ends, in seconds since 1970."""

    names: tuple[str, ...]
    until: float

    def days_left(self, now: float) -> int:
        """Return for how many whole days it is good; below 0: it has ended."""
        return math.floor((self.until - now) / DAY_S)


def gateway_context(certificate: Path, key: Path | None = None, *, opened: int | None = None) -> ssl.SSLContext:
    """Return what a gateway listens with. key: when it is not in the certificate's file. Raises ConfigError.

    opened: the descriptor of the certificate's file, where that is not to be opened by its name.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    try:
        file = certificate if opened is None else f"/proc/self/fd/{opened}"
        context.load_cert_chain(file, key, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(
            f"cannot use the certificate {certificate}{f' with the key {key}' if key else ''}: {_plain(error)}; "
            "expected PEM files that belong together, the key without a password: 'edgemeta tls' makes them"
        ) from None
    return context


def device_context(anchor: str) -> ssl.SSLContext:
    """Return what a device calls with. anchor: the PEM certificates that it trusts. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks chain and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the anchor may be the gateway's own certificate
    try:
        context.load_verify_locations(cadata=anchor)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"the certificate to trust cannot be read: {_plain(error)}; expected PEM") from None
    return context


def timeless(device: ssl.SSLContext) -> ssl.SSLContext:
    """Have a device not look at dates: for what a certificate says that may have ended."""
    device.verify_flags |= NO_CHECK_TIME
    return device


def ends(anchor: str) -> float:
    """Return when the first authority of a PEM text ends (seconds since 1970), infinity where there is none."""
    context = device_context(anchor)
    return min((ended(certificate) for certificate in context.get_ca_certs()), default=math.inf)


def ended(certificate: Mapping[str, Any]) -> float:
    """Return when a certificate ends, in seconds since 1970."""
    return float(ssl.cert_time_to_seconds(certificate["notAfter"]))


def rehearse(gateway: ssl.SSLContext, device: ssl.SSLContext, host: str | None) -> Offered:
    """Have the two shake hands in memory, and return what the certificate says.

    host: as in the device's URL; None: whichever. Raises ConfigError when a device would not trust this gateway.
    """
    if host is None:
        device.check_hostname = False
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = gateway.wrap_bio(up, down, server_side=True)
    here = device.wrap_bio(down, up, server_hostname=host)
    try:
        for _ in range(4):
            for side in (here, there):
                with suppress(ssl.SSLWantReadError):
                    side.do_handshake()
    except ssl.SSLError as error:
        raise ConfigError(f"a device would not trust this gateway: {explained(error, host or '')}") from None
    certificate: Mapping[str, Any] = here.getpeercert() or {}
    return Offered(tuple(str(entry[1]) for entry in certificate.get("subjectAltName", ())), ended(certificate))


def clock_is_behind(error: Exception) -> bool:
    """Say whether a certificate is not valid yet, which on a board without a clock means that its time is not set."""
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code == NOT_YET_VALID


def explained(error: ssl.SSLError, host: str) -> str:
    """Return what is wrong and what to do, for whoever looks after the device."""
    here = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    if not isinstance(error, ssl.SSLCertVerificationError):
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
            return "what answers does not speak TLS: is the gateway's address http:// and not https://?"
        return f"TLS failed: {_plain(error)}"
    if error.verify_code == NOT_YET_VALID:
        return f"it is {here} here, before the gateway's certificate was made: waiting for the right time"
    if error.verify_code == EXPIRED:
        return f"the gateway's certificate has expired (it is {here} here): 'edgemeta tls' on the gateway renews it"
    if error.verify_code in (WRONG_NAME, WRONG_ADDRESS):
        return f"the gateway's certificate is not for '{host}': 'edgemeta tls --host {host}' on the gateway makes one"
    return (
        f"the gateway's certificate is not one to trust ({error.verify_message}): another gateway answers, or its "
        "certificates were made anew; then this device needs a new join file"
    )


def _no_password() -> str:
    raise ValueError("the key has a password")


def _plain(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(getattr(error, "strerror", None) or error)
