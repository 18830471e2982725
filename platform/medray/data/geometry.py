"""Images of different size, spacing, orientation and position on one grid, and results back on the user's own.

Three coordinate systems: the index of a voxel (its center at whole numbers), mm in RAS+ world space (affine @ index),
and, for pairs, a *placement*: a 4x4 matrix from the fixed image's world to the moving image's, for images that were
not taken in a common position. A 2D image is the plane of index (i, j, 0) of its affine; sampling one ignores the
distance from its plane.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medray.data.affines import Affine
from medray.data.case import Volume
from medray.errors import UserError

Align = Literal["world", "center", "extent"]


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels are: shape (two or three axes) and affine (4, 4), index to mm, RAS+. Equal if both are, exactly."""

    shape: tuple[int, ...]
    affine: Affine

    def __post_init__(self) -> None:
        if len(self.shape) not in (2, 3) or min(self.shape) < 1:
            raise ValueError(f"a grid has two or three axes of at least one voxel, got shape {self.shape}")
        if np.shape(self.affine) != (4, 4):
            raise ValueError(f"an affine is 4x4, got {np.shape(self.affine)}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self.shape == other.shape and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        return hash((self.shape, np.asarray(self.affine, dtype=np.float64).tobytes()))

    @classmethod
    def of(cls, volume: Volume) -> Grid:
        """The grid of a volume."""
        return cls(volume.shape, volume.affine)

    @property
    def dims(self) -> int:
        """2 or 3."""
        return len(self.shape)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size along each array axis, mm."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, : self.dims], axis=0))

    @property
    def center(self) -> NDArray[np.float64]:
        """World position of the middle, mm, (3,)."""
        index = np.zeros(4)
        index[: self.dims], index[3] = (np.array(self.shape) - 1) / 2, 1.0
        return np.asarray((self.affine @ index)[:3])

    def corners(self) -> NDArray[np.float64]:
        """World positions of the outer corners of the corner voxels, mm, (2**dims, 3)."""
        ends = [(-0.5, n - 0.5) for n in self.shape] + [(0.0,)] * (3 - self.dims)
        index = np.array(list(itertools.product(*ends)))
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]


def canonical(volume: Volume) -> Volume:
    """The same image with its array axes permuted and flipped to run as close to Right, Anterior, Superior as they can.

    Only the order of the voxels changes, no value and no position. The axes of a 2D image are sorted among themselves:
    a coronal slice becomes (left to right, inferior to superior).
    """
    permutation, flips = orientation(volume.affine, volume.spatial_dims)
    array = canonical_view(volume.array, volume.affine)
    affine = volume.affine.copy()
    affine[:, : volume.spatial_dims] = volume.affine[:, permutation]
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis + 1] - 1)
            affine[:3, axis] *= -1
    return Volume(np.ascontiguousarray(array), affine, volume.source, volume.header)


def canonical_view(array: NDArray[Any], affine: Affine) -> NDArray[Any]:
    """The voxels of `canonical` without a copy: what is assigned to the view reaches the array.

    Args:
        array: (C, *spatial).
        affine: index to mm, RAS+; of any grid with axes in the same directions.
    """
    permutation, flips = orientation(affine, array.ndim - 1)
    turned = array.transpose(0, *(axis + 1 for axis in permutation))
    return np.flip(turned, tuple(axis + 1 for axis, flip in enumerate(flips) if flip))


def orientation(affine: Affine, dims: int) -> tuple[list[int], list[bool]]:
    """Array axes in the order of the world axis each follows most, and whether each runs against it.

    Args:
        affine: index to mm, RAS+.
        dims: 2 or 3 array axes.
    """
    axes = affine[:3, :dims] / np.linalg.norm(affine[:3, :dims], axis=0)
    best = max(
        itertools.permutations(range(3), dims), key=lambda worlds: sum(abs(axes[w, a]) for a, w in enumerate(worlds))
    )
    permutation = sorted(range(dims), key=lambda axis: best[axis])
    return permutation, [bool(axes[best[axis], axis] < 0) for axis in permutation]


def placement(moving: Volume | Grid, fixed: Volume | Grid, align: Align) -> Affine:
    """Matrix (4, 4) from the fixed image's world to the moving image's, mm to mm.

    ``world``: the identity, both were taken in one position. ``center``: a shift that makes the middles of the two
    images coincide, orientations as they are. ``extent``: the moving image is stretched so that it fills the fixed
    image's box, axis by axis after both were turned to run Right, Anterior, Superior.

    Raises:
        UserError: ``world``, and the two images do not overlap at all.
        ValueError: one is 2D, the other 3D, or ``align`` is unknown.
    """
    moving, fixed = _grid(moving), _grid(fixed)
    if moving.dims != fixed.dims:
        raise ValueError(f"cannot place a {moving.dims}D image on a {fixed.dims}D one")
    if align == "world":
        _check_overlap(moving, fixed)
        return np.eye(4)
    if align == "center":
        shift = np.eye(4)
        shift[:3, 3] = moving.center - fixed.center
        return shift
    if align != "extent":
        raise ValueError(f"align is world, center or extent, got {align!r}")
    return _box(moving) @ np.linalg.inv(_box(fixed))


def _grid(where: Volume | Grid) -> Grid:
    return Grid.of(where) if isinstance(where, Volume) else where


def _box(grid: Grid) -> Affine:
    """Affine from [-1, 1] along canonical axes to world: the box an image fills. A 2D image is 1 mm thick in it."""
    permutation, flips = orientation(grid.affine, grid.dims)
    box = np.eye(4)
    for column, (axis, flip) in enumerate(zip(permutation, flips, strict=True)):
        box[:3, column] = grid.affine[:3, axis] * grid.shape[axis] / 2 * (-1 if flip else 1)
    if grid.dims == 2:
        normal = np.cross(box[:3, 0], box[:3, 1])
        box[:3, 2] = normal / np.linalg.norm(normal)
    box[:3, 3] = grid.center
    return box


def _check_overlap(moving: Grid, fixed: Grid) -> None:
    inside = (moving.corners() - fixed.affine[:3, 3]) @ np.linalg.inv(fixed.affine[:3, :3]).T
    low, high = inside.min(axis=0)[: fixed.dims], inside.max(axis=0)[: fixed.dims]
    if (high < -0.5).any() or (low > np.array(fixed.shape) - 0.5).any():
        distance = float(np.linalg.norm(moving.center - fixed.center))
        raise UserError(
            f"the two images do not overlap in scanner coordinates, their centers are {distance:.0f} mm apart; "
            "align them by center or extent instead of world"
        )


def make_grid(
    volumes: Sequence[Volume],
    spacing_mm: float | Sequence[float] | None = None,
    shape: Sequence[int] | None = None,
    align: Align = "world",
) -> Grid:
    """A work grid that holds all of ``volumes``, along the axes of the first one in canonical order.

    The first volume is the reference (the fixed image); the others are put beside it by `placement`. The grid is
    centered on the box around them all. Spacing and shape given: exactly these, cropping or padding around that center.
    Only the spacing: as many voxels as the box needs. Only the shape: the spacing that fits the box, axis by axis.
    Neither: the spacing of the first volume.

    Args:
        volumes: all 2D or all 3D.
        spacing_mm: one value, or one per grid axis.
        shape: voxels per grid axis.
        align: see `placement`.

    Raises:
        UserError: see `placement`.
        ValueError: no volumes, or lengths that do not match the number of axes.
    """
    if not volumes:
        raise ValueError("make_grid needs at least one volume")
    reference = Grid.of(canonical(volumes[0]))
    dims = reference.dims
    unit = reference.affine.copy()
    unit[:3, :dims] /= np.array(reference.spacing)
    if dims == 2:
        normal = np.cross(unit[:3, 0], unit[:3, 1])
        unit[:3, 2] = normal / np.linalg.norm(normal)
    to_unit = np.linalg.inv(unit)
    points = []
    for volume in volumes:
        back = to_unit @ np.linalg.inv(placement(volume, reference, align))
        points.append(Grid.of(volume).corners() @ back[:3, :3].T + back[:3, 3])
    corners = np.concatenate(points)[:, :dims]
    low, high = corners.min(axis=0), corners.max(axis=0)
    size = high - low
    wanted_shape = _per_axis("shape", shape, dims)
    spacing = _per_axis("spacing_mm", spacing_mm, dims)
    if spacing is None:
        spacing = np.array(reference.spacing) if wanted_shape is None else size / wanted_shape
    if (spacing <= 0).any() or (wanted_shape is not None and (wanted_shape < 1).any()):
        raise ValueError(f"spacing_mm and shape must be positive, got {spacing_mm} and {shape}")
    # a hair under one voxel too many is rounding, not a reason for another voxel
    count = np.ceil(size / spacing - 1e-4).astype(int) if wanted_shape is None else wanted_shape.astype(int)
    affine = unit.copy()
    affine[:3, :dims] = unit[:3, :dims] * spacing
    first = (low + high) / 2 - (count - 1) / 2 * spacing
    affine[:3, 3] = unit[:3, :dims] @ first + unit[:3, 3]
    return Grid(tuple(int(n) for n in np.maximum(count, 1)), affine)


def _per_axis(name: str, value: float | Sequence[float] | None, dims: int) -> NDArray[np.float64] | None:
    if value is None:
        return None
    values = (
        np.broadcast_to(np.asarray(value, dtype=np.float64), (dims,))
        if np.ndim(value) == 0
        else np.asarray(value, float)
    )
    if values.shape != (dims,):
        raise ValueError(f"{name} needs {dims} values for {dims}D images, got {value}")
    return values


def resample(
    volume: Volume,
    grid: Grid,
    order: Literal[0, 1] = 1,
    fill: float | None = 0.0,
    place: Affine | None = None,
    antialias: bool = True,
) -> Volume:
    """Sample an image on another grid: value at affine_volume^-1 . place . affine_grid . index.

    Half a voxel beyond the outermost centers still belongs to the image (the edge value is continued there); what lies
    further out gets ``fill``.

    Args:
        volume: (C, *spatial).
        grid: of as many axes, or a 2D grid that cuts a slice out of a 3D image.
        order: 1 linear, 0 nearest; label maps need 0.
        fill: value outside, None for the image's minimum.
        place: the grid's world to the image's world, see `placement`.
        antialias: with order 1, smooth first along axes that are sampled more coarsely, sigma (step - 1) / 2 voxels.

    Returns:
        (C, *grid.shape), of the image's type for order 0 and for integers rounded, else float32.

    Raises:
        ValueError: a 3D grid and a 2D image.
    """
    dims = volume.spatial_dims
    if grid.dims > dims:
        raise ValueError(f"a {dims}D image cannot be sampled on a {grid.dims}D grid")
    matrix = _inverse(volume.affine, dims) @ (np.eye(4) if place is None else place) @ grid.affine
    linear = np.zeros((dims, dims))
    linear[:, : grid.dims] = matrix[:dims, : grid.dims]
    offset = matrix[:dims, 3]
    shape = grid.shape + (1,) * (dims - grid.dims)
    outside = _outside(linear, offset, volume.shape, shape)
    value = (float(volume.array.min()) if np.isrealobj(volume.array) else 0.0) if fill is None else fill
    steps = np.abs(linear).max(axis=1)
    sigma = np.maximum(steps - 1, 0) / 2 if antialias and order == 1 else np.zeros(dims)
    result = np.empty(
        (volume.array.shape[0], *shape), dtype=volume.array.dtype if order == 0 else _real(volume.array.dtype)
    )
    for channel, source in zip(result, volume.array, strict=True):
        smooth = source.astype(result.dtype, copy=False)
        if (sigma > 0.05).any():
            smooth = ndimage.gaussian_filter(smooth, sigma, mode="nearest")
        ndimage.affine_transform(
            smooth, linear, offset, output_shape=shape, output=channel, order=order, mode="nearest"
        )
        channel[outside] = value
    result = result.reshape(volume.array.shape[0], *grid.shape)
    if volume.array.dtype.kind in "iu" and order == 1:
        result = np.rint(result).astype(volume.array.dtype)
    return Volume(result, grid.affine, volume.source, volume.header)


def _real(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.complex64) if dtype.kind == "c" else np.dtype(np.float32)


def _inverse(affine: Affine, dims: int) -> Affine:
    """World to index. The third axis of a 2D image is its unit normal, whatever its file says about it."""
    full = affine.copy()
    if dims == 2:
        normal = np.cross(full[:3, 0], full[:3, 1])
        full[:3, 2] = normal / np.linalg.norm(normal)
    return np.asarray(np.linalg.inv(full), dtype=np.float64)


def _outside(
    linear: NDArray[np.float64], offset: NDArray[np.float64], source: tuple[int, ...], target: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Where linear @ index + offset falls more than half a voxel beyond the source's outermost centers."""
    outside = np.zeros(target, dtype=bool)
    slack = 1e-4
    for axis, length in enumerate(source):
        position: NDArray[np.float64] = np.asarray(offset[axis])
        for column, count in enumerate(target):
            if linear[axis, column]:
                along = np.arange(count).reshape([-1 if a == column else 1 for a in range(len(target))])
                position = position + linear[axis, column] * along
        outside |= (position < -0.5 - slack) | (position > length - 0.5 + slack)
    return outside


def to_original(displacement: NDArray[Any], grid: Grid, target: Grid, place: Affine | None = None) -> Volume:
    """A displacement found on the work grid, in mm on the user's grid.

    The vectors are interpolated linearly at the target's voxels (beyond the work grid the nearest edge vector counts)
    and turned into mm by the work grid's affine: with u in voxels, G the grid's affine and P the placement, the moving
    image's world position that belongs to the world position x of the fixed image is P(x + G u), and the result is that
    position minus x. It therefore warps the user's own moving image onto the user's own fixed grid, see `warp`.

    Args:
        displacement: (D, *grid.shape), voxels of the work grid, components in array-axis order.
        grid: the work grid, D axes.
        target: the grid to report on, usually the fixed image's.
        place: the placement the moving image was resampled with, None for ``world``.

    Returns:
        (3, *target.shape) float32, mm, components along world x, y, z (RAS+).

    Raises:
        ValueError: the displacement does not lie on ``grid``, or the axes' numbers differ.
    """
    if displacement.shape != (grid.dims, *grid.shape):
        raise ValueError(f"a displacement on this grid is {(grid.dims, *grid.shape)}, got {displacement.shape}")
    if target.dims != grid.dims:
        raise ValueError(f"a {grid.dims}D displacement cannot be brought to a {target.dims}D grid")
    matrix = _inverse(grid.affine, grid.dims) @ target.affine
    linear, offset = matrix[: grid.dims, : grid.dims], matrix[: grid.dims, 3]
    on_target = np.stack(
        [
            ndimage.affine_transform(
                component.astype(np.float64), linear, offset, output_shape=target.shape, order=1, mode="nearest"
            )
            for component in displacement
        ]
    )
    mm = np.tensordot(grid.affine[:3, : grid.dims], on_target, axes=1)
    if place is not None:
        world = world_positions(target)
        mm = np.tensordot(place[:3, :3], world + mm, axes=1) + place[:3, 3].reshape(3, *[1] * target.dims) - world
    return Volume(mm.astype(np.float32), target.affine)


def in_voxels(field: Volume) -> NDArray[np.float64]:
    """A displacement in mm (3, *spatial) as voxels of its own grid, components in array-axis order: (D, *spatial).

    The part of a 2D field that leaves the plane is dropped.
    """
    dims = field.spatial_dims
    return np.asarray(np.tensordot(_inverse(field.affine, dims)[:dims, :3], field.array, axes=1))


def world_positions(grid: Grid) -> NDArray[np.float64]:
    """World position of every voxel, (3, *shape), mm, RAS+."""
    index = np.indices(grid.shape, dtype=np.float64)
    world = np.tensordot(grid.affine[:3, : grid.dims], index, axes=1)
    return np.asarray(world + grid.affine[:3, 3].reshape(3, *[1] * grid.dims))


def warp(moving: Volume, field: Volume, order: Literal[0, 1] = 1, fill: float | None = 0.0) -> Volume:
    """The moving image on the field's grid: its value at world position x + field(x).

    Args:
        moving: (C, *spatial).
        field: (3, *spatial), mm along world axes, as `to_original` returns.
        order: 1 linear, 0 nearest for labels.
        fill: value outside the moving image, None for its minimum.

    Returns:
        (C, *field.shape), the moving image's type (integers rounded), the field's affine.
    """
    dims = moving.spatial_dims
    grid = Grid.of(field)
    world = world_positions(grid) + field.array
    matrix = _inverse(moving.affine, dims)
    index = np.tensordot(matrix[:dims, :3], world, axes=1) + matrix[:dims, 3].reshape(dims, *[1] * grid.dims)
    outside = np.zeros(grid.shape, dtype=bool)
    for position, length in zip(index, moving.shape, strict=True):
        outside |= (position < -0.5 - 1e-4) | (position > length - 0.5 + 1e-4)
    value = float(moving.array.min()) if fill is None else fill
    kind = moving.array.dtype if order == 0 else np.dtype(np.float32)
    result = np.stack(
        [ndimage.map_coordinates(c.astype(kind, copy=False), index, order=order, mode="nearest") for c in moving.array]
    )
    result[:, outside] = value
    if moving.array.dtype.kind in "iu":
        result = np.rint(result).astype(moving.array.dtype)
    return Volume(result, field.affine, moving.source, moving.header)
