"""VRN: how large a rotator cuff tear is, from one shoulder MRI, and where the network sees it.

    python jobs/vrn_rct.py                                  phantom on a local Ray, half a minute
    ray job submit -- python jobs/vrn_rct.py                the same on a running cluster
    python jobs/vrn_rct.py train --preset paper --data /scans/index.csv --use-gpu
    python jobs/vrn_rct.py predict --checkpoint runs/... --input series/ --out tear.json --option center=98,-21,12
    python jobs/vrn_rct.py claim                            sizes, slices and the heat map; exits 1 if a part fails

Results to expect are in docs/systems/vrn_rct.md, measured, beside the paper's table.
"""

import _path  # noqa: F401  finds the library where it is not installed
from medray import cli

if __name__ == "__main__":
    raise SystemExit(cli.run("vrn_rct"))
