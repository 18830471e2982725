"""Polylines: (n, 2) arrays of points (x, y) in pixels, in order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

HEADING_PX = 5.0
"""Arc over which the direction of a polyline's beginning is taken."""


def arc_lengths(points: FloatArray) -> FloatArray:
    """Arc length (n,) from the first point of a polyline to each of its points."""
    steps = np.hypot(*np.diff(points, axis=0).T)
    return np.concatenate([[0.0], np.cumsum(steps)])


def length_of(points: FloatArray) -> float:
    """Arc length of a polyline; 0 for a single point."""
    return float(arc_lengths(points)[-1])


def resample(line: NDArray[Any], spacing: float) -> FloatArray:
    """A polyline with points at equal steps of at most ``spacing`` px along it; both ends stay."""
    line = np.asarray(line, np.float64)
    arc = arc_lengths(line)
    count = max(2, int(np.ceil(arc[-1] / spacing)) + 1)
    at = np.linspace(0.0, arc[-1], count)
    return np.stack([np.interp(at, arc, line[:, 0]), np.interp(at, arc, line[:, 1])], axis=1)


def heading_of(points: FloatArray, length_px: float = HEADING_PX) -> FloatArray:
    """Unit vector (2,) from the first point of a polyline to where it is ``length_px`` of arc further on, or ends.

    Of one that goes nowhere it is nan.
    """
    along = arc_lengths(points)
    reach = min(length_px, float(along[-1]))
    step = np.array([np.interp(reach, along, points[:, axis]) for axis in (0, 1)]) - points[0]
    if not step.any():  # a loop that is back after 5 px
        step = points[1] - points[0]
    size = float(np.hypot(*step))
    return np.asarray(step / size) if size else np.full(2, np.nan)
