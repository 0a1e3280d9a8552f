"""Which BLAS NumPy multiplies matrices with, as far as the loaded library tells."""

import ctypes
import logging
from functools import cache
from pathlib import Path
from typing import Any

log = logging.getLogger("edgemeta")

# What OpenBLAS calls its functions, as NumPy's own packages build it and as distributions do.
NAMES = ("scipy_openblas_{}64_", "scipy_openblas_{}", "openblas_{}64_", "openblas_{}")

# The processors, all with AVX-512, that OpenBLAS has code for small products for (its SMALL_MATRIX_OPT).
SMALL_PRODUCTS = {"SkylakeX", "Cooperlake", "SapphireRapids"}


def note_threads() -> None:
    """Say once, at info level, when BLAS has more than one thread, and what that costs."""
    if log.isEnabledFor(logging.INFO):
        _note_threads()


def threads() -> int | None:
    """Return how many threads NumPy's BLAS uses, or None where it is not OpenBLAS or does not tell."""
    function = _function("get_num_threads")
    return int(function()) if function else None


def core() -> str:
    """Return for which processor OpenBLAS has chosen its code, such as "SkylakeX", or "unknown"."""
    function = _function("get_corename")
    if not function:
        return "unknown"
    function.restype = ctypes.c_char_p
    return bytes(function()).decode()


@cache
def small_product() -> int:
    """Return how many multiplications a matrix product may have for OpenBLAS to do it without packing the operands.

    That takes half as long; 0 where there is no such thing.
    """
    return 10**6 if core() in SMALL_PRODUCTS else 0


@cache
def _note_threads() -> None:
    count = threads()
    if count and count > 1:
        log.info(
            "NumPy's BLAS uses %d threads: for matrices as small as these they take more time than they save (on a "
            "busy machine of two cores, a step of cnn took four times as long), and the last bits of results depend on "
            "their number. Set OPENBLAS_NUM_THREADS=1 before NumPy is imported, and give the model threads=N instead",
            count,
        )


@cache
def _function(name: str) -> Any:
    """Return a function of the OpenBLAS that this process has loaded already, or None."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
        paths = sorted({line.split(maxsplit=5)[5] for line in lines if "openblas" in line})
        libraries = [ctypes.CDLL(path) for path in paths]
    except OSError:  # no Linux, or a library that has been replaced since
        return None
    for library in libraries:
        for form in NAMES:
            if hasattr(library, form.format(name)):
                return library[form.format(name)]  # one of our own, so that its result type is too
    return None
