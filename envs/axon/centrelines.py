"""Ground-truth centrelines of an image: ordered polylines, from SWC or JSON.

The JSON is that of the DRIVE branches this project measures with: ``{"image": stem, "shape": [rows, columns],
"polarity": "dark", "branches": [{"type": "junction-endpoint", "points": [[x, y], ...]}, ...]}``; everything but the
points may be missing. Points are (x, y) = (column, row) in pixels, pixel centers at integers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from envs.axon.polyline import heading_of, length_of
from envs.axon.swc import read_swc, without_repeats

FloatArray = NDArray[np.float64]
SUFFIXES = (".swc", ".json")


@dataclass(frozen=True)
class Branch:
    """One structure to be traced, from its start to its end.

    Attributes:
        points: (n, 2) x, y in pixels, at least two, each different from the one before.
        kind: what lies at its two ends, ``junction-endpoint`` or similar; "" where the file does not say.
    """

    points: FloatArray
    kind: str = ""

    @property
    def start(self) -> FloatArray:
        """(2,), the first point."""
        return self.points[0]

    @property
    def end(self) -> FloatArray:
        """(2,), the last point."""
        return self.points[-1]

    @property
    def heading(self) -> FloatArray:
        """(2,) unit vector from the start to the place on the branch 5 px of arc further on."""
        return heading_of(self.points)

    @property
    def length_px(self) -> float:
        """Arc length."""
        return length_of(self.points)

    def reversed(self) -> Branch:
        """The same branch from its end to its start."""
        return Branch(self.points[::-1].copy(), "-".join(reversed(self.kind.split("-"))))


@dataclass(frozen=True)
class Centrelines:
    """The branches known of an image; rarely all there are.

    Attributes:
        branches: in the file's order.
        shape: rows and columns of the image, None where the file does not say.
        polarity: whether structures are brighter or darker than their surroundings, None where it does not say.
        source: the file, for messages.
    """

    branches: tuple[Branch, ...]
    shape: tuple[int, int] | None = None
    polarity: Literal["bright", "dark"] | None = None
    source: str = ""


def read_centrelines(path: str | Path) -> Centrelines:
    """Read the branches of an image from .swc or .json.

    Raises:
        ValueError: another suffix, damaged, or a branch that is not a list of at least two different points.
        OSError: the file cannot be opened.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".swc":
        return Centrelines(tuple(Branch(line) for line in read_swc(path).branches()), source=str(path))
    if suffix != ".json":
        raise ValueError(f"{path} is no file of centrelines; they are read from {' and '.join(SUFFIXES)}")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not readable JSON: {error}") from error
    return parse_centrelines(content, str(path))


def parse_centrelines(content: Any, source: str) -> Centrelines:
    """The branches in parsed JSON: an object with ``branches``, or a list of polylines.

    Args:
        content: as `json.load` gives it.
        source: named in messages.

    Raises:
        ValueError: it is neither, or a branch is not a list of at least two different points.
    """
    about = content if isinstance(content, Mapping) else {}
    branches = about.get("branches") if about else content
    if not isinstance(branches, Sequence) or isinstance(branches, str):
        raise ValueError(
            f"{source} has no list of branches; expected {{'branches': [{{'points': [[x, y], ...]}}, ...]}}"
        )
    return Centrelines(
        branches=tuple(_branch(one, f"{source}, branch {number}") for number, one in enumerate(branches)),
        shape=_shape(about.get("shape"), source),
        polarity=_polarity(about.get("polarity"), source),
        source=source,
    )


def point_outside(centrelines: Centrelines, shape: Sequence[int]) -> str:
    """A sentence naming the first point that is not in an image of ``shape`` (H, W), with its file and branch, or "".

    The outermost pixels reach half a pixel beyond their centers.
    """
    height, width = int(shape[0]), int(shape[1])
    where = centrelines.source or "the centrelines"
    if centrelines.shape is not None and centrelines.shape != (height, width):
        rows, columns = centrelines.shape
        return (
            f"{where} was made for an image of {columns} x {rows} px, this one has {width} x {height} (width x height)"
        )
    for number, branch in enumerate(centrelines.branches):
        outside = ((branch.points < -0.5) | (branch.points > np.array([width, height]) - 0.5)).any(axis=1)
        if outside.any():
            index = int(outside.argmax())
            x, y = branch.points[index]
            return (
                f"{where}, branch {number}, point {index} at x={x:g}, y={y:g} px is outside its image of "
                f"{width} x {height} px (width x height); x is the column, and 0 the middle of the first pixel"
            )
    return ""


def _branch(value: Any, where: str) -> Branch:
    about = value if isinstance(value, Mapping) else {"points": value}
    try:
        points = np.asarray(about.get("points"), dtype=np.float64)
    except (TypeError, ValueError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(f"{where}: points are a list of [x, y] with finite numbers")
    points = without_repeats(points)
    if len(points) < 2:
        raise ValueError(f"{where} has fewer than two different points")
    return Branch(points, str(about.get("type", "")))


def _shape(value: Any, source: str) -> tuple[int, int] | None:
    if value is None:
        return None
    try:
        rows, columns = (int(size) for size in value)
    except (TypeError, ValueError):
        raise ValueError(f"{source}: shape is [rows, columns], got {value!r}") from None
    return rows, columns


def _polarity(value: Any, source: str) -> Literal["bright", "dark"] | None:
    if value not in (None, "bright", "dark"):
        raise ValueError(f"{source}: polarity is 'bright' or 'dark', got {value!r}")
    return value
