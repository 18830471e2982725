"""Noise: moments against theory, and what it depends on."""

import pytest
import torch

from medray.systems.super_resolution.noise import GRAY_LEVELS, gaussian_noise, poisson_noise


def test_gaussian_noise_has_the_asked_deviation_and_no_mean():
    images = torch.full((2, 1, 300, 300), 0.5)
    field = gaussian_noise(images, [0.1, 0.02], [1, 2]) - images
    for each, sd in zip(field, (0.1, 0.02), strict=True):
        assert float(each.mean()) == pytest.approx(0, abs=5 * sd / 300)
        assert float(each.std()) == pytest.approx(sd, rel=0.012)  # 5 standard errors: 5 / sqrt(2 * 90000)


@pytest.mark.parametrize("intensity", [0.02, 0.2, 0.9])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_variance_of_poisson_noise_is_proportional_to_the_intensity(intensity, scale):
    images = torch.full((1, 1, 300, 300), intensity)
    field = poisson_noise(images, [scale], [3]) - images
    variance = scale**2 * intensity / GRAY_LEVELS
    assert float(field.mean()) == pytest.approx(0, abs=5 * variance**0.5 / 300)
    assert float(field.var()) == pytest.approx(variance, rel=0.03)


def test_counting_nothing_has_no_noise_and_negative_intensities_count_as_nothing():
    images = torch.tensor([0.0, -0.1]).view(1, 1, 1, 2)
    assert torch.equal(poisson_noise(images, [3.0], [0]), images)


@pytest.mark.parametrize("noise", [gaussian_noise, poisson_noise])
def test_a_field_depends_on_its_seed_alone(noise):
    images = torch.full((3, 1, 20, 20), 0.5)
    together = noise(images, [1.0, 1.0, 1.0], [7, 8, 7])
    assert torch.equal(together[0], together[2])
    assert not torch.equal(together[0], together[1])
    torch.manual_seed(0)
    assert torch.equal(noise(images[:1], [1.0], [8])[0], together[1])
