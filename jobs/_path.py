"""Lets the jobs of a checkout find the library where medray is not installed, as in a bare cluster image.

Ray puts the folder of a submitted script on its path, not `platform/`. The engine tells the workers.
"""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("medray") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "platform"))
