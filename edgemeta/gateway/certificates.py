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
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgemeta.errors import ConfigError
from edgemeta.storage import storing, write_atomic

DAYS = 3650  # a certificate that ends unnoticed stops a field of boards; one that leaks is replaced with its authority
EARLIEST_S = 1_767_225_600  # 2026-01-01: no clock that is right says less
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
    names = ",".join(dict.fromkeys(_subject(host) for host in (*hosts, "localhost", "127.0.0.1")))
    with storing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0:  # the gateway may run as its own user, to whom the state folder belongs
            owner = folder.parent.stat()
            os.chown(folder, owner.st_uid, owner.st_gid)
    new = not (folder / "ca.pem").exists()
    with storing(folder), tempfile.TemporaryDirectory(dir=folder) as made:
        room = Path(made)
        for kind in ("authority", "gateway"):
            (room / f"{kind}.cnf").write_text(_SETTINGS.format(kind=kind, names=names))
        if new:
            files = ("-keyout", "ca.key", "-out", "ca.pem")
            _openssl(
                *("req", "-x509", "-config", "authority.cnf", "-extensions", "authority", "-days", str(DAYS)),
                *(*_NEW_KEY, *files, "-set_serial", _serial()),
                cwd=room,
            )
            write_atomic(folder / "ca.key", [(room / "ca.key").read_bytes()], private=True)
            write_atomic(folder / "ca.pem", [(room / "ca.pem").read_bytes()], private=True)
        _openssl(
            *("req", "-new", "-config", "gateway.cnf", *_NEW_KEY, "-keyout", "gateway.key", "-out", "gateway.csr"),
            cwd=room,
        )
        _openssl(
            *("x509", "-req", "-in", "gateway.csr", "-out", "gateway.pem", "-days", str(DAYS), "-sha256"),
            *("-CA", "../ca.pem", "-CAkey", "../ca.key", "-set_serial", _serial()),
            *("-extfile", "gateway.cnf", "-extensions", "gateway"),
            cwd=room,
        )
        both = [(room / name).read_bytes() for name in ("gateway.key", "gateway.pem")]
        write_atomic(folder / "gateway.pem", both, private=True)
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


def _openssl(*arguments: str, cwd: Path) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=cwd, capture_output=True, text=True, umask=0o077)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ConfigError(f"openssl {arguments[0]} failed: {said}; expected OpenSSL 1.1.1 or newer")
