"""How a plane of an image array is laid out on the page.

With an ``affine`` (index to mm, RAS+) images are turned to how clinicians read them, whatever the order of the array:
superior or anterior up, the patient's right on the left of axial and coronal views, anterior on the left of sagittal
ones; letters for the border say so. Without one, a 2D array is shown as a picture (axis 0 down, axis 1 to the right)
and a 3D array by the same rule for every pair of axes. Pixels get their true aspect either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_WORLD_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))  # at the low and at the high end of each world axis
_VIEW_NAMES = {(0, 1): "axial", (0, 2): "coronal", (1, 2): "sagittal"}


@dataclass(frozen=True)
class View:
    """How one plane of an array is laid out on the page.

    Attributes:
        across: array axis that runs horizontally.
        down: array axis that runs vertically.
        mirror: array axes whose index grows to the left or upward.
        index: position of the plane along the remaining array axis; None in 2D.
        spacing: pixel size along ``across`` and ``down``, mm.
        ratio: height of the plane over its width, in mm.
        letters: left, right, top and bottom of the page in the patient; empty where unknown.
        name: axial, coronal, sagittal, or the array axes shown.
    """

    across: int
    down: int
    mirror: frozenset[int]
    index: int | None
    spacing: tuple[float, float]
    ratio: float
    letters: tuple[str, ...]
    name: str

    def plane(self, array: Array) -> Array:
        """The plane as (rows, columns) of the page, from an array (*shape)."""
        if self.index is not None:
            array = np.take(array, self.index, axis=self._through(array.ndim))
        page = array if self.down < self.across else array.T
        rows, columns = (slice(None, None, -1 if axis in self.mirror else 1) for axis in (self.down, self.across))
        return page[rows, columns]

    def page_field(self, displacement: Array) -> tuple[Array, Array]:
        """Components (right, down) on the page, each (rows, columns), of a displacement (D, *shape) in pixels."""
        right, down = (
            self.plane(displacement[axis]) * (-1 if axis in self.mirror else 1) for axis in (self.across, self.down)
        )
        return right, down

    def _through(self, dims: int) -> int:
        return next(axis for axis in range(dims) if axis not in (self.across, self.down))


def views(
    shape: Sequence[int],
    *,
    affine: Array | None = None,
    spacing: Sequence[float] | None = None,
    middle: Sequence[int] | None = None,
) -> list[View]:
    """One view of a 2D image, three of a volume, laid out as the module's text says.

    Args:
        shape: spatial shape, two or three axes.
        affine: (4, 4), index to mm, RAS+.
        spacing: pixel size in mm per array axis, for images without affine; 1 by default.
        middle: where the planes of a volume meet; its middle by default.

    Raises:
        ValueError: shape or spacing has the wrong length.
    """
    dims = len(shape)
    if dims not in (2, 3):
        raise ValueError(f"figures show 2D and 3D arrays without a channel axis, got shape {tuple(shape)}")
    if affine is not None:
        sizes = np.linalg.norm(np.asarray(affine)[:3, :dims], axis=0)
        worlds, signs = _world_axes(np.asarray(affine)[:3, :dims] / sizes)
    else:
        sizes = np.ones(dims) if spacing is None else np.asarray(spacing, dtype=float)
        worlds, signs = None, None
    if len(sizes) != dims or not (sizes > 0).all():
        raise ValueError(f"spacing needs {dims} positive numbers in mm, got {tuple(sizes)}")
    center = [(n - 1) // 2 for n in shape] if middle is None else [int(m) for m in middle]
    pairs = [(0, 1)] if dims == 2 else [(0, 1), (0, 2), (1, 2)]
    found = []
    letters: tuple[str, ...]
    for pair in pairs:
        if worlds is None or signs is None:
            down, across = pair
            mirror, letters = frozenset[int](), ()
            name = "" if dims == 2 else f"axes {down} and {across}"
        else:
            # the pair names world axes in 3D, array axes in 2D
            axes = [worlds.index(world) for world in pair] if dims == 3 else list(pair)
            across, down = sorted(axes, key=lambda axis: worlds[axis])
            mirror = frozenset(axis for axis in (across, down) if signs[axis] > 0)
            left, right = reversed(_WORLD_LETTERS[worlds[across]])
            bottom, top = _WORLD_LETTERS[worlds[down]]
            letters, name = (left, right, top, bottom), _VIEW_NAMES[worlds[across], worlds[down]]
        through = next((axis for axis in range(dims) if axis not in (across, down)), None)
        found.append(
            View(
                across=across,
                down=down,
                mirror=mirror,
                index=None if through is None else center[through],
                spacing=(float(sizes[across]), float(sizes[down])),
                ratio=float(sizes[down] * shape[down] / (sizes[across] * shape[across])),
                letters=letters,
                name=name,
            )
        )
    return found


def _world_axes(directions: Array) -> tuple[list[int], list[int]]:
    """For each array axis the world axis it follows most, no world axis twice, and the sign."""
    worlds: list[int] = [-1] * directions.shape[1]
    strength = np.abs(directions)
    for _ in worlds:
        world, axis = np.unravel_index(np.argmax(strength), strength.shape)
        worlds[int(axis)] = int(world)
        strength[world], strength[:, axis] = -1.0, -1.0
    return worlds, [1 if directions[world, axis] >= 0 else -1 for axis, world in enumerate(worlds)]
