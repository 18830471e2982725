"""M-VAAL: active learning that picks the cases to label next with the help of a second modality.

    python jobs/mvaal.py                                        a campaign on a phantom on a local Ray, about a minute
    ray job submit -- python jobs/mvaal.py                      the same on a running cluster
    python jobs/mvaal.py train --data /scans/brats --preset paper --use-gpu
    python jobs/mvaal.py train --task multi_class --sampler entropy --initial 50 --budget 25 --rounds 4 --data /films
    python jobs/mvaal.py train --data /films --config.oracle human     worklists for people; waits for their labels
    python jobs/mvaal.py train --resume runs/mvaal/...                 go on, days later too
    python jobs/mvaal.py claim                                  M-VAAL >= VAAL >= random; exits 1 if not

How people label is in docs/annotation.md; results to expect, measured, in docs/systems/mvaal.md.
"""

import _path  # noqa: F401  finds the library where it is not installed
from medray import cli

if __name__ == "__main__":
    raise SystemExit(cli.run("mvaal"))
