"""GMVAE(TV): learn healthy brains, then find lesions in new scans by restoring them under that prior.

    python jobs/gmvae_tv.py                                 phantom on a local Ray, half a minute
    ray job submit -- python jobs/gmvae_tv.py               the same on a running cluster
    python jobs/gmvae_tv.py train --preset paper --data /scans/t2 --num-workers 8 --use-gpu
    python jobs/gmvae_tv.py train --variant vae_tv          a plain VAE as prior; aae_128, anogan and others likewise
    python jobs/gmvae_tv.py predict --checkpoint runs/gmvae_tv/... --input t2.nii.gz --out lesions.nii.gz --option fpr=5
    python jobs/gmvae_tv.py claim                           restoration beats reconstruction by 0.05 AUC; exits 1 if not

Healthy subjects are the cases without a label map; those with one are only ever tested on. Results to expect are in
docs/systems/gmvae_tv.md, measured, beside the paper's table.
"""

import _path  # noqa: F401  finds the library where it is not installed
from medray import cli

if __name__ == "__main__":
    raise SystemExit(cli.run("gmvae_tv"))
