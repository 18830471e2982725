"""How well a displacement field registers: end-point error, landmark distance, label overlap, folding.

Fields are (B, D, *shape) in pixels, array-axis order, as everywhere (see `medray.nn.warp`), 2D or 3D. What is averaged
over cases comes as per-case totals and counts, so that a mean over a split (or over workers) is a sum of totals divided
by a sum of counts and never a mean of means.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medray.nn.warp import sample, warp


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """Determinant of the gradient of ``x + displacement(x)``: local change of area or volume, (B, *shape).

    Central differences inside, one-sided at the border. 1 where the field is constant, 0 or less where it folds.

    Raises:
        ValueError: the field is not (B, D, *shape), or an axis has fewer than 2 pixels.
    """
    dims = _spatial_dims(displacement)
    if min(displacement.shape[2:]) < 2:
        raise ValueError(f"a Jacobian needs at least 2 pixels per axis, got {tuple(displacement.shape[2:])}")
    columns = torch.gradient(displacement, dim=tuple(range(2, 2 + dims)))  # d u / d axis, each (B, D, *shape)
    matrix = torch.stack(columns, dim=-1).movedim(1, -2)  # (B, *shape, component, axis)
    determinant: Tensor = torch.linalg.det(matrix + torch.eye(dims, dtype=matrix.dtype, device=matrix.device))
    return determinant


def folded_pixels(displacement: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Pixels whose Jacobian determinant is 0 or less.

    Args:
        displacement: (B, D, *shape), pixels.
        mask: where to count, (B, *shape) or broadcastable to it; everywhere if None.

    Returns:
        Folded pixels and counted pixels per case, each (B,).
    """
    folded = jacobian_determinant(displacement) <= 0
    where = _mask(mask, folded)
    return (folded & where).flatten(1).sum(1), where.flatten(1).sum(1)


def folded_fraction(displacement: Tensor, mask: Tensor | None = None) -> Tensor:
    """`folded_pixels` divided: the folded share of each case, (B,); nan under an empty mask."""
    folded, count = folded_pixels(displacement, mask)
    return folded / count


def end_point_error_px(displacement: Tensor, reference: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Distance between the estimated and the true displacement vector.

    Args:
        displacement: estimate, (B, D, *shape), pixels.
        reference: truth, same shape and unit.
        mask: where to count, (B, *shape) or broadcastable to it; everywhere if None.

    Returns:
        Sum of Euclidean distances in pixels and number of pixels, per case, each (B,).

    Raises:
        ValueError: the shapes differ.
    """
    _spatial_dims(displacement)
    if displacement.shape != reference.shape:
        raise ValueError(
            f"displacement {tuple(displacement.shape)} and reference {tuple(reference.shape)} must have the same shape"
        )
    error = torch.linalg.vector_norm(displacement - reference, dim=1)
    where = _mask(mask, error)
    return torch.where(where, error, 0.0).flatten(1).sum(1), where.flatten(1).sum(1)


def landmark_distance_mm(
    displacement: Tensor, fixed_points: Tensor, moving_points: Tensor, spacing: Sequence[float]
) -> Tensor:
    """Distance between where the field sends each fixed landmark and where it lies in the moving image (TRE).

    Args:
        displacement: field of one case, (D, *shape) or (1, D, *shape), pixels.
        fixed_points: landmarks in the fixed image, pixels in array-axis order, (N, D); nan where a landmark is missing.
        moving_points: the same landmarks in the moving image, (N, D), same pixel size.
        spacing: pixel size in mm, one per array axis.

    Returns:
        Distance per landmark in mm, (N,); nan where either point is missing.

    Raises:
        ValueError: shapes that do not belong together.
    """
    field = displacement if displacement.shape[0] == 1 else displacement[None]
    dims = _spatial_dims(field)
    if fixed_points.shape != moving_points.shape or fixed_points.ndim != 2 or fixed_points.shape[1] != dims:
        raise ValueError(
            f"landmarks must be two (N, {dims}) arrays, "
            f"got {tuple(fixed_points.shape)} and {tuple(moving_points.shape)}"
        )
    if len(spacing) != dims:
        raise ValueError(f"spacing needs {dims} numbers in mm, got {tuple(spacing)}")
    found = torch.isfinite(fixed_points).all(1) & torch.isfinite(moving_points).all(1)
    points = torch.where(found[:, None], fixed_points, 0.0).to(field.dtype)
    positions = points.T.reshape(1, dims, -1, *(1,) * (dims - 1))
    moved = points + sample(field, positions).reshape(dims, -1).T
    size_mm = torch.tensor(spacing, dtype=field.dtype, device=field.device)
    distance = torch.linalg.vector_norm((moved - moving_points.to(field.dtype)) * size_mm, dim=1)
    return torch.where(found, distance, torch.nan)


def warp_labels(labels: Tensor, displacement: Tensor) -> Tensor:
    """Integer label maps (B, *shape) warped to the fixed image with nearest interpolation, same type."""
    return warp(labels[:, None], displacement, mode="nearest")[:, 0]


def dice_per_label(warped: Tensor, fixed: Tensor, labels: Sequence[int]) -> Tensor:
    """Dice overlap of each label.

    Args:
        warped: moving label maps after warping (`warp_labels`), integers, (B, *shape).
        fixed: label maps of the fixed images, same shape.
        labels: label values to score, background left out unless named.

    Returns:
        Dice (B, len(labels)) in [0, 1]; nan where a label is in neither map, 0 where it is in one only. Average over
        cases with the nan left out of both sum and count.

    Raises:
        ValueError: the shapes differ.
    """
    if warped.shape != fixed.shape:
        raise ValueError(f"warped {tuple(warped.shape)} and fixed {tuple(fixed.shape)} labels must have the same shape")
    scores = []
    for value in labels:
        a, b = (warped == value).flatten(1), (fixed == value).flatten(1)
        scores.append(2 * (a & b).sum(1) / (a.sum(1) + b.sum(1)))  # 0 / 0 is nan: absent in both
    return torch.stack(scores, dim=1)


def _spatial_dims(displacement: Tensor) -> int:
    dims = displacement.ndim - 2
    if dims not in (2, 3) or displacement.shape[1] != dims:
        raise ValueError(f"a displacement field is (B, 2, H, W) or (B, 3, D, H, W), got {tuple(displacement.shape)}")
    return dims


def _mask(mask: Tensor | None, like: Tensor) -> Tensor:
    if mask is None:
        return torch.ones_like(like, dtype=torch.bool)
    return mask.bool().expand(like.shape)
