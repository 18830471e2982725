"""How close an enlarged image is to the high-resolution one, and whether two methods differ.

Images are real, (H, W), on the scale [0, 1]; unlike in `image_quality` that scale is the data range of every score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Image = NDArray[Any]
_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5
VIF_MIN_PX = 41
"""The shortest side whose fourth scale still holds a window of VIF."""


def _pair(image: Image, reference: Image, min_px: int = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if image.shape != reference.shape or image.ndim != 2 or min(image.shape) < min_px:
        raise ValueError(
            f"image {image.shape} and reference {reference.shape} must be alike, (H, W), at least {min_px} px"
        )
    return np.asarray(image, dtype=np.float64), np.asarray(reference, dtype=np.float64)


def psnr_db(image: Image, reference: Image) -> float:
    """Peak signal-to-noise ratio with peak 1; infinite for equal images.

    Raises:
        ValueError: the shapes differ.
    """
    mine, other = _pair(image, reference)
    error = float(np.mean((mine - other) ** 2))
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def ssim(image: Image, reference: Image) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian windows of 11 pixels and SD 1.5 that lie inside the image.

    Raises:
        ValueError: the shapes differ, or a side is shorter than 11 pixels.
    """
    from skimage.metrics import structural_similarity

    mine, other = _pair(image, reference, _SSIM_WINDOW)
    return float(
        structural_similarity(
            mine, other, data_range=1.0, gaussian_weights=True, sigma=_SSIM_SIGMA, use_sample_covariance=False
        )
    )


def vif(image: Image, reference: Image) -> float:
    """Visual information fidelity in the pixel domain (Sheikh & Bovik 2006), by torchmetrics.

    Its noise has variance 2 on a scale of 0 to 255. 1 for equal images, above 1 where contrast was enhanced, nan where
    the reference is constant.

    Raises:
        ValueError: the shapes differ, or a side is shorter than 41 pixels.
    """
    from torchmetrics.functional.image import visual_information_fidelity

    mine, other = (torch.from_numpy(255 * one)[None, None] for one in _pair(image, reference, VIF_MIN_PX))
    return float(visual_information_fidelity(mine, other))


def perceptual_distance(features: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
    """Squared distance of unit-length features, as LPIPS without its learnt weights (Zhang et al., CVPR 2018).

    Added over channels, averaged over positions and then over blocks, so from 0 to 4. Values depend on the network
    that the features come from.

    Args:
        features: of the images, a tensor (B, C, h, w) for each block.
        reference: likewise.

    Returns:
        (B,).
    """
    blocks = [
        (F.normalize(mine, dim=1) - F.normalize(other, dim=1)).square().sum(dim=1).mean(dim=(1, 2))
        for mine, other in zip(features, reference, strict=True)
    ]
    return torch.stack(blocks).mean(dim=0)


def welch_p(scores: Sequence[float], others: Sequence[float]) -> float:
    """P value of Welch's t-test, two-sided: whether two methods' mean scores differ; nan with less than two scores.

    As in the paper it takes the images of both as independent samples, though they are the same images.
    """
    from scipy.stats import ttest_ind

    return float(ttest_ind(scores, others, equal_var=False).pvalue)
