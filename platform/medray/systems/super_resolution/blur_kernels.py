"""Kernels of the degradation model: Gaussian, plateau-shaped, and the circular low-pass (sinc) filter.

All are (size, size) with an odd size, symmetric about their center (so convolution and correlation agree), and sum to
1. They are computed in float64 on the CPU, once per sample, and returned in float32.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.special import j1
from torch import Tensor

_NARROWEST_PX = 1e-3  # a Gaussian of this sigma is a single 1; of sigma 0 it would be 0 / 0


def gaussian_kernel(size: int, sigmas: tuple[float, float], angle: float = 0.0) -> Tensor:
    """A Gaussian with its own width along each of two perpendicular axes; isotropic where both are equal.

    Args:
        size: taps per side, odd.
        sigmas: standard deviations in pixels, along the first axis of the kernel and across it.
        angle: direction of the first axis in radians, from the columns (x) towards the rows (y, downwards).
    """
    return _normalized(torch.exp(-0.5 * _squared_distance(size, sigmas, angle)))


def plateau_kernel(size: int, sigmas: tuple[float, float], angle: float = 0.0, *, beta: float) -> Tensor:
    """1 / (1 + d^2 beta), flat within one sigma and falling the steeper the larger ``beta``.

    The distance d is in sigmas; the arguments are those of `gaussian_kernel`.

    Source: Liu et al., "Estimating generalized Gaussian blur kernels", 2020; Real-ESRGAN, sec. 3.1.
    """
    return _normalized(1.0 / (1.0 + _squared_distance(size, sigmas, angle) ** beta))


def sinc_kernel(size: int, cutoff: float) -> Tensor:
    """The ideal low-pass filter of a circular passband, cut off at ``size`` taps; it rings at edges.

    Args:
        size: taps per side, odd.
        cutoff: radius of the passband in radians per pixel, at most pi.

    Source: Real-ESRGAN, eq. 6: cutoff / (2 pi r) * J1(cutoff r), whose limit at r = 0 is cutoff^2 / (4 pi).
    """
    y, x = _grid(size)
    radius = torch.hypot(x, y).numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        taps = cutoff * j1(cutoff * radius) / (2 * math.pi * radius)
    taps[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return _normalized(torch.from_numpy(taps))


def with_border(kernel: Tensor, size: int) -> Tensor:
    """The kernel in the middle of (size, size) zeros: kernels of one size can be stacked."""
    reach = (size - kernel.shape[-1]) // 2
    return torch.nn.functional.pad(kernel, (reach, reach, reach, reach))


def _grid(size: int) -> tuple[Tensor, Tensor]:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a kernel has an odd number of taps per side, got {size}")
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    return y, x


def _squared_distance(size: int, sigmas: tuple[float, float], angle: float) -> Tensor:
    """Squared distance to the center, in sigmas."""
    y, x = _grid(size)
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    first, second = (max(sigma, _NARROWEST_PX) for sigma in sigmas)
    return (along / first) ** 2 + (across / second) ** 2


def _normalized(taps: Tensor) -> Tensor:
    return (taps / taps.sum()).float()
