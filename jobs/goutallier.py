"""Goutallier grader: outlines the supraspinatus in a Y-view, crops to it, and says whether its fat makes surgery risky.

    python jobs/goutallier.py                               phantom on a local Ray, half a minute
    ray job submit -- python jobs/goutallier.py             the same on a running cluster
    python jobs/goutallier.py train --preset paper --data /scans/y_view --config.weights vgg19.pth --use-gpu
    python jobs/goutallier.py predict --checkpoint runs/goutallier/... --input slice.png --out muscle.png
    python jobs/goutallier.py predict --checkpoint runs/goutallier/... --input series/ --option slice=11 --out m.nii.gz
    python jobs/goutallier.py claim                         the automatic crop costs little; exits 1 if not

Results to expect are in docs/systems/goutallier.md, measured, beside the paper's table.
"""

import _path  # noqa: F401  finds the library where it is not installed
from medray import cli

if __name__ == "__main__":
    raise SystemExit(cli.run("goutallier"))
