"""MIND-SSC: a modality-independent self-similarity descriptor, 6 channels in 2D and 12 in 3D.

Two neighbors of a pixel are compared with each other, not with the pixel itself, so that a noisy center does not spoil
the descriptor. Only squared differences enter: inverting or rescaling the contrast leaves it unchanged.

Source: Heinrich et al., MICCAI 2013 (self-similarity context), after Heinrich et al., Medical Image Analysis 2012.
"""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor


def neighbor_pairs(spatial_dims: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Pairs of unit offsets that are compared: all 6 in 2D, the 12 at distance sqrt(2) in 3D.

    Raises:
        ValueError: ``spatial_dims`` is neither 2 nor 3.
    """
    if spatial_dims not in (2, 3):
        raise ValueError(f"MIND-SSC is defined in 2 and 3 dimensions, got spatial_dims={spatial_dims}")
    offsets = [
        tuple(sign if axis == d else 0 for d in range(spatial_dims)) for axis in range(spatial_dims) for sign in (-1, 1)
    ]
    pairs = list(combinations(offsets, 2))
    if spatial_dims == 3:  # opposite neighbors (distance 2) are left out, as in the published 3D descriptor
        pairs = [(a, b) for a, b in pairs if sum(abs(x - y) for x, y in zip(a, b, strict=True)) == 2 and _bent(a, b)]
    return pairs


def _bent(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """True when two unit offsets lie on different axes."""
    return all(x == 0 or y == 0 for x, y in zip(a, b, strict=True))


def mind_ssc(image: Tensor, *, radius: int = 2, dilation: int = 2) -> Tensor:
    """MIND-SSC descriptor of single-channel images.

    Each channel is ``exp(-(D - min D) / V)``: D the mean squared difference of two patches of ``2 * radius + 1`` pixels
    a side, centered on two neighbors at distance ``dilation``; the minimum and V (the mean) run over the channels of
    one pixel, V kept within 1/1000 to 1000 times its average over the image. Outside the image the border repeats.

    Args:
        image: intensities, (B, 1, H, W) or (B, 1, D, H, W), floating point.
        radius: half width of the compared patches, pixels.
        dilation: distance of the neighbors from the center, pixels.

    Returns:
        Descriptor (B, 6, H, W) or (B, 12, D, H, W), each pixel's largest channel exactly 1; all ones where flat.

    Raises:
        ValueError: not one channel, not 2D or 3D, a negative radius or a dilation below 1.
    """
    dims = image.ndim - 2
    if dims not in (2, 3) or image.shape[1] != 1:
        raise ValueError(f"MIND-SSC needs (B, 1, H, W) or (B, 1, D, H, W), got {tuple(image.shape)}")
    if radius < 0 or dilation < 1:
        raise ValueError(f"MIND-SSC needs radius >= 0 and dilation >= 1, got radius={radius}, dilation={dilation}")
    reach = radius + dilation
    padded = F.pad(image, (reach,) * (2 * dims), mode="replicate")
    pool = F.avg_pool2d if dims == 2 else F.avg_pool3d
    size = [n + 2 * radius for n in image.shape[2:]]

    def shifted(offset: tuple[int, ...]) -> Tensor:
        window = padded
        for axis, (step, n) in enumerate(zip(offset, size, strict=True)):
            window = window.narrow(axis + 2, dilation * (1 + step), n)
        return window

    distance = torch.cat(
        [pool((shifted(a) - shifted(b)).square(), 2 * radius + 1, stride=1) for a, b in neighbor_pairs(dims)], dim=1
    )
    distance = distance - distance.amin(1, keepdim=True)
    variance = distance.mean(1, keepdim=True)
    typical = variance.mean(dim=tuple(range(1, variance.ndim)), keepdim=True)
    variance = torch.minimum(torch.maximum(variance, 1e-3 * typical), 1e3 * typical)
    return torch.exp(-distance / variance.clamp_min(torch.finfo(image.dtype).tiny))
