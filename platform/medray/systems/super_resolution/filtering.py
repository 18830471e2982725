"""A batch of images, each filtered with a kernel of its own."""

from __future__ import annotations

import torch
from scipy.fft import next_fast_len
from torch import Tensor


def filter_each(images: Tensor, kernels: Tensor) -> Tensor:
    """Every image convolved with its kernel; beyond the border the image is mirrored without repeating the edge.

    Done by Fourier transform, which for kernels of 21 x 21 px takes an eighth of a direct convolution's time and,
    unlike separable passes, also serves rotated, plateau-shaped and sinc kernels. Exact to about 1e-6 of the range.

    Args:
        images: (B, 1, H, W), floating point.
        kernels: (B, k, k) on the images' device, k odd and at most min(H, W).

    Returns:
        The filtered images, (B, 1, H, W).
    """
    if images.device.type == "cpu" and len(images) > 1:
        # The CPU's FFT of several images may round otherwise than that of one; a result must not depend on its batch.
        return torch.cat([filter_each(*pair) for pair in zip(images.split(1), kernels.split(1), strict=True)])
    taps = kernels.shape[-1]
    reach = taps // 2
    padded = torch.nn.functional.pad(images, (reach,) * 4, mode="reflect")
    # Circular convolution: what wraps around falls into the first `taps - 1` rows and columns, which are cut off.
    size = [next_fast_len(side, real=True) for side in padded.shape[-2:]]
    spectrum = torch.fft.rfft2(padded, s=size) * torch.fft.rfft2(kernels[:, None], s=size)
    (height, width), first = images.shape[-2:], taps - 1
    filtered = torch.fft.irfft2(spectrum, s=size)[..., first : first + height, first : first + width]
    return filtered.contiguous()
