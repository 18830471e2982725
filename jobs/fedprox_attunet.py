"""FedProx attention U-Net: breast tumors in ultrasound, segmented by hospitals that do not pool their images.

    python jobs/fedprox_attunet.py                          three hospitals of the phantom on a local Ray, half a minute
    ray job submit -- python jobs/fedprox_attunet.py        the same on a running cluster, a site per actor
    python jobs/fedprox_attunet.py train --data sites.csv --use-gpu     a manifest with the columns case, patient, site
    python jobs/fedprox_attunet.py train --resume runs/fedprox_attunet/...      go on with the next round
    python jobs/fedprox_attunet.py predict --checkpoint runs/fedprox_attunet/... --input scan.png --out lesion.png
    python jobs/fedprox_attunet.py claim                    federated beats the best site alone; exits 1 if not

Results to expect are in docs/systems/fedprox_attunet.md, measured, beside the paper's table.
"""

import _path  # noqa: F401  finds the library where it is not installed
from medray import cli

if __name__ == "__main__":
    raise SystemExit(cli.run("fedprox_attunet"))
