"""Lets the jobs of a checkout find the library where medray is not installed, as in a bare cluster image.

Ray puts the folder of a submitted script on its path, not `platform/` nor the one with `envs/`. The engine tells the
workers.
"""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("medray") is None:
    root = Path(__file__).resolve().parent.parent
    sys.path[:0] = [str(root / "platform"), str(root)]
