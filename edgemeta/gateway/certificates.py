"""A gateway's own certificates, made by the `openssl` program.

    tls/ca.key        the key of the gateway's own authority
    tls/ca.pem        its certificate: what join files carry, and devices trust
    tls/gateway.pem   the gateway's key and certificate, signed by it

The authority is what makes a new certificate, for another address say, cost no device a new join file.
"""

import ipaddress
import os
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from edgemeta.disk import make_folder
from edgemeta.errors import ConfigError
from edgemeta.link.address import without_zone
from edgemeta.names import MOST_SAID, shown
from edgemeta.reading import read_file
from edgemeta.storage import storing, write_atomic

DAYS = 3650  # a certificate that ends unnoticed stops a field of boards; one that leaks is replaced with its authority
EARLIEST_S = 1_767_225_600  # 2026-01-01: no clock that is right says less
ALWAYS = ("localhost", "127.0.0.1")  # names of every gateway
_NAME = re.compile(r"[A-Za-z0-9*]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_SETTINGS = """
[req]
distinguished_name = name
prompt = no
[name]
CN = edgemeta {kind}
[authority]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[gateway]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha256")


def own_hosts() -> list[str]:
    """Return the names under which this machine is usually found on its network."""
    name = socket.gethostname()
    return [name] if "." in name else [f"{name}.local", name]


def hosts_of(before: Sequence[str], added: Sequence[str], removed: Sequence[str]) -> list[str]:
    """Return the names for a new certificate: those of the one before and those added, but for those removed.

    This machine's own, where that leaves none. Raises ConfigError for one to be removed that is not there.
    """
    for host in removed:
        if host not in before:
            raise ConfigError(f"the certificate is not for '{host}': expected one of {', '.join(before) or 'none'}")
    named = dict.fromkeys((*before, *map(without_zone, added)))
    return [host for host in named if host not in (*removed, *ALWAYS)] or own_hosts()


def make_certificates(folder: Path, hosts: Sequence[str], now: float) -> bool:
    """Make the gateway's certificate for these names and addresses, and for this machine's own two.

    The authority in the folder signs it; when there is none one is made. Return whether it was. now: seconds since
    1970. Raises ConfigError for a host that is none, without the openssl program, and for a clock that is not set.
    """
    if now < EARLIEST_S:
        raise ConfigError("this machine's clock is not set: set it first, as certificates say from when they are valid")
    if shutil.which("openssl") is None:
        raise ConfigError(
            "there is no openssl program here: install it (apt install openssl), or make a certificate elsewhere and "
            "give it by 'edgemeta server --cert FILE --key FILE' and 'edgemeta enroll --trust FILE'"
        )
    names = ",".join(dict.fromkeys(_subject(without_zone(host)) for host in (*hosts, *ALWAYS)))
    settings = {kind: _SETTINGS.format(kind=kind, names=names).encode() for kind in ("authority", "gateway")}
    with storing(folder):
        make_folder(folder.parent, named=True)
        make_folder(folder, 0o700)
    anchor, key = read_file(folder / "ca.pem"), read_file(folder / "ca.key")
    new = anchor is None
    if not new and key is None:
        raise ConfigError(
            f"{folder / 'ca.key'} is missing, which signs: put it back, or move {folder / 'ca.pem'} away and make "
            "every join file anew"
        )
    made = "a key: is it OpenSSL 1.1.1 or newer, and is no OPENSSL_CONF set?"
    if new:
        key, anchor = _openssl(
            made,
            *("req", "-x509", "-config", "<settings", "-extensions", "authority", "-days", str(DAYS)),
            *(*_NEW_KEY, "-keyout", ">key", "-out", ">certificate", "-set_serial", _serial()),
            settings=settings["authority"],
        )
        write_atomic(folder / "ca.key", [key], private=True)
        write_atomic(folder / "ca.pem", [anchor], private=True)
    own_key, request = _openssl(
        made,
        *("req", "-new", "-config", "<settings", *_NEW_KEY, "-keyout", ">key", "-out", ">request"),
        settings=settings["gateway"],
    )
    (certificate,) = _openssl(
        f"a certificate with {folder / 'ca.key'} and ca.pem: they are damaged, or do not belong together; "
        "put them back, or move both away and make every join file anew",
        *("x509", "-req", "-in", "<request", "-out", ">certificate", "-days", str(DAYS), "-sha256"),
        *("-CA", "<anchor", "-CAkey", "<key", "-set_serial", _serial()),
        *("-extfile", "<settings", "-extensions", "gateway"),
        **{"settings": settings["gateway"], "request": request, "anchor": anchor or b"", "key": key or b""},
    )
    write_atomic(folder / "gateway.pem", [own_key, certificate], private=True)
    return new


def _subject(host: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        pass
    if not _NAME.fullmatch(host):
        raise ConfigError(
            f"'{host}' is no name or address of a gateway: expected one such as gateway.local or 10.0.0.5"
        )
    return f"DNS:{host}"


def _serial() -> str:
    return f"0x{secrets.token_hex(16)}"


def _openssl(what: str, *arguments: str, **given: bytes) -> list[bytes]:
    """Run openssl on files that are in memory only: `<name` is one of those given, `>name` one that it makes.

    Return what it made, in order. So no key is left behind by a kill, and nobody can put a link in a file's place.
    what: for people, what it could not make where it fails, and what to do.
    """
    with ExitStack() as files:

        def file(name: str, content: bytes = b"") -> BinaryIO:
            opened = files.enter_context(os.fdopen(os.memfd_create(name), "w+b", buffering=0))
            opened.write(content)
            return opened

        used = {f"<{name}": file(name, content) for name, content in given.items()}
        used |= {word: file(word[1:]) for word in arguments if word.startswith(">")}
        words = [f"/proc/self/fd/{used[word].fileno()}" if word in used else word for word in arguments]
        descriptors = [opened.fileno() for opened in used.values()]
        done = subprocess.run(["openssl", *words], pass_fds=descriptors, capture_output=True, text=True, umask=0o077)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ConfigError(f"the openssl program could not make {what} (it said: {shown(said, MOST_SAID)})")
        made = [used[word] for word in arguments if word.startswith(">")]
        for opened in made:
            opened.seek(0)
        return [opened.read() for opened in made]
