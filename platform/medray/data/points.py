"""Annotated points of an image, whatever they were saved as.

| saved as | what counts |
|---|---|
| CSV | the columns x and y, or row and col, with or without ``_px`` |
| JSON | a list of ``{"x": , "y": }`` or of ``[x, y]``, also under ``"points"``; or lists under ``"x"`` and ``"y"`` |
| .mat | the matrix ``detection`` (CRCHistoPhenotypes), or the only one with two columns: x and y, counted from 1 |
| .npy, .npz, .h5 | (N, 2): x and y |
| label map | the centroid of every instance |

x runs along a row and y down a column, in pixels; 0 is the middle of the first pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medray.data.case import Case, Volume
from medray.errors import UserError

_COLUMNS = (("y", "x"), ("y_px", "x_px"), ("row", "col"), ("row", "column"), ("row_px", "col_px"))
POINT_FIELDS = ("points", "instances", "label")
"""Fields that points are taken from, the first that a case has."""


def points_of(case: Case) -> NDArray[np.float64]:
    """The points of a case as (N, 2): row and column, in pixels.

    Raises:
        UserError: the case has no points, or they are saved as none of the above.
    """
    name = next((name for name in POINT_FIELDS if name in case.fields), None)
    if name is None:
        raise UserError(f"case {case.id} has no points; give a field points (CSV, JSON, .mat) or a label map instances")
    value = case.load(name)
    if isinstance(value, Volume):
        return centroids(value.array[0])
    try:
        return as_points(value)
    except UserError as error:
        raise UserError(f"{_path(case, name)}: {error}") from None


def centroids(instances: NDArray[Any]) -> NDArray[np.float64]:
    """Rows and columns (N, 2) of the centers of mass of the values above 0 in an instance map (H, W)."""
    from scipy import ndimage

    values = np.unique(instances[instances > 0])
    found = ndimage.center_of_mass(np.ones(instances.shape), instances, values)
    return np.asarray(found, dtype=np.float64).reshape(-1, 2)


def as_points(value: Any) -> NDArray[np.float64]:
    """Rows and columns (N, 2) from a parsed table, list or array.

    Raises:
        UserError: none of the forms in the module's text, or a coordinate that is not a finite number.
    """
    points = _columns(value) if isinstance(value, Mapping) else _pairs(value)
    if not np.isfinite(points).all():
        raise UserError(f"point {int(np.argwhere(~np.isfinite(points))[0, 0]) + 1} has a coordinate that is not finite")
    return points


def point_outside(points: NDArray[np.float64], shape: Sequence[int]) -> str:
    """A sentence naming the first point that is not in an image of ``shape`` (H, W), or nothing."""
    outside = ((points < -0.5) | (points > np.asarray(shape[:2]) - 0.5)).any(axis=1)
    if not outside.any():
        return ""
    number = int(outside.argmax())
    row, column = points[number]
    more = f" ({int(outside.sum())} such points)" if outside.sum() > 1 else ""
    return (
        f"point {number + 1} at x={column:g}, y={row:g} px is outside its image of {shape[1]} x {shape[0]} px "
        f"(width x height){more}; x runs along a row, and 0 is the first pixel"
    )


def _columns(table: Mapping[str, Any]) -> NDArray[np.float64]:
    named = {str(name).strip().lower(): value for name, value in table.items()}
    if not named:  # a CSV with a header and no rows
        return np.zeros((0, 2))
    if "points" in named:
        return _pairs(named["points"])
    for row, column in _COLUMNS:
        if row in named and column in named:
            return np.stack([_numbers(named[row], row), _numbers(named[column], column)], axis=1)
    matrices = {name: value for name, value in named.items() if np.ndim(value) == 2 and np.shape(value)[1] == 2}
    matrix = matrices.get("detection", next(iter(matrices.values())) if len(matrices) == 1 else None)
    if matrix is not None:
        return np.asarray(matrix, dtype=np.float64)[:, ::-1] - 1  # MATLAB counts from 1
    if any(np.size(value) == 0 for value in named.values()):  # a .mat whose list is empty
        return np.zeros((0, 2))
    raise UserError(f"points are in the columns x and y, or row and col, found {', '.join(map(str, table))}")


def _pairs(value: Any) -> NDArray[np.float64]:
    if isinstance(value, Sequence) and value and all(isinstance(item, Mapping) for item in value):
        keys = {str(name).lower() for name in value[0]}
        if any(set(pair) <= keys for pair in _COLUMNS):
            return _columns({name: [item.get(name) for item in value] for name in value[0]})
    if np.size(value) == 0:
        return np.zeros((0, 2))
    try:
        points = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2:
        raise UserError("points are a list of x and y, one pair for each")
    return points[:, ::-1]


def _numbers(values: Any, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise UserError(f"the column {name} holds something that is not a number") from None


def _path(case: Case, name: str) -> str:
    return str(getattr(case.fields[name], "path", f"{name} of case {case.id}"))
