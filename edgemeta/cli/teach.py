"""`edgemeta teach`: a device's page, for who stands before the device; and how a page is opened."""

import signal
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgemeta.cli import options

if TYPE_CHECKING:
    from edgemeta.device.device import Device

PORT = 8743


@click.command()
@options.state("The device's state directory, which keeps what it is taught; a new one is made.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, metavar="P", help="0: any one.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="H", help="The address to listen on.")
def teach(state: Path, port: int, host: str) -> None:
    """Open the page of a device, without a gateway: teach it things by pictures, and see it tell them apart.

    Beyond this machine the page is encrypted, and opens to who knows the pairing code that is shown here.
    """
    from edgemeta.device.looking import device_of

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda *_: sys.exit(0))
    with device_of(state) as device, opened(device, state, host, port):
        threading.Event().wait()


@contextmanager
def opened(device: "Device", state: Path, host: str, port: int) -> Iterator[None]:
    """Serve a device's page while the context lasts, and say where it is; beyond this machine, also the code."""
    from edgemeta.cli.qr import show_qr
    from edgemeta.link.address import is_local
    from edgemeta.teach.routes import new_code
    from edgemeta.teach.server import page_of

    local = is_local(host)
    tls, code = (None, "") if local else (_encryption(state, host), new_code())
    with page_of(device, host, port, tls=tls, code=code) as got:
        for name in _names(host):
            click.echo(f"the page is {address(name, got, encrypted=not local)}")
        if code:
            click.echo(f"its pairing code is {code[:4]}-{code[4:]}")
            click.echo("the browser will say that it does not know the certificate, as this device made it", err=True)
            if sys.stdout.isatty():  # nobody scans the log of a service
                show_qr(f"{address(_names(host)[0], got, encrypted=True)}#{code}")
        yield


def address(name: str, port: int, *, encrypted: bool) -> str:
    """Return the address of a page, for a browser."""
    return f"http{'s' if encrypted else ''}://{f'[{name}]' if ':' in name else name}:{port}/"


def _names(host: str) -> list[str]:
    """Return the names by which a browser finds who listens on a host: of "all addresses", this machine's own."""
    from edgemeta.gateway.certificates import own_hosts

    return own_hosts()[:1] if host in ("0.0.0.0", "::", "") else [host]


def _encryption(state: Path, host: str) -> ssl.SSLContext:
    """Return what the page speaks TLS with: a certificate of the device's own, made at the first time."""
    from edgemeta.gateway.certificates import make_certificates, own_hosts
    from edgemeta.link.trust import gateway_context
    from edgemeta.reading import exists

    folder = state / "page"
    if not exists(folder / "gateway.pem"):
        make_certificates(
            folder, [*own_hosts(), *(name for name in _names(host) if name not in own_hosts())], time.time()
        )
    return gateway_context(folder / "gateway.pem")
