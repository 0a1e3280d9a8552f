"""What holds for all tests and for the processes that they start."""

import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported, or bits would depend on the cores
os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)  # processes run this checkout, and
os.environ["PYTHONWARNINGS"] = "error"  # a warning in one of them shows
