"""Convolutions and norms of large images in a fraction of the memory: by strips of rows, in place where that goes.

A U-Net of width 32 holds about 3 GB of activations for a tile of 2048 x 2048 px if it runs as it is written. Convolved
strip by strip into one buffer, and normalized and rectified in that buffer, it holds less than half, and gives the same
numbers up to rounding. Only for inference: nothing here can be differentiated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Rows = Callable[[int, int], Tensor]
"""(first, end) to these rows of an image, (1, C, end - first, W)."""

STRIP = 32
"""Rows at a time; what a convolution lays out anew for itself grows with them."""


def rows_of(image: Tensor) -> Rows:
    """The rows of an image that is in memory, (1, C, H, W)."""
    return lambda first, end: image[..., first:end, :]


def rows_upsampled_beside(low: Tensor, high: Tensor) -> Rows:
    """Rows of ``low`` (1, C, H / 2, W / 2) at twice its size (nearest neighbor), then the channels of ``high``."""

    def rows(first: int, end: int) -> Tensor:
        part = low[..., first // 2 : (end + 1) // 2, :]
        doubled = part.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
        begin = first % 2
        return torch.cat([doubled[..., begin : begin + end - first, :], high[..., first:end, :].to(low.dtype)], dim=1)

    return rows


@torch.no_grad()
def convolve_strips(convolution: nn.Conv2d, rows: Rows, out: Tensor) -> Tensor:
    """A 3x3 convolution of stride 1 with zero padding, written to ``out`` (1, C', H, W), which is returned.

    ``rows`` may read from ``out``: a strip's last input row is kept before it is written over.
    """
    height, width = out.shape[-2:]
    above = rows(0, 1).new_zeros(1, convolution.in_channels, 1, width)
    for first in range(0, height, STRIP):
        end = min(first + STRIP, height)
        below = rows(first, min(end + 1, height))
        strip = torch.cat([above, below], dim=-2)
        above = below[..., end - first - 1 : end - first, :].clone()
        if end == height:
            strip = F.pad(strip, (0, 0, 0, 1))
        out[..., first:end, :] = F.conv2d(strip, convolution.weight, convolution.bias, padding=(0, 1))
    return out


@torch.no_grad()
def add_projected(projection: nn.Conv2d, rows: Rows, out: Tensor) -> Tensor:
    """Add a 1x1 convolution to ``out`` (1, C', H, W), which is returned."""
    for first in range(0, out.shape[-2], STRIP):
        end = min(first + STRIP, out.shape[-2])
        out[..., first:end, :] += projection(rows(first, end))
    return out


@torch.no_grad()
def normalize_(image: Tensor, eps: float = 1e-5) -> Tensor:
    """Instance norm of (1, C, H, W) in place."""
    for channel in image[0]:
        variance, mean = torch.var_mean(channel, correction=0)
        channel.sub_(mean).mul_((variance + eps).rsqrt())
    return image
