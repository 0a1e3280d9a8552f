"""When each device of a site was last heard, over restarts of the gateway and over runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgemeta.storage import read_kept, write_kept

SEEN_FILE = "seen.json"  # in a site
FORMAT = "edgemeta-seen/1"


@dataclass(frozen=True)
class Seen:
    """devices: name -> seconds since 1970."""

    devices: dict[str, float] = field(default_factory=dict)


def read_seen(site: Path) -> dict[str, float]:
    """Return name -> seconds since 1970. Raises ConfigError when the file is damaged, and StorageError."""
    kept = read_kept(site / SEEN_FILE, Seen, FORMAT, "remove it: all that it says is when devices were last heard")
    return dict(kept.devices) if kept else {}


def keep_seen(site: Path, heard: Mapping[str, float]) -> None:
    """Keep who was heard when, beside what is known of others. Raises as `read_seen` does."""
    before = read_seen(site)
    after = before | {name: round(when) for name, when in heard.items()}
    if after != before:
        write_kept(site / SEEN_FILE, Seen(after), FORMAT)
