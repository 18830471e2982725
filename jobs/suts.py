"""SUTS: learn features from organ labels, then align new CT/MR pairs by iterative B-spline descent.

    python jobs/suts.py                                     phantom on a local Ray, about a minute
    ray job submit -- python jobs/suts.py                   the same on a running cluster
    python jobs/suts.py train --data /scans/abdomen --num-workers 8 --use-gpu
    python jobs/suts.py train --resume runs/suts/...        go on after a crash or Ctrl-C
    python jobs/suts.py predict --checkpoint runs/suts/... --input ct.nii.gz mr.nii.gz --out warped.nii.gz
    python jobs/suts.py claim                               learned features beat MIND by 0.03 Dice; exits 1 if not

Results to expect are in docs/systems/suts.md, measured, beside the paper's table.
"""

import _path  # noqa: F401  finds the library where it is not installed
from medray import cli

if __name__ == "__main__":
    raise SystemExit(cli.run("suts"))
