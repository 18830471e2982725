"""The five terms of BliMSR's generator loss and the discriminator's loss. Dey et al., MIUA 2023, sec. 3.2.

Every function returns one value per image, (B,): a training step adds them and divides by the images of all workers.
All carry a gradient to their first argument; hand them a detached image to have the authors' code, whose gradient and
dissimilarity terms carry none. Sums over pixels are divided by the number of values, also where the printed equations
divide by the number of pixels alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor
from torch.nn import functional as F

Gan = Literal["vanilla", "hinge", "ls"]
_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5


def content_loss(image: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute difference, eq. 2; (B, 1, H, W) each."""
    return (image - reference).abs().mean(dim=(1, 2, 3))


def perceptual_loss(features: Sequence[Tensor], reference: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted mean absolute differences of features, eq. 3.

    Args:
        features: of the image, a tensor (B, C, h, w) for each block.
        reference: likewise.
        weights: of the blocks; a fifth each in the paper.
    """
    blocks = [content_loss(mine, other) for mine, other in zip(features, reference, strict=True)]
    return sum(
        (weight * block for weight, block in zip(weights, blocks, strict=True)), start=torch.zeros_like(blocks[0])
    )


def gradient_loss(image: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute difference of finite differences, averaged over the two axes, eq. 4; (B, 1, H, W) each."""
    rows, columns = (content_loss(image.diff(dim=axis), reference.diff(dim=axis)) for axis in (2, 3))
    return (rows + columns) / 2


def dissimilarity_loss(image: Tensor, reference: Tensor) -> Tensor:
    """(1 - SSIM) / 2, eq. 5, with the product of Wang et al. 2004 where a plus is printed.

    Gaussian windows of 11 pixels and SD 1.5 inside the image, intensities from 0 to 1; (B, 1, H, W) each.
    """
    window, sigma = (_SSIM_WINDOW,) * 2, (_SSIM_SIGMA,) * 2
    ssim, _ = compute_ssim_and_cs(image, reference, 2, kernel_size=window, kernel_sigma=sigma)
    return (1 - ssim.mean(dim=(1, 2, 3))) / 2


def adversarial_loss(fake: Tensor, gan: Gan) -> Tensor:
    """The generator's part of eq. 1, in its non-saturating form -log D(G(LR)), or of a hinge or least-squares GAN.

    Args:
        fake: the discriminator's logits of generated images, (B,).
        gan: which.
    """
    if gan == "vanilla":
        return F.softplus(-fake)
    return -fake if gan == "hinge" else (fake - 1).square()


def discriminator_loss(real: Tensor, fake: Tensor, gan: Gan) -> Tensor:
    """What the discriminator minimizes: eq. 1 negated, or a hinge or least-squares GAN's.

    Args:
        real: logits of high-resolution images, (B,).
        fake: logits of generated images, (B,).
        gan: which.
    """
    if gan == "vanilla":
        return F.softplus(-real) + F.softplus(fake)
    if gan == "hinge":
        return F.relu(1 - real) + F.relu(1 + fake)
    return (real - 1).square() + fake.square()
