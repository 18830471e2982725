"""BliMSR: slices with four times the pixels along both axes, learnt from images degraded at random.

    python jobs/blimsr.py                                   phantom on a local Ray, half a minute
    ray job submit -- python jobs/blimsr.py                 the same on a running cluster
    python jobs/blimsr.py train --preset paper --data /scans/ct --config.vgg19-weights vgg19.pth --use-gpu
    python jobs/blimsr.py predict --checkpoint runs/blimsr/... --input slice.png --out fine.png
    python jobs/blimsr.py predict --checkpoint runs/blimsr/... --input series/ --out fine/ --option tile=128
    python jobs/blimsr.py claim                             blind training beats bicubic training; exits 1 if not

Results to expect are in docs/systems/blimsr.md, measured, beside the paper's table.
"""

import _path  # noqa: F401  finds the library where it is not installed
from medray import cli

if __name__ == "__main__":
    raise SystemExit(cli.run("blimsr"))
