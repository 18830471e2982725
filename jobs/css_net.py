"""CSS-Net: the supraspinatus tendon and its tear in coronal MR slices, helped by classification and substitution.

    python jobs/css_net.py                                  phantom on a local Ray, half a minute
    ray job submit -- python jobs/css_net.py                the same on a running cluster
    python jobs/css_net.py train --preset samples --data /data/shoulder    folders mri/, tear/ and tendon/
    python jobs/css_net.py train --preset paper --data slices.csv --config.num-folds 5 --config.fold 0 --use-gpu
    python jobs/css_net.py predict --checkpoint runs/css_net/... --input slice.png --out labels.png
    python jobs/css_net.py claim                            what the helpers are worth; exits 1 if it does not hold

Results to expect are in docs/systems/css_net.md, measured, beside the paper's table.
"""

import _path  # noqa: F401  finds the library where it is not installed
from medray import cli

if __name__ == "__main__":
    raise SystemExit(cli.run("css_net"))
