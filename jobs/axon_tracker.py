"""Axon tracker: follow axons, vessels and other thin structures, step by step, with a policy learnt by PPO.

    python jobs/axon_tracker.py                                 synthetic images on a local Ray, about a minute
    ray job submit -- python jobs/axon_tracker.py               the same on a running cluster
    python jobs/axon_tracker.py train --preset demo             the paper's images and networks, about ten minutes
    python jobs/axon_tracker.py train --preset finetune --data /scans --config.start-from models/axon_tracker
    python jobs/axon_tracker.py predict --checkpoint models/axon_tracker --input cells.tif starts.csv --out traces.swc
    python jobs/axon_tracker.py claim                           synthetic images teach tracking; exits 1 if not

Results to expect are in docs/systems/axon_tracker.md, measured, beside the paper's tables.
"""

import _path  # noqa: F401  finds the library where it is not installed
from medray import cli

if __name__ == "__main__":
    raise SystemExit(cli.run("axon_tracker"))
