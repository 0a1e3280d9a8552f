"""What holds for all tests: BLAS with one thread, as on the command line, or bits would depend on the machine's cores."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before anything imports NumPy
