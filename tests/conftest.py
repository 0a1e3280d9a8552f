"""What holds for all tests and for the processes that they start."""

import os
import signal
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported, or bits would depend on the cores
os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)  # processes run this checkout, and
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it, and so would they,
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup this
os.environ["PYTHONWARNINGS"] = "error"  # a warning in one of them shows
