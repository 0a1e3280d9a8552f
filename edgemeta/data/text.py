"""Text files that say what the classes are called."""

import codecs
from pathlib import Path

from edgemeta.data.dataset import reading
from edgemeta.errors import DataError

WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # UTF-32's little-endian mark begins with the first of them


def lines_of(path: Path) -> list[str]:
    """Return the lines that are not empty, of a file in UTF-8 with any line ends; raises DataError that names it."""
    with reading(path):
        data = path.read_bytes()
    try:
        if data.startswith(WIDE):
            raise ValueError("it is UTF-16")
        text = data.decode("utf-8-sig")
    except ValueError as error:
        raise DataError(f"{path} is not UTF-8 ({error}): save it as UTF-8") from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [line for line in lines if line.strip()]
