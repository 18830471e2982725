"""Noise of the degradation model, drawn for each image from a seed of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

GRAY_LEVELS = 255.0
"""Counts at intensity 1 where Poisson noise has scale 1."""


def gaussian_noise(images: Tensor, deviations: Sequence[float], seeds: Sequence[int]) -> Tensor:
    """Images (B, 1, H, W) with white Gaussian noise of a standard deviation each.

    The fields are drawn on the CPU, so that they are the same on every device.
    """
    fields = [
        deviation * torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed))
        for deviation, seed in zip(deviations, seeds, strict=True)
    ]
    return images + torch.stack(fields).to(images.device)


def poisson_noise(images: Tensor, scales: Sequence[float], seeds: Sequence[int]) -> Tensor:
    """Images (B, 1, H, W) with the noise of counting, whose variance is scale^2 * intensity / 255.

    The counts have the mean 255 * intensity, as gray levels of an 8-bit image; what they differ from it is scaled and
    added. Intensities below 0 (of a filter that rings) count as 0. Drawn on the images' device: with the same seed
    another kind of device draws other counts of the same distribution.

    Source: Real-ESRGAN, sec. 3.3. Its code takes the number of distinct gray levels in the image, rounded up to a power
    of 2, for our fixed 255; on floating-point images that number has no meaning.
    """
    rates = images.clamp(min=0) * GRAY_LEVELS
    counts = [
        torch.poisson(rate, generator=torch.Generator(images.device).manual_seed(seed))
        for rate, seed in zip(rates, seeds, strict=True)
    ]
    scale = torch.tensor(scales, device=images.device).view(-1, 1, 1, 1)
    return images + scale * (torch.stack(counts) - rates) / GRAY_LEVELS
