"""HMLC: probabilities of a whole taxonomy of chest findings, trained on conditions first and on products then.

    python jobs/hmlc_cxr.py                                 phantom on a local Ray, half a minute
    ray job submit -- python jobs/hmlc_cxr.py               the same on a running cluster
    python jobs/hmlc_cxr.py train --preset paper --data /cxr/index.csv --config.taxonomy tree.yaml --use-gpu
    python jobs/hmlc_cxr.py train --preset paper --data /cxr/index.csv --config.weights densenet121.pth --use-gpu
    python jobs/hmlc_cxr.py train --preset chest --variant br_all --data /cxr/classes      one folder per class
    python jobs/hmlc_cxr.py predict --checkpoint runs/hmlc_cxr/... --input cxr.png --out cxr.json
    python jobs/hmlc_cxr.py claim                           two stages beat one, trees beat independent labels

Results to expect are in docs/systems/hmlc_cxr.md, measured, beside the paper's tables.
"""

import _path  # noqa: F401  finds the library where it is not installed
from medray import cli

if __name__ == "__main__":
    raise SystemExit(cli.run("hmlc_cxr"))
