"""The file that an operator copies to a device: where the gateway is, who the device is there, and whom to trust."""

import json
import logging
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edgemeta.errors import ConfigError
from edgemeta.reading import Missing, Reader, followed
from edgemeta.storage import write_new

log = logging.getLogger("edgemeta")

FORMAT = "edgemeta-join/1"
NAME = re.compile(r"\w[\w.-]{0,63}")  # of a device, when it is to be the name of a file too
ANEW = "copy it again, or make it anew by 'edgemeta enroll' on the gateway"


@dataclass(frozen=True)
class JoinFile:
    """What a join file says. certificate: PEM, what the device trusts; "" for a gateway without TLS."""

    url: str
    name: str
    token: str = field(repr=False)
    certificate: str = ""


def write_join_file(path: Path, join: JoinFile, before: Callable[[], None] = lambda: None) -> None:
    """Write a join file that only its owner may read, and flush it. Raises ConfigError when there is one, StorageError.

    before: what is done when all of it is on the disk under another name, so that a kill leaves no half of anything.
    """
    lines = [
        "# A device takes part with this file, as 'edgemeta client --join FILE'. Whoever has it is that device.",
        f"format = {_quoted(FORMAT)}",
        *(
            f"{key} = {_quoted(value)}"
            for key, value in (("url", join.url), ("name", join.name), ("token", join.token))
        ),
        *([f'certificate = """\n{join.certificate.strip()}\n"""'] if join.certificate else []),
    ]
    if not write_new(path, ["\n".join([*lines, ""]).encode()], before):
        raise ConfigError(f"{path} exists: move it away first, a join file is not overwritten")


def read_join_file(path: str | Path) -> JoinFile:
    """Read a join file, and warn when others can read it. Raises ConfigError when it is no whole one."""
    try:
        with Reader(followed(path)) as file:
            mode = file.status().st_mode
            said = tomllib.loads(file.read_at(1 << 16, 0).decode())
    except Missing as error:
        raise ConfigError(f"the join file: {error}; copy it from the gateway") from None
    except ValueError:  # what the parser says of it may quote the token
        raise ConfigError(f"the join file {path} is cut or damaged: {ANEW}") from None
    if said.get("format", FORMAT) != FORMAT:
        raise ConfigError(
            f"the join file {path} is of format {str(said['format'])[:40]!r}, and this edgemeta knows {FORMAT!r}: "
            "install the same version as on the gateway, or make the file anew there"
        )
    fields = ("format", "url", "name", "token")
    missing = [key for key in fields if not isinstance(said.get(key), str) or not said[key]]
    certificate = said.get("certificate", "")
    if str(said.get("url")).startswith("https:") and not (isinstance(certificate, str) and certificate):
        missing.append("certificate")
    if missing:
        raise ConfigError(f"the join file {path} has no {', '.join(missing)}: {ANEW}")
    if mode & 0o077:
        log.warning("others on this machine can read the join file %s: run 'chmod 600 %s'", path, path)
    return JoinFile(said["url"], said["name"], said["token"], str(certificate))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # what JSON escapes, TOML reads in the same way
