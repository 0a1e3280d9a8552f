"""Disks for tests: one that fails at its N-th operation, and one that keeps a record from which power cuts are made.

Both stand in the place of `edgemeta.disk.system`, and hand everything on to `os`. `actor` says who is at work; a kill
kills it, and whatever it still tries has no effect.
"""

import errno
import gc
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemeta import disk

CHANGES = ("write", "fsync", "ftruncate", "replace", "unlink", "link", "mkdir", "rmdir", "fchmod", "fchown")
COUNTED = ("open", "read", "pread", "preadv", "stat", "listdir", *CHANGES)
FAULTS = {  # what may happen -> to which operations
    "kill": COUNTED,
    "half, then kill": ("write",),
    "EIO": COUNTED,
    "ENOSPC": ("open", "write", "fsync", "replace", "link", "mkdir"),
    "EMFILE": ("open",),
    "ENOMEM": ("open", "read", "pread", "preadv", "listdir"),
    "short": ("read", "preadv", "write"),
}


class Killed(BaseException):
    """What no `except Exception` may stop, as a kill."""


class Disk:
    """The operating system, but for the operation number `at`, counted from 1, at which `fault` happens.

    names: the counted operations so far, in order; lasting: for how many of them an error stays.
    """

    def __init__(self, at: int = 0, fault: str = "", lasting: int = 1) -> None:
        self.at, self.fault, self.lasting = at, fault, lasting
        self.names: list[str] = []
        self.happened: list[str] = []
        self.actor, self.dead = "", set[str]()
        self._open: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **how: self._do(name, args, how)

    def note(self, said: Any) -> None:
        """Take note of something that was said between two operations."""

    def bury(self) -> None:
        """Close what the killed actor has open, as the end of a process does, so that another one can start."""
        gc.collect()  # what it was doing is unwound now, and not among the files of the next one
        self._close(self.actor)
        self.dead.discard(self.actor)

    def _close(self, actor: str) -> None:
        for descriptor in [one for one, whose in self._open.items() if whose == actor]:
            os.close(descriptor)
            del self._open[descriptor]

    def _do(self, name: str, args: tuple[Any, ...], how: dict[str, Any]) -> Any:
        if self.actor in self.dead and name != "close":
            raise Killed
        if name in COUNTED and not (name == "open" and args[1] & os.O_PATH):
            self.names.append(name)
            if self.at <= len(self.names) < self.at + self.lasting and name in FAULTS[self.fault]:
                args = self._fail(name, args, how)
        if name == "close":
            self._open.pop(args[0], None)
        done = self.record(name, args, how)
        if name == "open":
            self._open[done] = self.actor
        return done

    def _fail(self, name: str, args: tuple[Any, ...], how: dict[str, Any]) -> tuple[Any, ...]:
        """Let the fault happen; return the arguments that the operation is left with."""
        self.happened.append(f"{self.fault} at {len(self.names)}, {name} of {self.actor}")
        if "kill" in self.fault:
            if name == "write" and "half" in self.fault:
                self.record(name, (args[0], args[1][: len(args[1]) // 2]), how)
            self.dead.add(self.actor)
            raise Killed
        if self.fault != "short":
            number = getattr(errno, self.fault)
            raise OSError(number, os.strerror(number))
        if name == "read":
            return args[0], max(args[1] // 2, 1)
        if name == "preadv":
            return args[0], [args[1][0][: max(len(args[1][0]) // 2, 1)]], *args[2:]
        return args[0], args[1][: max(len(args[1]) // 2, 1)]

    def record(self, name: str, args: tuple[Any, ...], how: dict[str, Any]) -> Any:
        """Do an operation, but for flushes: no power is cut here, and they take as long as all the rest."""
        return None if name == "fsync" else getattr(os, name)(*args, **how)


@contextmanager
def in_place_of_the_system(mine: Disk) -> Iterator[Disk]:
    """Have the package use a disk."""
    before, disk.system = disk.system, mine
    try:
        yield mine
    finally:
        disk.system = before
        for actor in set(mine._open.values()):
            mine._close(actor)


@dataclass(eq=False)
class Node:
    """A file or a folder. content, entries: what is on the disk for sure; now: a folder's entries as they are seen."""

    folder: bool = False
    content: bytes = b""
    entries: dict[str, "Node"] = field(default_factory=dict)
    now: dict[str, "Node"] = field(default_factory=dict)


class Journal(Disk):
    """A disk that keeps a record of all that changes below a folder; what is there at first is flushed.

    journal: (node, None) is a flush; (node, change) a change, of a folder {name: node or None}, of a file (offset,
    data) or a size; (None, said) something that was said meanwhile.
    """

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root, self.top, self.journal = root.resolve(), _found(root), list[tuple[Node | None, Any]]()
        self._machines: dict[Node, str] = {}

    def note(self, said: Any) -> None:
        self.journal.append((None, said))

    def record(self, name: str, args: tuple[Any, ...], how: dict[str, Any]) -> Any:
        known = how.get("dir_fd") is not None and name == "open" and args[0] in self._node(how["dir_fd"]).now
        done = super().record(name, args, how)
        if name == "open" and args[1] & os.O_CREAT and not known:
            self._enter(how["dir_fd"], {args[0]: Node()})
        elif name == "mkdir":
            self._enter(how["dir_fd"], {args[0]: Node(folder=True)})
        elif name in ("unlink", "rmdir"):
            self._enter(how["dir_fd"], {args[0]: None})
        elif name in ("replace", "link"):
            (old, new), there, here = args, how["src_dir_fd"], how["dst_dir_fd"]
            node, leaves = self._node(there).now[old], {old: None} if name == "replace" else {}
            if self._node(there) is self._node(here):
                self._enter(here, {**leaves, new: node})  # one change: no file system does half a rename
            else:
                self._enter(here, {new: node})
                self._enter(there, leaves)
        elif name == "write":
            end = os.lseek(args[0], 0, os.SEEK_CUR)
            self.journal.append((self._node(args[0]), (end - done, bytes(memoryview(args[1]).cast("B")[:done]))))
        elif name == "ftruncate":
            self.journal.append((self._node(args[0]), args[1]))
        elif name == "fsync":
            self.journal.append((self._node(args[0]), None))
        return done

    def _node(self, descriptor: int) -> Node:
        """Return what an open file or folder is; one outside the root is nothing that is kept."""
        path, node = Path(os.readlink(f"/proc/self/fd/{descriptor}")), self.top
        if not path.is_relative_to(self.root):
            return Node(folder=True)
        parts = path.relative_to(self.root).parts
        for part in parts:
            node = node.now[part]
        if parts:
            self._machines[node] = parts[0].removesuffix(".tmp")
        return node

    def machine(self, node: Node) -> str:
        """Return the name of the folder at the top in which a file or a folder is, or was; "" when that is none."""
        return self._machines.get(node, "")

    def _enter(self, folder: int, change: dict[str, Node | None]) -> None:
        node = self._node(folder)
        for name, entry in change.items():
            if entry is None:
                node.now.pop(name, None)
            else:
                node.now[name] = entry
        self.journal.append((node, change))


def _found(path: Path) -> Node:
    if not path.is_dir():
        return Node(content=path.read_bytes())
    entries = {inside.name: _found(inside) for inside in path.iterdir()}
    return Node(folder=True, entries=entries, now=dict(entries))


# What a cut leaves of what was not flushed: how likely a change of a folder is there, and what may be left of a file.
CUTS = {  # but for "last name": of a folder's changes, the last one alone
    "nothing": (0.0, ("nothing",)),
    "all": (1.0, ("all",)),
    "names without content": (1.0, ("nothing", "zeros")),
    "content without names": (0.0, ("all",)),
    "some": (0.5, ("nothing", "zeros", "some", "torn", "all")),
    "most": (0.9, ("torn", "all", "all", "all")),
    "last name": (0.0, ("all",)),
}


def cut(journal: Journal, end: int, kinds: dict[str, str], moments: random.Random, into: Path) -> list[Any]:
    """Write the disks that a power cut after `end` entries may leave, and return what had been said until then.

    kinds: folder at the top -> how it is struck, by the names of CUTS; each is the disk of a machine of its own. Legal
    is what a file system may do that keeps its promises and no more: fsync of a file keeps its content, and fsync of a
    folder its entries; of what was not flushed any part may be there, but no half of a rename.
    """
    pending: dict[Node, list[Any]] = {}
    content: dict[Node, bytes] = {}
    entries: dict[Node, dict[str, Node]] = {}
    said = []
    for node, change in journal.journal[:end]:
        if node is None:
            said.append(change)
        elif change is not None:
            pending.setdefault(node, []).append(change)
        elif node.folder:
            entries[node] = _entered(entries.get(node, node.entries), pending.pop(node, []))
        else:
            content[node] = _written(content.get(node, node.content), pending.pop(node, []))

    def write(node: Node, path: Path, kind: str) -> None:
        likely, left = CUTS[kind]
        changes = pending.get(node, [])
        if not node.folder:
            path.write_bytes(_left(content.get(node, node.content), changes, moments.choice(left), moments))
            return
        path.mkdir()
        there = [change for change in changes if moments.random() < likely]
        if kind == "last name":
            there = changes[-1:]
        for name, entry in _entered(entries.get(node, node.entries), there).items():
            write(entry, path / name, kind)

    into.mkdir()
    top, flushed = journal.top, entries.get(journal.top, journal.top.entries)
    for name, node in _entered(flushed, pending.get(top, [])).items():
        kind = kinds[name.removesuffix(".tmp")]
        if name in flushed or kind == "last name" or moments.random() < CUTS[kind][0]:
            write(node, into / name, kind)
    return said


def _entered(entries: dict[str, Node], changes: list[dict[str, Node | None]]) -> dict[str, Node]:
    entries = dict(entries)
    for change in changes:
        for name, entry in change.items():
            if entry is None:
                entries.pop(name, None)
            else:
                entries[name] = entry
    return entries


def _written(content: bytes, changes: list[Any]) -> bytes:
    data = bytearray(content)
    for change in changes:
        if isinstance(change, int):
            data[change:] = bytes(max(change - len(data), 0))
        else:
            offset, new = change
            data[len(data) :] = bytes(max(offset - len(data), 0))
            data[offset : offset + len(new)] = new
    return bytes(data)


def _left(content: bytes, changes: list[Any], what: str, moments: random.Random) -> bytes:
    """Return what a cut leaves of a file that has changes which were not flushed."""
    if what == "nothing":
        return content
    if what == "zeros":  # its size is there, and its blocks are not
        new = [change if isinstance(change, int) else (change[0], bytes(len(change[1]))) for change in changes]
    elif what == "some":
        new = [change for change in changes if moments.random() < 0.5]
    elif what == "torn":
        new = changes[: moments.randint(0, len(changes))]
        if new and not isinstance(new[-1], int):
            offset, data = new[-1]
            new = [*new[:-1], (offset, data[: moments.randint(0, len(data))])]
    else:
        new = changes
    return _written(content, new)
