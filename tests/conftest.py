"""What holds for all tests and for the processes that they start."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import PROGRAM, REASON, Page, browser

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported, or bits would depend on the cores
os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)  # processes run this checkout, and
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it, and so would they,
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup this
os.environ["PYTHONWARNINGS"] = "error"  # a warning in one of them shows


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """Log from the same level on in every test: a command that ran in this process has set another one."""
    log = logging.getLogger("edgemeta")
    before = log.level
    yield
    log.setLevel(before)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Run one browser for all tests, as its start takes longer than most of them."""
    if not PROGRAM:
        pytest.skip(REASON)
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def tab(chromium: Page) -> Page:
    """Give a tab of a browser that has seen nothing yet."""
    chromium.fresh()
    return chromium
