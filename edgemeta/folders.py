"""Whose folder a state directory is: a gateway's site, a run's, or a device's. One folder has one role."""

from pathlib import Path

from edgemeta.errors import ConfigError
from edgemeta.reading import exists, names

DEVICE = ("device.json",)
SITE = ("devices.json", "tls", "runs")
RUN = ("run.toml", "progress.json", "roster.json")  # a site's, before there were several in it
LOCKS = {"lock", "devices.lock", "runs.lock"}  # of a start that failed


def check_device(path: Path) -> None:
    """Raise ConfigError where a folder is a gateway's or a run's, and no device's."""
    if found := _found(path, (*SITE, *RUN)):
        raise ConfigError(
            f"{path} is the folder of a gateway or of a run (it has {found} in it): give this device one of its own, "
            "by --state DIR (state=)"
        )


def check_no_device(path: Path) -> None:
    """Raise ConfigError where a folder is a device's."""
    if found := _found(path, DEVICE):
        raise ConfigError(f"{path} is the folder of a device (it has {found} in it): give another one")


def is_new(path: Path) -> bool:
    """Say whether a gateway's site is still to be made of a folder: it is not there, or empty.

    Raises ConfigError for a folder of something else, which is left alone.
    """
    check_no_device(path)
    if not exists(path) or set(names(path)) <= LOCKS:
        return True
    if not _found(path, (*SITE, *RUN)):
        raise ConfigError(f"{path} is no site of a gateway, and not empty: give the gateway's folder by --state DIR")
    return False


def check_site(path: Path) -> None:
    """Raise ConfigError unless a folder is the site of a gateway."""
    if is_new(path):
        raise ConfigError(
            f"there is no site of a gateway in {path}: give the gateway's folder by --state DIR; 'edgemeta server', "
            "'tls', 'enroll' and 'operator-token' make one"
        )


def _found(path: Path, marks: tuple[str, ...]) -> str:
    """Return the first of these names that is in a folder, or ""."""
    return next((name for name in marks if exists(path / name)), "")
