"""One thread per process: the tests run on few cores, and tiny networks gain nothing from more."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
