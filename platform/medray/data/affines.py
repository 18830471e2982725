"""Affine bookkeeping shared by the readers, the writers and the resampling code.

World positions are in mm, RAS+ (x grows to the patient's Right, y to the Anterior, z to the Superior side), as in
NIfTI. ITK, DICOM and MetaImage use LPS+: the first two world axes change sign.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Its own inverse."""


def affine_from_itk(
    direction: NDArray[np.float64], spacing: NDArray[np.float64], origin: NDArray[np.float64]
) -> Affine:
    """Affine (4, 4) of an ITK image with two or three axes, index (i, j, k) to mm, RAS+.

    Args:
        direction: (D, D), columns are the axes' unit vectors in LPS.
        spacing: (D,) mm.
        origin: (D,) mm, position of index zero in LPS.
    """
    dims = len(spacing)
    lps = np.eye(4)
    lps[:dims, :dims] = direction @ np.diag(spacing)
    lps[:dims, 3] = origin
    return LPS_TO_RAS @ lps


def itk_from_affine(affine: Affine, dims: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Direction (D, D), spacing (D,) and origin (D,) in LPS of an affine; the inverse of `affine_from_itk`."""
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:dims, :dims], axis=0)
    return lps[:dims, :dims] / spacing, spacing, lps[:dims, 3]


def move_singleton_last(shape: tuple[int, ...], affine: Affine) -> tuple[int | None, Affine]:
    """Find the one axis of length 1 of a three-axis grid, and the affine with that axis last.

    A coronal slice stored as (X, 1, Z) is then the plane of index (i, j, 0) of the returned affine.

    Returns:
        The axis, or None where there is none or more than one (then the affine is unchanged).
    """
    ones = [axis for axis, length in enumerate(shape) if length == 1]
    if len(shape) != 3 or len(ones) != 1:
        return None, affine
    order = [axis for axis in range(3) if axis != ones[0]] + ones
    return ones[0], affine[:, [*order, 3]]


def restore_singleton(array: NDArray[np.generic], axis: int, affine: Affine) -> tuple[NDArray[np.generic], Affine]:
    """Undo `move_singleton_last`: put the axis of length 1 back into (C, A, B) and its column back into the affine."""
    kept = [a for a in range(3) if a != axis]
    columns = [0, 0, 0, 3]
    for position, original in enumerate([*kept, axis]):
        columns[original] = position
    return np.expand_dims(array, axis + 1), affine[:, columns]
