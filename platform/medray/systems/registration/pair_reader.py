"""Image pairs on one grid, with their labels, landmarks and, where it is known, the true displacement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from medray.data.cache import SampleCache
from medray.data.case import Case, Volume
from medray.data.fields import case_fingerprint
from medray.data.geometry import Align, Grid, canonical, make_grid, placement, resample, to_original, world_positions
from medray.data.intensity import Mode, normalize_intensity
from medray.errors import UserError
from medray.nn.warp import compose, invert
from medray.systems.registration.pairs import PairRef, organs

MatchSlices = Literal["position", "organ"]
_SLICED_PART = 0.5
"""Middle share of an organ's extent that slices are taken from when a number of them is asked for."""


@dataclass(frozen=True)
class WorkGrid:
    """The grid pairs are brought to; part of what a trained model remembers.

    Attributes:
        spatial_dims: 2 or 3. With 2, volumes are cut into slices along their last axis.
        spacing_mm: pixel size along each of the spatial_dims axes; the fixed image's own where None.
        shape: pixels along each of these axes, centered on the fixed image; its own extent where None.
        align: how the moving image is laid over the fixed one before anything is learned.
        num_slices: slices taken from each volume where both label maps have something; 0 takes every such slice.
        normalize: intensity normalization of the moving and the fixed image.
        match_slices: whether slices at one position make a pair, or slices at one fraction of each organ's own extent.
    """

    spatial_dims: int
    spacing_mm: tuple[float, ...] | None
    shape: tuple[int, ...] | None
    align: Align
    num_slices: int
    normalize: tuple[Mode, Mode]
    match_slices: MatchSlices = "position"


@dataclass(frozen=True)
class ImagePair:
    """Two images on one grid, ready for a network.

    Attributes:
        id: of the pair, with the slice where it is one.
        moving: float32, (*shape), normalized.
        fixed: likewise.
        moving_label: int64, (*shape); None where there is none.
        fixed_label: likewise.
        moving_landmarks: (N, D) pixel positions, nan where missing.
        fixed_landmarks: likewise, same order.
        truth: the displacement to be found, (D, *shape) in pixels; None where unknown.
        mask: where the truth counts.
        spacing_mm: pixel size along each axis.
        affine: 4x4 of the grid, pixels to mm.
    """

    id: str
    moving: NDArray[np.float32]
    fixed: NDArray[np.float32]
    spacing_mm: tuple[float, ...]
    affine: NDArray[np.float64]
    moving_label: NDArray[np.int64] | None = None
    fixed_label: NDArray[np.int64] | None = None
    moving_landmarks: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    fixed_landmarks: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    truth: NDArray[np.float32] | None = None
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class PlacedPair:
    """A pair whose work grid is known, and the matrix from the fixed image's world to the moving one's."""

    ref: PairRef
    grid: Grid
    place: NDArray[np.float64]


class PairReader:
    """Loads pairs onto the work grid.

    Args:
        grid: where pairs are brought to.
        label_channels: how many channels of a label file with several are organs.
        cache: keeps what was read and resampled; images that several pairs share are then read once.
    """

    def __init__(self, grid: WorkGrid, *, label_channels: int = 1, cache: SampleCache | None = None) -> None:
        self.grid = grid
        self.label_channels = label_channels
        self.cache = cache or SampleCache(memory_gb=1.0)

    def load(self, ref: PairRef) -> list[ImagePair]:
        """The pair, or one pair for each slice where volumes are cut into slices.

        Raises:
            UserError: the two images cannot be brought together; names the file.
        """
        placed = self.place(ref)
        pair = self.on_grid(placed)
        if self.grid.spatial_dims == pair.moving.ndim:
            return [pair]
        return [slice_pair(pair, z, moving_z) for z, moving_z in self._slices(pair)]

    def place(self, ref: PairRef) -> PlacedPair:
        """Lay the work grid over the fixed image and the moving image beside it.

        Raises:
            UserError: one image is 2D and the other 3D, a 2D image where volumes are expected, or no overlap.
        """
        moving, fixed = (case.volume(name) for case, name in zip(ref.cases, ref.field_names, strict=True))
        if moving.spatial_dims != fixed.spatial_dims:
            raise UserError(
                f"{moving.source} is {moving.spatial_dims}D and {fixed.source} is {fixed.spatial_dims}D; "
                "a pair needs two images of one dimension"
            )
        if fixed.spatial_dims < self.grid.spatial_dims:
            raise UserError(
                f"{fixed.source or 'the image'} is 2D where volumes are expected; use a model for slices "
                "(--config.spatial-dims 2)"
            )
        fixed = canonical(fixed)
        spacing, shape = self.grid.spacing_mm, self.grid.shape
        if self.grid.spatial_dims < fixed.spatial_dims:  # slices: the axis across them stays as it is
            spacing = None if spacing is None else (*spacing, fixed.spacing[-1])
            shape = None if shape is None else (*shape, fixed.shape[-1])
        work = make_grid([fixed], spacing_mm=spacing, shape=shape)
        return PlacedPair(ref, work, placement(canonical(moving), fixed, self.grid.align))

    def on_grid(self, placed: PlacedPair) -> ImagePair:
        """Both images, labels, landmarks and truth on the work grid.

        Raises:
            UserError: an image cannot be read or has several channels.
        """
        ref, work = placed.ref, placed.grid
        names = ref.field_names
        moving = self._side(ref.moving, names[0], work, placed.place, self.grid.normalize[0])
        fixed = self._side(ref.fixed, names[1], work, np.eye(4), self.grid.normalize[1])
        return ImagePair(
            id=ref.id,
            moving=moving.image,
            fixed=fixed.image,
            spacing_mm=work.spacing,
            affine=work.affine,
            moving_label=moving.label,
            fixed_label=fixed.label,
            moving_landmarks=moving.landmarks,
            fixed_landmarks=fixed.landmarks,
            truth=_truth(placed),
            mask=self._mask(placed),
        )

    def _side(self, case: Case, name: str, grid: Grid, place: NDArray[np.float64], normalize: Mode) -> _Side:
        label_name = "label" if name == "image" else f"{name}_label"
        fields = [field for field in (name, label_name) if field in case.fields]
        # Only where the image's own voxels end up matters: subjects centered on each other share an entry.
        where = grid.shape, np.round(place @ grid.affine, 4).tolist()
        key = ("registration side", case_fingerprint(case, fields), name, where, normalize, self.label_channels)
        kept = self.cache.get(key, lambda: self._load_side(case, name, label_name, grid, place, normalize))
        return _Side(kept["image"], kept.get("label"), kept["landmarks"])

    def _load_side(
        self, case: Case, name: str, label_name: str, grid: Grid, place: NDArray[np.float64], normalize: Mode
    ) -> dict[str, NDArray[Any]]:
        volume = case.volume(name)
        if volume.array.shape[0] != 1:
            raise UserError(f"{volume.source} has {volume.array.shape[0]} channels where a grey image is expected")
        image = Volume(normalize_intensity(volume.array, normalize), volume.affine, volume.source)
        moved = resample(image, grid, order=1, fill=None, place=place)
        found: dict[str, NDArray[Any]] = {
            "image": np.ascontiguousarray(moved.array[0], dtype=np.float32),
            "landmarks": np.zeros((0, grid.dims)),
        }
        if label_name in case.fields:
            masks = case.volume(label_name)
            found["label"] = organs(resample(masks, grid, order=0, fill=0, place=place).array, self.label_channels)
            if masks.array.shape[0] > 1:
                points = [_centroid(mask) for mask in masks.array[self.label_channels :]]
                found["landmarks"] = _to_work_index(np.array(points).reshape(-1, grid.dims), masks, grid, place)
        return found

    def _mask(self, placed: PlacedPair) -> NDArray[np.bool_] | None:
        if not placed.ref.ready_made or "mask" not in placed.ref.fixed.fields:
            return None
        return resample(placed.ref.fixed.volume("mask"), placed.grid, order=0, fill=0).array[0] > 0

    def _slices(self, pair: ImagePair) -> list[tuple[int, int]]:
        """Fixed and moving slice numbers of the slice pairs of two volumes."""
        everywhere = np.arange(pair.fixed.shape[-1])
        sides = [
            everywhere if label is None else np.flatnonzero(label.any(axis=(0, 1)))
            for label in (pair.fixed_label, pair.moving_label)
        ]
        if self.grid.match_slices == "position":
            sides = [np.intersect1d(sides[0], sides[1])] * 2
        if min(len(side) for side in sides) == 0:
            raise UserError(f"pair {pair.id}: no slice has labels in both images")
        count = self.grid.num_slices or len(sides[0])
        # Over the middle of the organ, since its outermost slices are a few pixels; at equal fractions of its extent.
        places = (1 - _SLICED_PART) / 2 + _SLICED_PART * (np.arange(count) + 0.5) / count
        if self.grid.num_slices == 0:
            places = (np.arange(count) + 0.5) / count
        numbers = [side[np.minimum((places * len(side)).astype(int), len(side) - 1)] for side in sides]
        return list(dict.fromkeys((int(f), int(m)) for f, m in zip(*numbers, strict=True)))


@dataclass(frozen=True)
class _Side:
    image: NDArray[np.float32]
    label: NDArray[np.int64] | None
    landmarks: NDArray[np.float64]


def _truth(placed: PlacedPair) -> NDArray[np.float32] | None:
    """The known displacement in pixels of the work grid: given with the pair, or through a common atlas."""
    moving, fixed = placed.ref.cases
    if placed.ref.ready_made and "displacement" in fixed.fields:
        given = fixed.volume("displacement")
        field, grid = given.array, Grid.of(given)
    elif "to_atlas" in moving.fields and "to_atlas" in fixed.fields:
        maps = [case.volume("to_atlas") for case in (moving, fixed)]
        first, second = (torch.from_numpy(np.asarray(m.array, dtype=np.float32))[None] for m in maps)
        # Both subjects name the same atlas point: a(x + u) = b(x), with a and b the maps to the atlas.
        field, grid = compose(invert(first), second)[0].numpy(), Grid.of(maps[1])
    else:
        return None
    world = world_positions(placed.grid)
    target = world + to_original(field, grid, placed.grid).array
    back = np.linalg.inv(placed.place)
    mm = np.tensordot(back[:3, :3], target, axes=1) + back[:3, 3].reshape(3, *(1,) * placed.grid.dims) - world
    voxels = np.linalg.pinv(placed.grid.affine[:3, : placed.grid.dims])
    return np.tensordot(voxels, mm, axes=1).astype(np.float32)


def _to_work_index(
    points: NDArray[np.float64], image: Volume, grid: Grid, place: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Voxel positions of an image as positions on the work grid, (N, D)."""
    dims = grid.dims
    world = points @ image.affine[:3, :dims].T + image.affine[:3, 3]
    back = np.linalg.inv(place)
    fixed_world = world @ back[:3, :3].T + back[:3, 3]
    return (fixed_world - grid.affine[:3, 3]) @ np.linalg.pinv(grid.affine[:3, :dims]).T


def slice_pair(pair: ImagePair, z: int, moving_z: int | None = None) -> ImagePair:
    """One slice of a pair of volumes along the last axis. In-plane truth only; landmarks belong to volumes.

    Args:
        pair: volumes on one grid.
        z: slice of the fixed image.
        moving_z: slice of the moving image, the same by default.
    """
    other = z if moving_z is None else moving_z
    in_plane = pair.affine.copy()
    in_plane[:3, 3] = pair.affine[:3, :3] @ np.array([0.0, 0.0, z]) + pair.affine[:3, 3]

    def cut(array: NDArray[Any] | None, number: int = z) -> Any:
        return None if array is None else np.ascontiguousarray(array[..., number])

    same = other == z
    return ImagePair(
        id=f"{pair.id}/z={z}" + ("" if same else f",{other}"),
        moving=cut(pair.moving, other),
        fixed=cut(pair.fixed),
        spacing_mm=pair.spacing_mm[:2],
        affine=in_plane,
        moving_label=cut(pair.moving_label, other),
        fixed_label=cut(pair.fixed_label),
        truth=cut(pair.truth[:2]) if pair.truth is not None and same else None,
        mask=cut(pair.mask),
    )


def _centroid(mask: NDArray[Any]) -> NDArray[np.float64]:
    positions = np.argwhere(mask > 0)
    return positions.mean(axis=0) if len(positions) else np.full(mask.ndim, np.nan)
