"""Axial slices of images and volumes on one 2D grid, and per-slice results back on the user's own grid.

A method that works slice by slice takes 2D images and volumes alike: a 2D image is a stack of one slice. Volumes are
turned to run Right, Anterior, Superior and cut across their last axis; pixels are resampled and cropped within the
slices only, slices stay where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medray.data.cache import SampleCache
from medray.data.case import Case, Volume
from medray.data.fields import case_fingerprint
from medray.data.geometry import Grid, canonical, make_grid, resample
from medray.data.intensity import Mode, normalize_intensity


@dataclass(frozen=True)
class SliceGrid:
    """How slices are cut; part of what a trained model remembers.

    Attributes:
        spacing_mm: pixel size along the two axes of a slice; the image's own where None.
        shape: pixels along both, cropped or padded around the middle of the image; its own extent where None.
        normalize: intensities, by volume and channel.
        occupied: share of pixels above the volume's minimum that a slice must have to be listed; 0 lists all.
        every: lists each n-th slice.
    """

    spacing_mm: tuple[float, float] | None = None
    shape: tuple[int, int] | None = None
    normalize: Mode = "unit"
    occupied: float = 0.0
    every: int = 1


@dataclass(frozen=True)
class SliceRef:
    """One slice of a case, by its number in the stack."""

    case: Case
    index: int

    @property
    def id(self) -> str:
        """The case and the slice, for tables and messages."""
        return f"{self.case.id}/z={self.index}"


@dataclass(frozen=True)
class SliceStack:
    """All slices of a case on the grid.

    Attributes:
        image: (Z, C, H, W) float32, normalized.
        labels: label maps by field name, (Z, H, W) int64, only of fields the case has.
        grid: of (H, W, Z) voxels, or of (H, W) for a 2D image.
    """

    image: NDArray[np.float32]
    labels: Mapping[str, NDArray[np.int64]]
    grid: Grid

    def __len__(self) -> int:
        return len(self.image)

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """Pixel size along H and W."""
        return self.grid.spacing[0], self.grid.spacing[1]


class SliceReader:
    """Reads cases as stacks of slices.

    A file is decoded and resampled as a whole and kept in the cache as a whole, so each is decoded once as long as the
    cache holds them all.

    Args:
        grid: how slices are cut.
        images: fields that become channels, in order; the first one sets the grid, the others are laid over it in
            scanner coordinates. A field may have several channels itself.
        labels: fields that are label maps, where a case has them.
        cache: keeps what was decoded.
    """

    def __init__(
        self,
        grid: SliceGrid,
        *,
        images: Sequence[str] = ("image",),
        labels: Sequence[str] = ("label",),
        cache: SampleCache | None = None,
    ) -> None:
        self.grid = grid
        self.images = tuple(images)
        self.labels = tuple(labels)
        self.cache = cache or SampleCache(memory_gb=1.0)

    def stack(self, case: Case) -> SliceStack:
        """All slices of a case.

        Raises:
            UserError: a field cannot be read.
        """
        labels = [name for name in self.labels if name in case.fields]
        fields = [*self.images, *labels]
        key = ("slices", self.images, tuple(labels), self.grid.spacing_mm, self.grid.shape, self.grid.normalize)
        kept = self.cache.get((*key, case_fingerprint(case, fields)), lambda: self._decode(case, labels))
        image = kept["image"]
        shape = (*image.shape[2:], len(image)) if kept["dims"] == 3 else image.shape[2:]
        return SliceStack(image, {name: kept[f"label {name}"] for name in labels}, Grid(shape, kept["affine"]))

    def refs(self, case: Case) -> list[SliceRef]:
        """The slices of a case that are worth reading, in order."""
        image = self.stack(case).image
        lowest = image.min(axis=(0, 2, 3), keepdims=True)
        share = (image > lowest).any(axis=1).mean(axis=(1, 2))
        listed = [index for index in range(len(image)) if share[index] >= self.grid.occupied]
        return [SliceRef(case, index) for index in listed[:: self.grid.every]]

    def _decode(self, case: Case, labels: Sequence[str]) -> dict[str, NDArray[Any]]:
        volumes = [canonical(case.volume(name)) for name in self.images]
        work = self._work_grid(volumes[0])
        channels = [on_grid(self._normalized(volume), work, 1).array for volume in volumes]
        kept: dict[str, NDArray[Any]] = {
            "image": _as_stack(np.concatenate(channels), work.dims),
            "affine": np.asarray(work.affine),
            "dims": np.array(work.dims),
        }
        for name in labels:
            label = on_grid(canonical(case.volume(name)), work, 0).array.astype(np.int64)
            kept[f"label {name}"] = _as_stack(label, work.dims)[:, 0]
        return kept

    def _normalized(self, volume: Volume) -> Volume:
        """Before anything is cropped, so that a scan's intensities do not depend on the grid."""
        return replace(volume, array=normalize_intensity(volume.array, self.grid.normalize))

    def _work_grid(self, volume: Volume) -> Grid:
        spacing, shape = self.grid.spacing_mm, self.grid.shape
        if spacing is None and shape is None:
            return Grid.of(volume)
        through = volume.spatial_dims == 3
        return make_grid(
            [volume],
            spacing_mm=(*(spacing or volume.spacing[:2]), *((volume.spacing[2],) if through else ())),
            shape=None if shape is None else (*shape, *((volume.shape[2],) if through else ())),
        )


def on_grid(volume: Volume, grid: Grid, order: Literal[0, 1]) -> Volume:
    """`resample`, spared where the image lies on the grid; beyond the image is its minimum, or 0 for order 0."""
    if Grid.of(volume) == grid:
        return volume
    return resample(volume, grid, order=order, fill=0.0 if order == 0 else None)


def _as_stack(array: NDArray[Any], dims: int) -> NDArray[Any]:
    """(C, H, W, Z) or (C, H, W) as (Z, C, H, W)."""
    return np.ascontiguousarray(np.moveaxis(array, -1, 0)) if dims == 3 else array[None]


def put_back(
    slices: NDArray[Any], grid: Grid, original: Volume, order: Literal[0, 1] = 1, fill: float | None = 0.0
) -> Volume:
    """Per-slice results on the user's own grid.

    Args:
        slices: (Z, C, H, W) or (Z, H, W), on ``grid``.
        grid: `SliceStack.grid`.
        original: the image as it was read; its grid, orientation and header are taken over.
        order: 1 linear, 0 nearest for labels.
        fill: value beyond the grid, None for the minimum of ``slices``.

    Returns:
        (C, *original.shape).

    Raises:
        ValueError: the slices do not lie on ``grid``.
    """
    channels = slices[:, None] if slices.ndim == 3 else slices
    array = np.moveaxis(channels, 0, -1) if grid.dims == 3 else channels[0]
    if array.shape[1:] != grid.shape:
        raise ValueError(f"slices on this grid are (Z, H, W) of {grid.shape} voxels, got {slices.shape}")
    result = resample(Volume(array, grid.affine), Grid.of(original), order=order, fill=fill, antialias=False)
    return Volume(result.array, original.affine, original.source, original.header)
