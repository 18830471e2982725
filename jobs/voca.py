"""VOCA: find cell nuclei as points; every pixel votes for the center of its nucleus.

    python jobs/voca.py                                     phantom on a local Ray, about a minute
    ray job submit -- python jobs/voca.py                   the same on a running cluster
    python jobs/voca.py train --preset nuclei --data /tiles     images/ with points/ or instances/
    python jobs/voca.py train --preset paper --data /CRCHistoPhenotypes/Detection --config.fold 1
    python jobs/voca.py predict --checkpoint runs/voca/... --input slide.tif --out nuclei.csv
    python jobs/voca.py claim                               votes beat peak regression in placing nuclei; exits 1 if not

Results to expect are in docs/systems/voca.md, measured, beside the paper's table.
"""

import _path  # noqa: F401  finds the library where it is not installed
from medray import cli

if __name__ == "__main__":
    raise SystemExit(cli.run("voca"))
