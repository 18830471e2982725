"""What JPEG loses of a gray image: 8 x 8 cosine transform, quantization, and back.

The entropy coder loses nothing and is left out, so the whole runs in batches on any device. Agrees with libjpeg's
(which Pillow uses) to one gray level nearly everywhere; libjpeg's transform is in integers, so ties round differently.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK = 8

# Source: ITU-T T.81 (JPEG), table K.1, luminance; row = vertical frequency.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def through_jpeg(images: Tensor, qualities: Tensor) -> Tensor:
    """The images as they come back from JPEG files; quantized to 8 bit before and after.

    Args:
        images: (B, 1, H, W); values outside [0, 1] are clipped.
        qualities: (B,), integers in 1..100 as libjpeg counts them.

    Returns:
        (B, 1, H, W), multiples of 1/255 in [0, 1].
    """
    height, width = images.shape[-2:]
    gray = (images.clamp(0, 1) * 255).round() - 128
    missing = (0, -width % BLOCK, 0, -height % BLOCK)
    blocks = _to_blocks(torch.nn.functional.pad(gray, missing, mode="replicate"))
    cosines = _cosines(images)
    steps = quantization_tables(qualities).to(images)[:, None, None]
    coefficients = (cosines @ blocks @ cosines.T / steps).round() * steps
    gray = _from_blocks(cosines.T @ coefficients @ cosines)[:, None, :height, :width]
    return (gray.round() + 128).clamp(0, 255) / 255


def quantization_tables(qualities: Tensor) -> Tensor:
    """Steps of the 64 coefficients, (B, 8, 8) integers in 1..255, by libjpeg's rule for each quality (B,)."""
    percent = torch.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    table = torch.tensor(_LUMINANCE, device=qualities.device)
    return ((table * percent[:, None, None] + 50) // 100).clamp(1, 255)


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal DCT-II matrix, (8, 8): row = frequency."""
    frequency, position = torch.arange(BLOCK)[:, None], torch.arange(BLOCK)
    rows = torch.cos((2 * position + 1).double() * frequency * math.pi / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    rows[0] /= math.sqrt(2)
    return rows.to(like)


def _to_blocks(images: Tensor) -> Tensor:
    """(B, 1, H, W) as (B, H / 8, W / 8, 8, 8)."""
    return images[:, 0].unflatten(-1, (-1, BLOCK)).unflatten(1, (-1, BLOCK)).transpose(2, 3)


def _from_blocks(blocks: Tensor) -> Tensor:
    return blocks.transpose(2, 3).flatten(3, 4).flatten(1, 2)
