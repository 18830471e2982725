"""Filtering by Fourier transform against a direct convolution."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve
from torch.testing import assert_close

from medray.systems.super_resolution.filtering import filter_each


@pytest.mark.parametrize(("height", "width", "taps"), [(32, 32, 21), (13, 40, 7), (7, 9, 7), (21, 21, 21), (4, 5, 1)])
def test_every_image_is_convolved_with_its_own_kernel_and_mirrored_at_the_border(height, width, taps):
    generator = torch.Generator().manual_seed(taps)
    images = torch.rand(3, 1, height, width, generator=generator)
    kernels = torch.rand(3, taps, taps, generator=generator)  # not symmetric: a correlation would differ
    kernels /= kernels.sum((1, 2), keepdim=True)
    pairs = zip(images[:, 0].numpy(), kernels.numpy(), strict=True)
    expected = np.stack([convolve(image, kernel, mode="mirror") for image, kernel in pairs])
    assert_close(filter_each(images, kernels)[:, 0], torch.from_numpy(expected), atol=2e-6, rtol=0)


@pytest.mark.parametrize("side", [16, 32, 50])
def test_the_result_does_not_depend_on_the_batch(side):
    generator = torch.Generator().manual_seed(side)
    images, kernels = torch.rand(5, 1, side, side, generator=generator), torch.rand(5, 9, 9, generator=generator)
    alone = [filter_each(images[i : i + 1], kernels[i : i + 1]) for i in range(5)]
    assert torch.equal(filter_each(images, kernels), torch.cat(alone))
