"""Where to start tracing: points with or without a heading, from CSV, JSON or SWC.

| file | what counts |
|---|---|
| .csv | the columns x and y, and dx and dy where the heading is known (empty cells: not known) |
| .json | a list of ``[x, y]``, ``[x, y, dx, dy]`` or ``{"x": , "y": , "dx": , "dy": }``, also under ``"starts"`` |
| .swc | the roots; where a root has a child, the heading is along its first branch |

x is the column and y the row, in pixels; 0 is the middle of the first pixel.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.axon.polyline import heading_of
from envs.axon.swc import Swc, read_swc

FloatArray = NDArray[np.float64]
SUFFIXES = (".csv", ".json", ".swc")


@dataclass(frozen=True)
class Starts:
    """Start points and headings.

    Attributes:
        points: (n, 2) x, y in pixels.
        headings: (n, 2) unit vectors; nan where the heading is not known.
    """

    points: FloatArray
    headings: FloatArray

    def __len__(self) -> int:
        return len(self.points)


def read_starts(path: str | Path) -> Starts:
    """Read start points; see the module's text.

    Raises:
        ValueError: another suffix, damaged, no start point at all, a coordinate that is not a finite number, or half a
            heading; the sentence names the file and the point.
        OSError: the file cannot be opened.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".swc":
        return _roots(read_swc(path))
    if suffix == ".csv":
        rows = _csv_rows(path)
    elif suffix == ".json":
        rows = _json_rows(path)
    else:
        raise ValueError(f"{path} is no file of start points; they are read from {' '.join(SUFFIXES)}")
    if not rows:
        raise ValueError(f"{path} holds no start points")
    return _starts(np.array([_numbers(row, f"{path}, start point {number}") for number, row in enumerate(rows, 1)]))


def start_outside(starts: Starts, shape: Sequence[int]) -> str:
    """A sentence naming the first start point that is not in an image of ``shape`` (H, W), or ""."""
    height, width = int(shape[0]), int(shape[1])
    outside = ((starts.points < -0.5) | (starts.points > np.array([width, height]) - 0.5)).any(axis=1)
    if not outside.any():
        return ""
    number = int(outside.argmax())
    x, y = starts.points[number]
    return (
        f"start point {number + 1} at x={x:g}, y={y:g} px is outside the image of {width} x {height} px "
        "(width x height); x is the column, and 0 the middle of the first pixel"
    )


def _starts(table: FloatArray) -> Starts:
    """From rows of x, y, dx, dy; a heading of length 0 is an unknown one."""
    sizes = np.hypot(table[:, 2], table[:, 3])[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        headings = np.where(sizes > 0, table[:, 2:] / sizes, np.nan)
    return Starts(np.ascontiguousarray(table[:, :2]), headings)


def _roots(swc: Swc) -> Starts:
    first: dict[int, FloatArray] = {}
    for path in swc.paths():
        first.setdefault(int(path[0]), swc.points[path, :2])
    headings = np.full((len(swc.roots), 2), np.nan)
    for number, root in enumerate(swc.roots.tolist()):
        if root in first and (first[root] != first[root][0]).any():
            headings[number] = heading_of(first[root])
    return Starts(swc.points[swc.roots, :2].copy(), headings)


def _csv_rows(path: str | Path) -> list[Any]:
    with Path(path).open(newline="", encoding="utf-8-sig") as lines:
        try:
            table = csv.DictReader(lines)
            rows = [{str(name).strip().lower(): cell for name, cell in row.items()} for row in table]
            names = [name.strip().lower() for name in table.fieldnames or ()]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a readable CSV table: {error}") from error
    if not {"x", "y"} <= set(names):
        raise ValueError(
            f"{path}: start points have the columns x and y (and dx, dy), found {', '.join(names) or 'none'}"
        )
    return rows


def _json_rows(path: str | Path) -> list[Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not readable JSON: {error}") from error
    rows = content.get("starts") if isinstance(content, Mapping) else content
    if not isinstance(rows, list):
        raise ValueError(f"{path}: start points are a list of [x, y], [x, y, dx, dy] or {{'x': , 'y': }}")
    return rows


def _numbers(row: Any, where: str) -> tuple[float, float, float, float]:
    """x, y, dx, dy of one entry, nan for a heading that is not given."""
    cells = [row.get(name) for name in ("x", "y", "dx", "dy")] if isinstance(row, Mapping) else row
    try:
        values = [math.nan if cell is None or cell == "" else float(cell) for cell in cells]
    except (TypeError, ValueError):
        values = []
    if len(values) == 2:
        values += [math.nan, math.nan]
    if len(values) != 4 or not all(map(math.isfinite, values[:2])) or any(map(math.isinf, values[2:])):
        raise ValueError(f"{where}: x and y are finite numbers, dx and dy too where they are given, got {row!r}")
    if math.isnan(values[2]) != math.isnan(values[3]):
        raise ValueError(f"{where} has one of dx and dy; give both or neither")
    return values[0], values[1], values[2], values[3]
