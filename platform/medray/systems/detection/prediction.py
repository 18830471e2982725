"""Detected points on disk, as detection systems write them for a user."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medray.data.writers import write_bytes
from medray.errors import UserError
from medray.system import Prediction
from medray.systems.detection.pictures import overlay_png


def write_points(
    points: NDArray[np.float64], scores: NDArray[np.float64], pixels: NDArray[np.uint8], out: Path, seconds: float
) -> Prediction:
    """Write the points as CSV or JSON, the counts as JSON and the image with a ring around each point as PNG.

    Args:
        points: (N, 2), rows and columns, px.
        scores: one per point; the best first in the file.
        pixels: (H, W, 3), the image they are on.
        out: .csv with the columns x_px, y_px and score, or .json with the same names.
        seconds: what finding them took.

    Raises:
        UserError: another suffix, or the folder cannot be written.
    """
    if out.suffix.lower() not in (".csv", ".json"):
        raise UserError(f"--out {out}: points are written as .csv or .json")
    order = np.argsort(-scores, kind="stable")
    listed = [
        {"x_px": round(float(column), 2), "y_px": round(float(row), 2), "score": round(float(score), 5)}
        for (row, column), score in zip(points[order], scores[order], strict=True)
    ]
    metrics = {
        "num_points": float(len(listed)),
        "points_per_megapixel": 1e6 * len(listed) / (pixels.shape[0] * pixels.shape[1]),
    }
    data = json.dumps(listed, indent=1) if out.suffix.lower() == ".json" else _csv(listed)
    files = {
        "points": write_bytes(out, data.encode()),
        "measurements": write_bytes(out.with_name(f"{out.stem}_counts.json"), json.dumps(metrics, indent=1).encode()),
        "picture": write_bytes(out.with_name(f"{out.stem}_overlay.png"), overlay_png(pixels, points)),
    }
    return Prediction(files=files, metrics=metrics, seconds=seconds)


def _csv(rows: list[dict[str, float]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ("x_px", "y_px", "score"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
