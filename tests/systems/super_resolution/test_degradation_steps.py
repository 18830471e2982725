"""Single steps."""

import pytest
import torch
from torch.testing import assert_close

from medray.systems.super_resolution.degradation_steps import Resize, Stretch


def test_area_averages_what_falls_into_a_pixel():
    images = torch.arange(16.0).view(1, 1, 4, 4)
    small = Resize.run(images, [Resize((2, 2), "area")])
    assert_close(small, torch.tensor([[2.5, 4.5], [10.5, 12.5]]).view(1, 1, 2, 2))


@pytest.mark.parametrize("mode", ["bicubic", "bilinear", "area"])
@pytest.mark.parametrize("size", [(10, 12), (50, 61)])
def test_resizing_keeps_a_constant_in_both_directions(mode, size):
    resized = Resize.run(torch.full((2, 1, 40, 44), 0.3), [Resize(size, mode)] * 2)
    assert_close(resized, torch.full((2, 1, *size), 0.3))


@pytest.mark.parametrize("mode", ["bicubic", "bilinear", "area"])
def test_shrinking_is_antialiased(mode):
    stripes = torch.tensor([0.0, 1.0]).repeat(32).expand(1, 1, 64, 64)  # finer than the small image can hold
    inside = Resize.run(stripes, [Resize((16, 16), mode)])[..., 3:-3]
    assert_close(inside, torch.full_like(inside, 0.5), atol=0.02, rtol=0)


def test_stretching_takes_each_image_to_its_own_extremes_and_a_constant_one_to_zero():
    images = torch.tensor([[0.2, 0.3, 0.4], [-1.0, 0.0, 3.0], [0.7, 0.7, 0.7]]).view(3, 1, 1, 3)
    expected = torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.25, 1.0], [0.0, 0.0, 0.0]]).view(3, 1, 1, 3)
    assert_close(Stretch.run(images, [Stretch()] * 3), expected)
