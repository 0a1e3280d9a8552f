"""What holds for all tests: BLAS has one thread, as under the commands, or bits would depend on the number of cores."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before anything imports NumPy
