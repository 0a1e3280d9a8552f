"""What a class may be called, and when two names are one: the same for every reader, configuration and model file.

And how anything that somebody else wrote is shown: a name, a path, a peer's words.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

from edgemeta.errors import DataError

# Around a name and no part of it: what line ends, fixed widths and byte order marks leave there.
AROUND = " \t\r\n\u00a0\u3000\ufeff"
# What cannot be shown, or changes how the rest of a line is shown: control characters, halves of surrogate pairs, line
# and paragraph ends, and marks that turn the direction of all text behind them. Joiners and emoji tags are none of
# these: Persian, the languages of India and many emoji are not written without them.
REFUSED_KINDS = ("Cc", "Cs", "Zl", "Zp")
REFUSED = "\ufeff\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
LISTED = 8  # names in a message; the others are counted

MOST_SAID = 400  # characters of a line for people that quotes what a peer sent


def canonical(name: str) -> str:
    """Return a name as it is compared and written: in Unicode's form NFC, with no space or byte order mark around."""
    return unicodedata.normalize("NFC", name.strip(AROUND))


def class_name(value: Any) -> str:
    """Return one class's name from text, a number, or bytes in UTF-8, in canonical form; raises DataError."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise DataError(f"the class name {bytes(value)!r} is not UTF-8: write it in UTF-8, or as text") from None
    if not isinstance(value, str | Real) or value != value:
        raise DataError(f"the class name {value!r} is {type(value).__name__}: expected text")
    name = canonical(str(value))
    if odd := [letter for letter in name if _is_refused(letter)]:
        raise DataError(
            f"the class name {name!a} has a character that cannot be shown (U+{ord(odd[0]):04X}): rename it, in UTF-8"
        )
    if all(unicodedata.category(letter) in ("Cf", "Zs") for letter in name):
        raise DataError(f"the class name {name!a} is empty, or looks so: give every class a name")
    return name


def class_names_of(values: Iterable[Any]) -> tuple[str, ...]:
    """Return the names of several classes; raises DataError where two are one, or one is none (see `class_name`)."""
    names = tuple(class_name(value) for value in values)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"class names must differ, and '{twice[0]}' is there twice (as Unicode's NFC writes it)")
    return names


def shown(text: str, most: int | None = None) -> str:
    """Return text of others, say a file's name, in which what cannot be shown is written as an escape.

    most: characters; what is longer is cut, and ends in "...".
    """
    escaped = "".join(ascii(letter)[1:-1] if _is_refused(letter) else letter for letter in text[:most])
    if most is None or max(len(text), len(escaped)) <= most:
        return escaped
    return escaped[: most - 3] + "..."


def listed(names: Sequence[Any]) -> str:
    """Return names, or labels, for a message: the first few of many."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(str, names[:LISTED])) + more


def _is_refused(letter: str) -> bool:
    return letter in REFUSED or unicodedata.category(letter) in REFUSED_KINDS
