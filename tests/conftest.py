"""What holds for all tests; set before torch and ray are imported."""

import os
import secrets

# One thread per process: the tests run on few cores, and tiny networks gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A token of their own for the clusters that tests start; without it Ray would leave one in the home directory.
if "RAY_AUTH_MODE" not in os.environ:
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
