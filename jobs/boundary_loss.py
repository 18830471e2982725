"""Boundary loss: small lesions in brain slices, by a U-Net whose loss also measures how far off its mistakes are.

    python jobs/boundary_loss.py                            phantom of lesions on a local Ray, half a minute
    ray job submit -- python jobs/boundary_loss.py          the same on a running cluster
    python jobs/boundary_loss.py train --preset brain --data /scans/ms     a folder per patient with flair, t1, lesion
    python jobs/boundary_loss.py train --resume runs/boundary_loss/...     go on after a crash or Ctrl-C
    python jobs/boundary_loss.py predict --checkpoint runs/boundary_loss/... --input flair.nii.gz t1.nii.gz \
--out lesions.nii.gz
    python jobs/boundary_loss.py claim                      better than generalized Dice alone; exits 1 if not

Results to expect are in docs/systems/boundary_loss.md, measured, beside the paper's table.
"""

import _path  # noqa: F401  finds the library where it is not installed
from medray import cli

if __name__ == "__main__":
    raise SystemExit(cli.run("boundary_loss"))
