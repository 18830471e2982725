"""What a tracker moves in: an image, and where there is ground truth, the centreline it should follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from envs.axon.polyline import resample

FAR_PX = 12.0
"""Distances are known up to here: more than the 11 px beyond which the paper calls a tracker lost."""


@dataclass(frozen=True)
class Scene:
    """One image with one structure to follow.

    Points are (x, y) = (column, row) in pixels, pixel centres at integers.

    Attributes:
        image: (H, W) float32, 0 to 1, structures brighter than their surroundings.
        centreline: (n, 2) from one end to the other, at most about 1 px apart; None on images without ground truth.
        name: for messages.
    """

    image: NDArray[np.float32]
    centreline: NDArray[np.float64] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.image.ndim != 2 or min(self.image.shape) < 1:
            raise ValueError(f"the image of {self.name or 'a scene'} must be (H, W), got shape {self.image.shape}")
        if self.centreline is None:
            return
        if self.centreline.ndim != 2 or self.centreline.shape[1] != 2 or len(self.centreline) < 2:
            shape = self.centreline.shape
            raise ValueError(f"the centreline of {self.name or 'a scene'} must be (n, 2) with n >= 2, got {shape}")
        size = np.array(self.image.shape[::-1])
        outside = ((self.centreline < -0.5) | (self.centreline > size - 0.5)).any(axis=1)
        if outside.any():
            x, y = self.centreline[int(outside.argmax())]
            raise ValueError(
                f"the centreline of {self.name or 'a scene'} leaves its {size[0]} x {size[1]} px image at "
                f"x={x:g}, y={y:g}"
            )

    @cached_property
    def distance(self) -> NDArray[np.float32]:
        """(H, W) distance of every pixel to the centreline, px, up to `FAR_PX`; that everywhere without one."""
        if self.centreline is None:
            return np.full(self.image.shape, FAR_PX, np.float32)
        return line_map(self.centreline, self.image.shape).distance

    def blurred(self, sigma_px: float) -> NDArray[np.float32]:
        """The image under a Gaussian; remembered."""
        kept: dict[float, NDArray[np.float32]] = self.__dict__.setdefault("_blurred", {})
        if sigma_px not in kept:
            kept[sigma_px] = ndimage.gaussian_filter(self.image, sigma_px) if sigma_px else self.image
        return kept[sigma_px]


class Scenes(Protocol):
    """A set of scenes to draw episodes from: a list, or one that makes or reads them when asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Scene: ...


@dataclass(frozen=True)
class LineMap:
    """Where every pixel lies relative to a polyline.

    Attributes:
        distance: (H, W) float32, px; `FAR_PX` where it is further.
        nearest: (H, W) index into ``points`` of about the nearest one.
        points: the polyline, resampled to at most a quarter of a pixel.
    """

    distance: NDArray[np.float32]
    nearest: NDArray[np.intp]
    points: NDArray[np.float64]


def line_map(line: NDArray[np.float64], shape: Sequence[int]) -> LineMap:
    """Distance of every pixel to a polyline, and the point it is closest to; right to about 0.1 px within 3 px.

    The distance transform of the rasterised line names a nearby point; the distance is then taken to the line's tangent
    there. That is some 20 times faster than asking a k-d tree for every pixel.

    Args:
        line: (n, 2) as (x, y), px, inside the image.
        shape: (H, W).
    """
    points = resample(line, 0.25)
    columns, rows = np.rint(points).astype(np.intp).T
    columns, rows = columns.clip(0, shape[1] - 1), rows.clip(0, shape[0] - 1)
    empty = np.ones(tuple(shape), bool)
    empty[rows, columns] = False
    owner = np.zeros(tuple(shape), np.intp)
    owner[rows, columns] = np.arange(len(points))
    at = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    nearest = owner[at[0], at[1]]
    tangent = np.gradient(points, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True).clip(1e-9)
    y, x = np.indices(tuple(shape), dtype=np.float64)
    off_x, off_y = x - points[nearest, 0], y - points[nearest, 1]
    along = off_x * tangent[nearest, 0] + off_y * tangent[nearest, 1]
    # The tangent serves where the raster missed the nearest point by a pixel or so; it ends with the line.
    step = float(np.linalg.norm(points[1] - points[0]))
    reach = np.minimum(1.5, np.stack([nearest, len(points) - 1 - nearest]) * step)
    along = along.clip(-reach[0], reach[1])
    distance = np.sqrt((off_x - along * tangent[nearest, 0]) ** 2 + (off_y - along * tangent[nearest, 1]) ** 2)
    return LineMap(np.minimum(distance, FAR_PX).astype(np.float32), nearest, points)
