"""ToFi-ML: classify images by how many pieces and holes they have at every gray value; boosted trees, no GPU.

    python jobs/tofi_ml.py                                  phantom on a local Ray, half a minute
    ray job submit -- python jobs/tofi_ml.py                the same on a running cluster
    python jobs/tofi_ml.py train --data /photos --config.resize 512        one folder per class
    python jobs/tofi_ml.py train --data /photos/index.csv --config.label grade --variant smote
    python jobs/tofi_ml.py predict --checkpoint runs/tofi_ml/... --input eye.png --out eye.json
    python jobs/tofi_ml.py claim                            counts beat histograms where colors do not tell

Results to expect are in docs/systems/tofi_ml.md, measured, beside the paper's table.
"""

import _path  # noqa: F401  finds the library where it is not installed
from medray import cli

if __name__ == "__main__":
    raise SystemExit(cli.run("tofi_ml"))
