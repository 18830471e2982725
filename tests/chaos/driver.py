"""A driver to be killed: starts a Ray of its own and trains on two workers of it, from wherever the folder's run is.

python -m tests.chaos.driver FOLDER LEARNER NOTES PACE_S
"""

from __future__ import annotations

import sys
from pathlib import Path

from medray.engine.ray_train import RayWorkbench, ray_session
from tests.chaos.learners import Subject
from tests.chaos.on_ray import OPTIONS

if __name__ == "__main__":
    folder, kind, notes, pace_s = sys.argv[1:]
    with ray_session(OPTIONS.num_workers):
        RayWorkbench(Path(folder), OPTIONS).fit(Subject(kind, Path(notes), float(pace_s)))
