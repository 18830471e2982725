"""Ridges of an image by the eigenvalues of its Hessian: how strong, and which way they run.

The strength is Sato's for 2D lines (Sato et al., Medical Image Analysis 1998), as `skimage.filters.sato` computes it:
the largest -lambda_min over the scales, derivatives of Gaussians scaled by sigma^2, 0 where no ridge is. The direction
is the eigenvector of the other eigenvalue, which scikit-image does not give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatImage = NDArray[np.float32]
SIGMAS_PX = (1.0, 2.0, 3.0)
"""Scales that fit structures 2 to 8 px wide; a line of Gaussian profile answers most at its own width."""


@dataclass(frozen=True)
class Ridges:
    """Bright ridges at the scale where they are strongest.

    Attributes:
        strength: (H, W), 0 or more, in the image's unit.
        direction: (2, H, W) unit vectors (x, y) along the ridge; their sign means nothing.
    """

    strength: FloatImage
    direction: FloatImage


def hessian(image: NDArray[Any], sigma: float) -> tuple[FloatImage, FloatImage, FloatImage]:
    """Second derivatives xx, xy and yy of an image (H, W) smoothed by a Gaussian, times sigma^2; mirrored at edges."""
    smooth = np.asarray(image, dtype=np.float32)

    def derived(order: tuple[int, int]) -> FloatImage:
        return np.asarray(ndimage.gaussian_filter(smooth, sigma, order=order, mode="reflect") * sigma**2)

    return derived((0, 2)), derived((1, 1)), derived((2, 0))


def find_ridges(image: NDArray[Any], sigmas: Sequence[float] = SIGMAS_PX) -> Ridges:
    """Bright ridges of an image (H, W); those of its negative are the dark ones.

    Args:
        image: any scale.
        sigmas: px; the strongest of them counts at each pixel.
    """
    strength = np.zeros(image.shape, dtype=np.float32)
    angle = np.zeros(image.shape, dtype=np.float32)
    for sigma in sigmas:
        xx, xy, yy = hessian(image, sigma)
        half_gap = np.hypot((xx - yy) / 2, xy)
        response = half_gap - (xx + yy) / 2  # -lambda_min
        stronger = response > strength
        strength[stronger] = response[stronger]
        angle[stronger] = (0.5 * np.arctan2(2 * xy, xx - yy))[stronger]  # of the eigenvector of lambda_max
    return Ridges(strength, np.stack([np.cos(angle), np.sin(angle)]))
