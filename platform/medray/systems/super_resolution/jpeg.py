"""What JPEG loses of a gray image: 8 x 8 cosine transform, quantization, and back.

The entropy coder loses nothing and is left out, so the whole runs in batches on any device. Transforms and quantization
round where libjpeg's do ("islow", its default and Pillow's): coefficients have 3 fractional bits there, so that many
stand on a tie at quantization, which otherwise would fall to either side.
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
    gray = (images.clamp(0, 1) * 255).round().double() - 128  # no autocast and no TF32 shortens float64
    missing = (0, -width % BLOCK, 0, -height % BLOCK)
    blocks = _to_blocks(torch.nn.functional.pad(gray, missing, mode="replicate"))
    steps = quantization_tables(qualities)[:, None, None].double()
    cosines = _cosines(images.device)
    levels = _quantized(_forward(blocks, cosines), steps)
    gray = _from_blocks(_backward(levels * steps, cosines))[:, None, :height, :width]
    return (gray + 128).clamp(0, 255).to(images) / 255


def quantization_tables(qualities: Tensor) -> Tensor:
    """Steps of the 64 coefficients, (B, 8, 8) integers in 1..255, by libjpeg's rule for each quality (B,)."""
    percent = torch.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    table = torch.tensor(_LUMINANCE, device=qualities.device)
    return ((table * percent[:, None, None] + 50) // 100).clamp(1, 255)


def _cosines(device: torch.device) -> Tensor:
    """The DCT-II matrix, (8, 8), times sqrt(8) as in libjpeg: row = frequency, and row 0 is all ones."""
    frequency, position = torch.arange(BLOCK)[:, None], torch.arange(BLOCK)
    rows = torch.cos((2 * position + 1).double() * frequency * math.pi / (2 * BLOCK)) * math.sqrt(2)
    rows[0] = 1
    return rows.to(device)


def _forward(blocks: Tensor, cosines: Tensor) -> Tensor:
    """8 times the coefficients, rounded; 2 fractional bits are kept between rows and columns."""
    rows = _rounded(blocks @ cosines.T * 4)
    return _rounded(cosines @ rows / 4)


def _quantized(eightfold: Tensor, steps: Tensor) -> Tensor:
    """Multiples of the steps that are nearest to the coefficients; ties go away from 0."""
    return eightfold.sign() * torch.floor((eightfold.abs() + 4 * steps) / (8 * steps))


def _backward(coefficients: Tensor, cosines: Tensor) -> Tensor:
    """Gray levels; 2 fractional bits are kept between columns and rows."""
    columns = _rounded(cosines.T @ coefficients * 4)
    return _rounded(columns @ cosines / (4 * BLOCK))


def _rounded(values: Tensor) -> Tensor:
    """To the nearest integer; ties go up."""
    return torch.floor(values + 0.5)


def _to_blocks(images: Tensor) -> Tensor:
    """(B, 1, H, W) as (B, H / 8, W / 8, 8, 8)."""
    return images[:, 0].unflatten(-1, (-1, BLOCK)).unflatten(1, (-1, BLOCK)).transpose(2, 3)


def _from_blocks(blocks: Tensor) -> Tensor:
    return blocks.transpose(2, 3).flatten(3, 4).flatten(1, 2)
