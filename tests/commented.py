"""The configuration that `edgemeta init` writes, from the page of settings: so that they cannot differ.

PYTHONPATH=tests .venv/bin/python tests/commented.py       # after a change of the page
"""

import json
import re
import textwrap
from pathlib import Path

from edgemeta.cli.init import FILES, HERE

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "configuration.md").read_text()
HEAD = """\
# A run of edgemeta: every device has its own classes, and takes part in learning one embedding for all of them.
#
#     edgemeta simulate --config run.toml --out run        # all of it in one process
#     edgemeta server --config run.toml                    # a gateway, which waits for as many devices as participants
#
# Each setting says what it is, and in parentheses its type, range and default. A line that begins with # and its
# name, without a space, is a default that may be changed: take the # away. There is more in docs/configuration.md.

"""
GIVEN = {  # what the file sets; everything else is as it is by default
    "At the top": {"seed": 0},
    "`[model]`": {"name": "conv4", "input_shape": [32, 32, 3], "classes": "own"},
    "`[data]`": {"source": "synthetic:samples=2000", "participants": 10, "held_out": 2, "partition": "shards:5"},
    "`[[phases]]`": {"algorithm": "protonet", "rounds": 5, "batch_size": 64, "lr": 0.1},
    "`[server]`": {},
    "`[evaluation]`": {"every": 5},
}


def cells(section: str, page: str = PAGE) -> list[list[str]]:
    """Return the rows of a section's tables that begin with a name."""
    body = re.split(r"^#+ ", page.partition(f"# {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in body.splitlines() if line.startswith("|")]
    return [row for row in rows if row[0].startswith("`")]


def commented() -> str:
    """Return the file: each setting under what the page says of it."""
    return HEAD + "\n".join(map(_section, GIVEN))


def _section(title: str) -> str:
    header = "" if title == "At the top" else title.strip("`") + "\n"
    given, rows = GIVEN[title], [row for row in cells(title) if len(row) == 5]
    return header + "\n".join(_setting(*row, given) for row in rows)


def _setting(name: str, kind: str, limits: str, default: str, why: str, given: dict) -> str:
    key, said = name.strip("`"), ", ".join(filter(None, [kind, _names(limits)]))
    why = re.sub(r", see \[there\]\([^)]*\)", "", why)
    comment = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", f"{why} ({said}; by default {default})").replace("`", "")
    lines = textwrap.wrap(
        f"{key}: {comment}", 110, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False
    )
    if key in given:
        lines.append(f"{key} = {json.dumps(given[key])}")
    elif default.startswith("`"):
        lines.append(f"#{key} = {default.strip('`')}")
    return "\n".join(lines) + "\n"


def _names(limits: str) -> str:
    """Return a range with the names themselves, where the page has a link to their table."""
    if not limits.startswith("one of [these]"):
        return limits
    anchor = limits.rpartition("#")[2].rstrip(")")
    titles = re.findall(r"^### (.*)$", PAGE, re.MULTILINE)
    (title,) = (title for title in titles if title.lower().replace(" ", "-") == anchor)
    return "one of " + ", ".join(row[0] for row in cells(title))


if __name__ == "__main__":
    (HERE / FILES["run.toml"]).write_text(commented())
