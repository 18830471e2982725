"""Teeth in intra-oral scans: an FDI number for every point, by PointCNN on foveated samples with a layout loss.

    python jobs/teeth_pointcnn.py                           phantom on a local Ray, half a minute
    ray job submit -- python jobs/teeth_pointcnn.py         the same on a running cluster
    python jobs/teeth_pointcnn.py train --preset paper --data /scans/teeth --num-workers 4 --use-gpu
    python jobs/teeth_pointcnn.py predict --checkpoint runs/teeth_pointcnn/... --input p07_upper.stl --out p07.ply
    python jobs/teeth_pointcnn.py predict ... --option jaw=lower        where the file's name does not say it
    python jobs/teeth_pointcnn.py claim                     IoU, borders and order of the four arms; exits 1 if not held

Data: STL, PLY, OBJ or XYZ beside JSON, NPZ or text with an FDI number per vertex. Results to expect are in
docs/systems/teeth_pointcnn.md, measured, beside the paper's table.
"""

import _path  # noqa: F401  finds the library where it is not installed
from medray import cli

if __name__ == "__main__":
    raise SystemExit(cli.run("teeth_pointcnn"))
