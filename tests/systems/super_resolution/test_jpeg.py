"""JPEG's lossy part against libjpeg, by way of Pillow."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from medray.systems.super_resolution.jpeg import quantization_tables, through_jpeg


def textured(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """8-bit image (1, 1, height, width) with edges, slopes and texture, in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    gray = (
        90 + 60 * np.sin(x / 9) * np.cos(y / 13) + 80 * ((x // 17 + y // 11) % 2) + rng.normal(0, 12, (height, width))
    )
    return torch.from_numpy(gray.clip(0, 255).round() / 255).float()[None, None]


def with_pillow(image: torch.Tensor, quality: int) -> torch.Tensor:
    file = io.BytesIO()
    Image.fromarray((image[0, 0].numpy() * 255).round().astype(np.uint8)).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.asarray(Image.open(file)).astype(np.float32) / 255)[None, None]


@pytest.mark.parametrize("quality", [1, 10, 30, 49, 50, 75, 90, 95, 100])
@pytest.mark.parametrize("size", [(256, 256), (125, 270)])
def test_gray_levels_are_those_of_libjpeg(quality, size):
    image = textured(*size)
    levels = ((through_jpeg(image, torch.tensor([quality])) - with_pillow(image, quality)) * 255).abs().round()
    assert (levels == 0).float().mean() > 0.93
    assert (levels <= 2).float().mean() > 0.985
    assert (
        levels.square().mean() < 0.25
    )  # where it is more, a coefficient took another step: libjpeg's cosines have 13 bits


@pytest.mark.parametrize("quality", [1, 30, 50, 80, 95, 100])
def test_tables_are_those_that_libjpeg_writes_into_its_files(quality):
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(file, "JPEG", quality=quality)
    expected = torch.tensor(Image.open(file).quantization[0]).view(8, 8)
    assert_close(quantization_tables(torch.tensor([quality]))[0], expected)


def test_a_flat_gray_stays_flat_and_becomes_a_multiple_of_one_255th():
    flat = torch.full((1, 1, 10, 10), 0.3333)
    assert_close(through_jpeg(flat, torch.tensor([100])), torch.full((1, 1, 10, 10), 85 / 255))


def test_values_outside_the_range_are_clipped_first():
    ramp = torch.linspace(-0.5, 1.5, 64).expand(1, 1, 64, 64)
    qualities = torch.tensor([60])
    assert torch.equal(through_jpeg(ramp, qualities), through_jpeg(ramp.clamp(0, 1), qualities))


def test_every_image_has_its_own_quality():
    images = torch.cat([textured(40, 40, seed) for seed in range(3)])
    qualities = torch.tensor([20, 60, 95])
    alone = [through_jpeg(images[i : i + 1], qualities[i : i + 1]) for i in range(3)]
    together = through_jpeg(images, qualities)
    assert torch.equal(together, torch.cat(alone))
    errors = (together - images).square().mean((1, 2, 3))
    assert errors[0] > errors[1] > errors[2] > 0
