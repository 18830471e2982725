"""Random copies of a labelled pair, for data sets of a few patients. Shared by the registration systems."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medray.nn.bspline import BSplineGrid
from medray.nn.warp import pixel_grid, sample
from medray.systems.registration.pair_reader import ImagePair

ROTATION_DEG = 10.0
SCALE = 0.15
SHIFT = 0.08
"""Fraction of the image's extent."""
BEND_SPACING, BEND = 0.15, 0.02
"""Distance of the random control points and their standard deviation, fractions of the image's extent."""
CONTRAST, GAMMA, NOISE = 0.2, 0.3, 0.03


def augmented(pair: ImagePair, generator: torch.Generator) -> ImagePair:
    """A copy whose two images are rotated, scaled, shifted, bent and re-toned independently, labels along with them.

    Every draw comes from ``generator``. The truth and the landmarks of the pair do not hold any more and are left out.
    """
    moving, moving_label = _moved(pair.moving, pair.moving_label, generator)
    fixed, fixed_label = _moved(pair.fixed, pair.fixed_label, generator)
    none = np.zeros((0, pair.fixed.ndim))
    return replace(
        pair,
        moving=moving,
        fixed=fixed,
        moving_label=moving_label,
        fixed_label=fixed_label,
        moving_landmarks=none,
        fixed_landmarks=none,
        truth=None,
        mask=None,
    )


def _moved(
    image: NDArray[np.float32], label: NDArray[np.int64] | None, generator: torch.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    positions = random_positions(image.shape, generator)
    warped = sample(torch.from_numpy(image)[None, None], positions)[0, 0]
    moved_label = None
    if label is not None:
        moved_label = sample(torch.from_numpy(label)[None, None], positions, mode="nearest")[0, 0].numpy()
    return _toned(warped, generator).numpy(), moved_label


def random_positions(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Where each pixel of the copy looks in the original, (1, D, *shape) pixels: affine about the center, then bent."""
    dims = len(shape)
    extent = torch.tensor([float(n) for n in shape])
    center = ((extent - 1) / 2).view(1, dims, *(1,) * dims)

    def uniform(width: float, size: int) -> Tensor:
        return (torch.rand(size, generator=generator) * 2 - 1) * width

    skew = torch.zeros(dims, dims)
    above = torch.triu_indices(dims, dims, 1)
    skew[above[0], above[1]] = uniform(np.deg2rad(ROTATION_DEG), above.shape[1])
    matrix = torch.linalg.matrix_exp(skew - skew.T) @ torch.diag(1 + uniform(SCALE, dims))
    shift = (uniform(SHIFT, dims) * extent).view(1, dims, *(1,) * dims)
    grid = BSplineGrid(shape, max(2, round(BEND_SPACING * float(extent.min()))))
    bend = torch.randn(1, dims, *grid.knots, generator=generator) * BEND * float(extent.min())
    offset = pixel_grid(shape) - center
    return torch.einsum("ij,bj...->bi...", matrix, offset) + center + shift + grid.dense(bend)


def _toned(image: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma, contrast and noise on an image in about [-1, 1]."""
    gamma, contrast, brightness = (torch.rand(3, generator=generator) * 2 - 1).tolist()
    unit = ((image + 1) / 2).clamp(0, 1) ** float(np.exp(GAMMA * gamma))
    toned = (unit * 2 - 1) * (1 + CONTRAST * contrast) + CONTRAST * brightness
    return toned + NOISE * torch.randn(image.shape, generator=generator)
