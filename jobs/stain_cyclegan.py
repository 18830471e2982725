"""Stain CycleGAN: show one lab's slides in another lab's stain, so that its segmentation works on them.

    python jobs/stain_cyclegan.py                           phantom on a local Ray, about a minute
    ray job submit -- python jobs/stain_cyclegan.py         the same on a running cluster
    python jobs/stain_cyclegan.py train --data /slides --num-workers 8 --use-gpu    a folder per lab: A/, B/
    python jobs/stain_cyclegan.py predict --checkpoint runs/stain_cyclegan/... --input b.tif --out as_a.tif
    python jobs/stain_cyclegan.py claim                     60 % of the lost Dice comes back, no seams; exits 1 if not

Results to expect are in docs/systems/stain_cyclegan.md, measured, beside the paper's tables.
"""

import _path  # noqa: F401  finds the library where it is not installed
from medray import cli

if __name__ == "__main__":
    raise SystemExit(cli.run("stain_cyclegan"))
