"""How close a reconstructed or translated image is to its reference, by scikit-image under one convention.

The range that errors are put in relation to comes from the reference of each image alone, so that scores do not depend
on what else is in the data set.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

_SSIM_WINDOW = 7


def image_quality(image: NDArray[Any], reference: NDArray[Any]) -> dict[str, float]:
    """Scores of one real image against its reference.

    ``nrmse_percent`` is the root mean squared error over (max - min) of the reference, times 100. ``psnr_db`` and
    ``ssim`` (7 x 7 windows, Wang et al. 2004) take the maximum of the reference as the data range.

    Args:
        image: (H, W), magnitude.
        reference: same shape.

    Returns:
        The three scores by name. psnr_db is infinite for equal images.

    Raises:
        ValueError: the shapes differ, a side is shorter than 7 pixels, or the reference is constant.
    """
    if image.shape != reference.shape or image.ndim != 2 or min(image.shape) < _SSIM_WINDOW:
        raise ValueError(f"image {image.shape} and reference {reference.shape} must be alike, (H, W), at least 7 x 7")
    truth, test = np.asarray(reference, dtype=np.float64), np.asarray(image, dtype=np.float64)
    peak = float(truth.max())
    if peak <= 0 or truth.min() == peak:
        raise ValueError("the reference is constant or nowhere positive; errors cannot be put in relation to it")
    with np.errstate(divide="ignore"):
        return {
            "nrmse_percent": 100 * float(normalized_root_mse(truth, test, normalization="min-max")),
            "psnr_db": float(peak_signal_noise_ratio(truth, test, data_range=peak)),
            "ssim": float(structural_similarity(truth, test, data_range=peak, win_size=_SSIM_WINDOW)),
        }
