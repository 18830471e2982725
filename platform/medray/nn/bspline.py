"""Uniform cubic B-spline control grids, in any dimension, as one small basis matrix per axis.

A grid of control displacements G becomes a dense field U by the separable product U = B_0 G B_1^T (2D) or its
three-axis analogue; the exact adjoint is the product with the transposed matrices. Knot ``i`` of an axis sits on pixel
``i * spacing``. Beyond the first and the last knot the control values are continued linearly, which makes constants
*and* linear ramps exact up to the border (a replicated border would only keep constants).

Shape letters: B batch, C components, ``shape`` the pixels of an image, ``knots`` the control points of a grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def cubic_basis(positions: Tensor, num_knots: int, spacing: float) -> Tensor:
    """Weights with which the knots of one axis contribute at the given positions.

    Args:
        positions: where to evaluate, in pixels, (N,); may lie outside the knots.
        num_knots: knots of the axis, at 0, spacing, ..., (num_knots - 1) * spacing; at least 2.
        spacing: distance of two knots in pixels.

    Returns:
        Matrix (N, num_knots) in float64. Every row sums to 1 and reproduces linear ramps.

    Raises:
        ValueError: fewer than two knots, or a spacing that is not positive.

    Source: the third-order cardinal B-spline, e.g. Unser, IEEE Signal Processing Magazine 1999.
    """
    if num_knots < 2:
        raise ValueError(f"a spline axis needs at least 2 knots, got {num_knots}; use a smaller spacing")
    if not spacing > 0:
        raise ValueError(f"knot spacing must be positive, got {spacing}")
    x = positions.to(torch.float64) / spacing
    cell = x.floor().clamp(-1, num_knots - 1)  # from one cell past either end on, the spline is a straight line
    t = x - cell
    inside = torch.stack(
        [(1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6], dim=1
    )
    # Cell -1 (or the last) already has all-linear control values; the cubic weights hold for t in [0, 1] only,
    # so farther out the same line is written with the two nearest knots.
    linear = torch.stack([torch.zeros_like(t), 1 - t, t, torch.zeros_like(t)], dim=1)
    weights = torch.where(((t < 0) | (t > 1))[:, None], linear, inside)
    basis = torch.zeros(len(x), num_knots, dtype=torch.float64)
    rows = torch.arange(len(x))
    for offset in range(4):
        index = cell.long() + offset - 1
        near = index.clamp(0, num_knots - 1)
        beyond = (index - near).to(
            torch.float64
        )  # 0 inside; -1, -2, ... before the first knot; 1, 2, ... past the last
        toward = torch.where(beyond < 0, near + 1, near - 1).clamp(0, num_knots - 1)
        # Linear continuation: c[near + beyond] = c[near] + |beyond| (c[near] - c[toward]).
        basis.index_put_((rows, near), weights[:, offset] * (1 + beyond.abs()), accumulate=True)
        basis.index_put_((rows, toward), -weights[:, offset] * beyond.abs(), accumulate=True)
    return basis


def _along_axis(matrix: Tensor, values: Tensor, axis: int) -> Tensor:
    """Multiply one spatial axis (0 = first after B and C) of (B, C, ...) by a matrix (N, n)."""
    if axis == values.ndim - 3:
        return values @ matrix.T
    lead = values.shape[: axis + 2]
    rest = values.shape[axis + 3 :]
    return (matrix @ values.reshape(*lead, values.shape[axis + 2], -1)).reshape(*lead, matrix.shape[0], *rest)


class BSplineGrid:
    """A control grid over an image, and the linear maps between its knots and the pixels.

    Args:
        shape: pixels of the image per axis, any number of axes.
        spacing: knot distance in pixels, one for all axes or one per axis.
        stride: evaluate at the centers of ``stride``-wide cells (the pixels of an average-pooled image) instead of at
            every pixel. Knots and displacement units stay those of the full image.
        dtype: floating-point type of the basis matrices.
        device: where the matrices live.

    Raises:
        ValueError: an empty axis, a spacing that is not positive, a stride larger than the image.
    """

    def __init__(
        self,
        shape: Sequence[int],
        spacing: float | Sequence[float],
        *,
        stride: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.stride = int(stride)
        self.spacing = (
            tuple(float(s) for s in spacing) if isinstance(spacing, Sequence) else (float(spacing),) * len(self.shape)
        )
        if len(self.spacing) != len(self.shape):
            raise ValueError(f"spacing {self.spacing} needs one number per axis of shape {self.shape}")
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"shape must have positive axes, got {self.shape}")
        if not min(self.spacing) > 0:
            raise ValueError(f"knot spacing must be positive, got {self.spacing}")
        if not 1 <= self.stride <= min(self.shape):
            raise ValueError(f"stride {self.stride} must lie between 1 and the smallest axis of {self.shape}")
        self.knots = tuple(math.ceil(n / s) + 1 for n, s in zip(self.shape, self.spacing, strict=True))
        self.dense_shape = tuple(n // self.stride for n in self.shape)
        self.basis: list[Tensor] = []
        self._mean: list[Tensor] = []  # transposed basis with rows that sum to 1 (0 where a knot reaches no pixel)
        for n, knots, s in zip(self.dense_shape, self.knots, self.spacing, strict=True):
            centers = torch.arange(n, dtype=torch.float64) * self.stride + (self.stride - 1) / 2
            basis = cubic_basis(centers, knots, s)
            column_sums = basis.sum(0)
            mean = basis.T / torch.where(column_sums > 1e-9, column_sums, torch.ones_like(column_sums))[:, None]
            self.basis.append(basis.to(device, dtype))
            self._mean.append(mean.to(device, dtype))

    def dense(self, control: Tensor) -> Tensor:
        """Interpolate control values (B, C, *knots) at the pixels: (B, C, *dense_shape), same unit."""
        self._check(control, self.knots, "control values")
        for axis, basis in enumerate(self.basis):
            control = _along_axis(basis, control, axis)
        return control

    def adjoint(self, dense: Tensor) -> Tensor:
        """Exact transpose of `dense`: pixels (B, C, *dense_shape) to knots (B, C, *knots), a weighted sum."""
        self._check(dense, self.dense_shape, "dense values")
        for axis in reversed(range(len(self.basis))):
            dense = _along_axis(self.basis[axis].T, dense, axis)
        return dense

    def adjoint_mean(self, dense: Tensor) -> Tensor:
        """`adjoint` divided by the column sums: a local weighted *mean* per knot, so pixels stay pixels."""
        self._check(dense, self.dense_shape, "dense values")
        for axis in reversed(range(len(self._mean))):
            dense = _along_axis(self._mean[axis], dense, axis)
        return dense

    def _check(self, values: Tensor, spatial: tuple[int, ...], what: str) -> None:
        if values.ndim != len(spatial) + 2 or tuple(values.shape[2:]) != spatial:
            raise ValueError(
                f"{what} must have shape (B, C, {', '.join(map(str, spatial))}), got {tuple(values.shape)}"
            )


def refine(control: Tensor, coarse: BSplineGrid, fine: BSplineGrid) -> Tensor:
    """Start values for a finer grid: the fine spline that passes through the coarse one at every fine knot.

    The coarse spline is sampled at the fine knots and the samples are turned into control values by the inverse of the
    cubic interpolation matrix (the spline "prefilter"). Constants and linear fields are carried over exactly; where the
    knots nest (20 to 10 px) the whole field is, except next to a far border on which the two grids end differently.

    Args:
        control: values of the coarse grid, (B, C, *coarse.knots).
        coarse: grid of ``control``.
        fine: grid to initialize, over an image of the same shape.

    Returns:
        Control values (B, C, *fine.knots), same unit.

    Raises:
        ValueError: the two grids cover images of different shape.
    """
    if coarse.shape != fine.shape:
        raise ValueError(f"grids cover different images, {coarse.shape} and {fine.shape}; build both from one shape")
    coarse._check(control, coarse.knots, "control values")
    for axis in range(len(fine.knots)):
        knots = torch.arange(fine.knots[axis], dtype=torch.float64) * fine.spacing[axis]
        sample = cubic_basis(knots, coarse.knots[axis], coarse.spacing[axis])
        interpolate = cubic_basis(knots, fine.knots[axis], fine.spacing[axis])
        upscale = torch.linalg.solve(interpolate, sample)
        control = _along_axis(upscale.to(control.device, control.dtype), control, axis)
    return control
