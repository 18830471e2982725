"""Images and volumes enlarged slice by slice, in tiles where they are large, on a finer grid over the same place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medray.data.affines import Affine
from medray.data.case import Volume
from medray.data.geometry import Grid, canonical_view, orientation
from medray.systems.super_resolution.blimsr_config import MIN_CROP_PX
from medray.systems.super_resolution.degradation import SCALE
from medray.systems.super_resolution.high_res import IntensityRange

Upsample = Callable[[Tensor], Tensor]
"""(1, 1, h, w) in [0, 1] to (1, 1, 4h, 4w) in [0, 1]."""


def upsampler(generator: nn.Module) -> Upsample:
    """A network as a function of one image, with its result clamped to [0, 1]."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator.to(device).eval()

    @torch.no_grad()
    def upsample(low: Tensor) -> Tensor:
        found: Tensor = generator(low.to(device))
        return found.clamp(0, 1).cpu()

    return upsample


_MIN_TILE = 2 * MIN_CROP_PX // SCALE
"""So that each half of a slice one pixel longer is still as long as the networks take."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """How a large slice is cut; in pixels of low resolution.

    Attributes:
        tile: side of what is kept of a tile's result.
        overlap: what the network sees beyond that on each side, as far as the image goes. From the reach of its
            convolutions on, the result is that of the whole slice.
    """

    tile: int = 256
    overlap: int = 32

    def __post_init__(self) -> None:
        if self.tile < _MIN_TILE or self.overlap < 0:
            raise ValueError(
                f"tile must be at least {_MIN_TILE} px and overlap not negative, got {self.tile} and {self.overlap}"
            )


@dataclass(frozen=True)
class _Part:
    """A tile along one axis: what is read (with the overlap) and what is kept of it, both as [start, end)."""

    read: tuple[int, int]
    kept: tuple[int, int]


def enlarge(
    volume: Volume,
    upsample: Upsample,
    scale: IntensityRange,
    *,
    through: int | None,
    tiles: Tiles,
    out: NDArray[Any] | None = None,
) -> Volume:
    """Every slice of an image four times as large along both of its axes.

    Args:
        volume: (1, *spatial).
        upsample: the network.
        scale: values that are 0 and 1 to it.
        through: the array axis across the slices of a volume, see `axial_axis`; None for a 2D image.
        tiles: how a slice is cut.
        out: where the result goes, (1, *finer shape) of any type of number; an array of the volume's type if None.

    Returns:
        The result on `finer_grid`, whole numbers rounded where its type is whole.
    """
    grid = finer_grid(volume, through)
    result = np.zeros((1, *grid.shape), dtype=volume.array.dtype) if out is None else out
    given, made = planes(volume.array, volume.affine, through), planes(result, volume.affine, through)
    for low, high in zip(given, made, strict=True):
        for rows, columns in _cut(low.shape, tiles):
            seen = torch.from_numpy(scale.to_unit(low[slice(*rows.read), slice(*columns.read)])[None, None])
            values = scale.from_unit(_kept(upsample(seen)[0, 0], rows, columns).numpy())
            high[_fine(rows.kept), _fine(columns.kept)] = as_type(values, result.dtype)
    return Volume(result, grid.affine, volume.source, volume.header)


def as_type(values: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Rounded and clipped where the type holds whole numbers."""
    if dtype.kind not in "iu":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(dtype)


def axial_axis(volume: Volume) -> int | None:
    """The array axis that runs along the patient, which slices are cut across; None for a 2D image."""
    return orientation(volume.affine, 3)[0][2] if volume.spatial_dims == 3 else None


def finer_grid(volume: Volume, through: int | None) -> Grid:
    """The grid with `SCALE` pixels for one along the axes within a slice, over the same field of view."""
    within = [axis for axis in range(volume.spatial_dims) if axis != through]
    affine = volume.affine.copy()
    affine[:3, within] /= SCALE
    # The outer corner stays: pixel 0 was centered half a coarse pixel from it and now is half a fine one.
    affine[:3, 3] += volume.affine[:3, within].sum(axis=1) * (1 / SCALE - 1) / 2
    return Grid(tuple(n * SCALE if axis in within else n for axis, n in enumerate(volume.shape)), affine)


def planes(array: NDArray[Any], affine: Affine, through: int | None) -> Iterator[NDArray[Any]]:
    """The slices as views (H, W) that run to the patient's right and front, as in training.

    Args:
        array: (1, *spatial).
        affine: of its grid or of any with axes in the same directions.
        through: the axis across the slices; None for a 2D image.
    """
    if through is None:
        yield canonical_view(array, affine)[0]
        return
    within = [axis for axis in range(3) if axis != through]
    for plane in np.moveaxis(array, 1 + through, 0):
        yield canonical_view(plane, affine[:, [*within, through, 3]])[0]


def _cut(shape: tuple[int, ...], tiles: Tiles) -> Iterator[tuple[_Part, _Part]]:
    rows, columns = (_parts(length, tiles) for length in shape)
    return ((row, column) for row in rows for column in columns)


def _parts(length: int, tiles: Tiles) -> list[_Part]:
    """Tiles of equal length, so that none is a narrow rest that a network could not take."""
    count = -(-length // tiles.tile)
    ends = [round(index * length / count) for index in range(count + 1)]
    return [
        _Part((max(0, start - tiles.overlap), min(length, end + tiles.overlap)), (start, end))
        for start, end in pairwise(ends)
    ]


def _kept(high: Tensor, rows: _Part, columns: _Part) -> Tensor:
    first, left = (SCALE * (part.kept[0] - part.read[0]) for part in (rows, columns))
    tall, wide = (SCALE * (part.kept[1] - part.kept[0]) for part in (rows, columns))
    return high[first : first + tall, left : left + wide]


def _fine(kept: tuple[int, int]) -> slice:
    return slice(SCALE * kept[0], SCALE * kept[1])
