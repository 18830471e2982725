"""Hybrid cascade: learn to reconstruct MR images from undersampled k-space, in both domains.

    python jobs/hybrid_cascade.py                           phantom on a local Ray, half a minute
    ray job submit -- python jobs/hybrid_cascade.py         the same on a running cluster
    python jobs/hybrid_cascade.py train --preset paper --data /scans/kspace --num-workers 8 --use-gpu
    python jobs/hybrid_cascade.py train --preset magnitude --data /scans/t1     k-space simulated from magnitude volumes
    python jobs/hybrid_cascade.py predict --checkpoint runs/hybrid_cascade/... --input scan.h5 --out image.nii.gz
    python jobs/hybrid_cascade.py claim                     images first, and data consistency; exits 1 if not

A scan is an HDF5 or NPZ file with the array kspace, (slices, rows, columns) complex, and for undersampled scans the
array mask. Results to expect are in docs/systems/hybrid_cascade.md, measured, beside the paper's table.
"""

import _path  # noqa: F401  finds the library where it is not installed
from medray import cli

if __name__ == "__main__":
    raise SystemExit(cli.run("hybrid_cascade"))
