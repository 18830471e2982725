"""Which plane a scan was taken in, and 2D images turned as they are looked at.

Files with a position (DICOM, NIfTI, MetaImage) say how their axes run in the patient; pictures (PNG, arrays, and the 2D
phantoms that stand in for them) do not, and are stored as they are looked at: rows downward, columns to the right.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medray.data.affines import Affine
from medray.data.case import Volume
from medray.data.geometry import orientation

Plane = Literal["axial", "coronal", "sagittal", ""]

_PLANES: tuple[Plane, ...] = ("sagittal", "coronal", "axial")  # by the world axis that the normal follows
_LEAST_COSINE = 0.75
"""Of the angle between a plane's normal and a world axis: up to about 40 degrees, as oblique shoulder series have."""
_THICK = 1.1
"""Slices are told by a spacing this much larger than both others."""
_NO_POSITION = ("raster", "array", "phantom")


def slice_plane(volume: Volume) -> Plane:
    """The plane of the slices.

    Args:
        volume: 3D, whose slices are told by their larger spacing (or, in DICOM, by their order); or one 2D slice.

    Returns:
        ``axial``, ``coronal`` or ``sagittal``, up to an obliquity of 40 degrees. Empty where the file does not say: a
        picture without a position, an isotropic volume, or a plane between two of them.
    """
    if not has_position(volume):
        return ""
    axes = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    if volume.spatial_dims == 2:
        normal = np.cross(axes[:, 0], axes[:, 1])
    else:
        through = _through_axis(volume)
        if through is None:
            return ""
        normal = np.cross(axes[:, (through + 1) % 3], axes[:, (through + 2) % 3])
    cosines = np.abs(normal) / np.linalg.norm(normal)
    nearest = int(np.argmax(cosines))
    return _PLANES[nearest] if cosines[nearest] >= _LEAST_COSINE else ""


def has_position(volume: Volume) -> bool:
    """Whether the file says how the array's axes run in the patient."""
    if volume.header.get("format") in _NO_POSITION or np.array_equal(volume.affine, np.eye(4)):
        return False
    return not (volume.spatial_dims == 2 and volume.header.get("dims") == 2)  # a file of two axes only


def upright_view(array: NDArray[Any], volume: Volume) -> NDArray[Any]:
    """A 2D image as it is looked at: rows downward, the patient's right (or front, in a sagittal plane) on the left.

    A view without a copy: a result assigned to ``upright_view(result, volume)[...]`` lies on the file's own grid. Thus
    a DICOM slice, stored columns first, is turned like the PNG that was exported from it.

    Args:
        array: (C, *volume.shape).
        volume: the image as it was read, 2D.

    Returns:
        (C, rows, columns). As it is where the file has no position.

    Raises:
        ValueError: not 2D.
    """
    if volume.spatial_dims != 2 or array.shape[1:] != volume.shape:
        raise ValueError(f"a 2D image and an array on its grid are expected, got {array.shape} on {volume.shape}")
    if not has_position(volume):
        return array
    rows, columns, flips = _upright(volume.affine)
    turned = array.transpose(0, rows + 1, columns + 1)
    return np.flip(turned, tuple(axis + 1 for axis, flip in enumerate(flips) if flip))


def upright_spacing(volume: Volume) -> tuple[float, float]:
    """Size of the pixels of `upright_view` along rows (downward) and columns, mm."""
    if not has_position(volume):
        return volume.spacing[0], volume.spacing[1]
    rows, columns, _ = _upright(volume.affine)
    return volume.spacing[rows], volume.spacing[columns]


def slice_axis(volume: Volume, normal: int) -> int:
    """The array axis across the slices of a volume: a picture file's pages, or the thick one.

    Args:
        volume: 3D.
        normal: world axis (0 to the right, 1 to the front, 2 up) across the expected slices; decides for isotropic
            volumes, of which those without a position are taken to have their slices last.
    """
    if volume.header.get("format") == "raster":
        return 0
    thick = _through_axis(volume)
    if thick is not None:
        return thick
    return int(np.abs(volume.affine[normal, :3]).argmax()) if has_position(volume) else 2


def slice_of(volume: Volume, axis: int, index: int) -> Volume:
    """A slice of a volume as a 2D image in its place, without a copy: what is assigned to its array reaches the volume.

    Args:
        volume: 3D.
        axis: across the slices, see `slice_axis`.
        index: which slice.
    """
    affine = volume.affine.copy()
    affine[:, :3] = volume.affine[:, [*(other for other in range(3) if other != axis), axis]]
    affine[:3, 3] += index * volume.affine[:3, axis]
    return Volume(np.moveaxis(volume.array, axis + 1, 0)[index], affine, volume.source, volume.header)


def _upright(affine: Affine) -> tuple[int, int, tuple[bool, bool]]:
    """Array axes that become rows and columns, and whether each is turned round: all world axes run against them."""
    (first, second), (flip_first, flip_second) = orientation(affine, 2)
    return second, first, (not flip_second, not flip_first)


def _through_axis(volume: Volume) -> int | None:
    """The array axis across the slices."""
    order = np.argsort(volume.spacing)
    if volume.spacing[order[2]] > _THICK * volume.spacing[order[1]]:
        return int(order[2])
    return 2 if volume.header.get("format") == "dicom" else None
