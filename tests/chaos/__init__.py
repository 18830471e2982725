"""Training runs killed at seeded random times, which must end as if nothing had happened. Run by `make chaos`.

    python -m tests.chaos --seed 0                                    everything; results to expect are in __main__
    python -m tests.chaos --scenario process loader --kills 3         a part of it

Importing this makes tests/support importable, here and in every process that Ray starts.
"""

import os
import secrets
import sys
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
for _path in (str(_TESTS / "support"), str(_TESTS.parent), str(_TESTS.parent / "platform")):
    if _path not in sys.path:
        sys.path.insert(0, _path)
    if _path not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_path, os.environ.get("PYTHONPATH"))))
os.environ.setdefault("OMP_NUM_THREADS", "1")
if "RAY_AUTH_MODE" not in os.environ:  # as in tests/conftest.py
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
