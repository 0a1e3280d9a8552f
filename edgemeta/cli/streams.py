"""Standard output and error as commands use them: what is said stops no work, and lost results are an error."""

import codecs
import io
import json
import os
import sys
from typing import Any

from edgemeta.errors import EdgemetaError
from edgemeta.reading import said


class _Said(io.FileIO):
    """A descriptor on which what cannot be written is dropped: a log on a full disk, a terminal that has gone."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


class _Results(io.FileIO):
    """A descriptor on which what cannot be written is an EdgemetaError, and a BrokenPipeError where nobody reads it."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise EdgemetaError(f"cannot write the results: {said(error)}; have them go elsewhere") from error


def set_up() -> None:
    """Give this process its streams: standard error for what is said, standard output for results.

    What an output's encoding cannot show, a file's name say, is escaped as in JSON, so that what --json prints stays
    JSON.
    """

    def escaped(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        return json.dumps(error.object[error.start : error.end])[1:-1], error.end

    codecs.register_error("edgemeta", escaped)
    sys.stderr, sys.stdout = _made(sys.stderr, _Said), _made(sys.stdout, _Results)


def nothing_but_said() -> None:
    """Have standard output, too, be for what is said: of a command that has no results."""
    sys.stdout = _made(sys.stdout, _Said)


def flush() -> None:
    """Write what standard output still holds; raises EdgemetaError and BrokenPipeError."""
    if sys.stdout is not None:
        sys.stdout.flush()


def finish() -> None:
    """Write what can be written, and drop the rest: Python would write it again as it ends, and fail again."""
    try:
        flush()
    except (EdgemetaError, OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _made(stream: Any, kind: type[io.FileIO]) -> Any:
    """Return a stream of the same descriptor; what is none, and none at all, stays as it is."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = kind(stream.fileno(), "w", closefd=False)
    errors = "edgemeta" if stream.errors == "strict" else stream.errors
    lines = stream.line_buffering or kind is _Said
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, errors, line_buffering=lines)
