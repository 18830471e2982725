"""Between images and k-space inside a network, and keeping what was measured.

Images and k-space are real tensors of two channels, real and imaginary part, (B, 2, H, W); masks are (B, 1, H, W) with
1 where a sample was measured. Transforms are orthonormal with zero frequency in the middle, so that both domains have
values of one size; ``raw`` is numpy's convention, zero frequency in the corner and no scale on the way to k-space.
"""

from __future__ import annotations

from typing import Literal

import torch
from monai.networks.blocks.fft_utils_t import fftn_centered_t, ifftn_centered_t
from torch import Tensor

Convention = Literal["centered", "raw"]


def to_kspace(image: Tensor, convention: Convention = "centered") -> Tensor:
    """2D Fourier transform of complex images, (B, 2, H, W) to the same."""
    parts = image.float().movedim(1, -1).contiguous()
    if convention == "centered":
        return fftn_centered_t(parts, 2).movedim(-1, 1)
    return torch.view_as_real(torch.fft.fft2(torch.view_as_complex(parts))).movedim(-1, 1)


def to_image(kspace: Tensor, convention: Convention = "centered") -> Tensor:
    """Inverse of `to_kspace`."""
    parts = kspace.float().movedim(1, -1).contiguous()
    if convention == "centered":
        return ifftn_centered_t(parts, 2).movedim(-1, 1)
    return torch.view_as_real(torch.fft.ifft2(torch.view_as_complex(parts))).movedim(-1, 1)


def mask_in(mask: Tensor, convention: Convention = "centered") -> Tensor:
    """A mask with zero frequency in the middle, laid out as the convention's k-space is."""
    return mask if convention == "centered" else torch.fft.ifftshift(mask, dim=(-2, -1))


def consistent(predicted: Tensor, measured: Tensor, mask: Tensor) -> Tensor:
    """Data consistency: what was measured stays as measured, the rest is as predicted.

    Args:
        predicted: k-space, (B, 2, H, W).
        measured: k-space, same shape; values outside the mask do not count.
        mask: (B, 1, H, W), 1 where measured.
    """
    return torch.where(mask > 0, measured, predicted)


def magnitude(image: Tensor) -> Tensor:
    """(B, 2, H, W) to (B, H, W)."""
    return image.square().sum(dim=1).sqrt()
