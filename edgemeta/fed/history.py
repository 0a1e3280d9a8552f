"""The history of a run, history.jsonl: a record a line, of which those count that lie before a number of bytes.

People look at it, move it away and cut it while the run goes on, so it is looked at before each record.
"""

import json
import logging
from pathlib import Path

from edgemeta.fed.scores import Record
from edgemeta.reading import Missing, Reader, exists, file_size, lines
from edgemeta.storage import append, write_atomic

log = logging.getLogger("edgemeta")


class History:
    """The file at `path`; there need not be one yet. Methods raise StorageError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self, after: int = 0) -> list[Record]:
        """Return the records that come after so many bytes.

        All of them where no record ends there, as somebody has changed the file; what is no record is left out.
        """
        start = after if self._ends_at(after) else 0
        return [json.loads(line) for line in lines(self.path, start) if _record_size(line)]

    def append(self, record: Record, after: int) -> int:
        """Write a record after so many bytes, and return how many there are then.

        Where somebody has moved, cut or changed the file meanwhile, it comes after what is left of it.
        """
        after = after if self._ends_at(after) else self.mend(after)
        return append(self.path, json.dumps(record, allow_nan=False).encode() + b"\n", after)

    def whole(self, counted: int) -> int:
        """Return how many bytes of what counts are whole records."""
        return sum(map(_record_size, lines(self.path, 0, counted)))

    def mend(self, counted: int) -> int:
        """Cut off what does not count yet, and return how many bytes do: fewer when some are gone, which is said."""
        path, found = self.path, [*map(_record_size, lines(self.path, 0, counted))]
        good, aside = sum(found), path.with_name(path.name + ".damaged")
        if good < counted:
            kept = f"; what there is of it is kept in {aside}" if 0 in found else ""
            log.error("%s lacks records of finished rounds, and the run goes on without them%s", path, kept)
        if 0 in found:
            with Reader(path) as file:
                write_atomic(aside, iter(file.read, b""))
            write_atomic(path, (line for line in lines(path, 0, counted) if _record_size(line)))
        elif exists(path):
            append(path, b"", good)
        return good

    def cut(self, size: int) -> None:
        """Drop what is longer than so many bytes: it does not count."""
        if exists(self.path) and file_size(self.path) > size:
            append(self.path, b"", size)

    def _ends_at(self, size: int) -> bool:
        """Say whether a record ends after so many bytes, or none is to be there."""
        if not size:
            return True
        try:
            with Reader(self.path) as file:
                return file.read_at(1, size - 1) == b"\n"
        except Missing:
            return False


def _record_size(line: bytes) -> int:
    """Return how many bytes a line has, 0 when it is no whole record."""
    try:
        return len(line) if line.endswith(b"\n") and isinstance(json.loads(line), dict) else 0
    except (ValueError, RecursionError):
        return 0
