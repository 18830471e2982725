"""Kernels: mass, symmetry, moments, passband."""

import math

import pytest
import torch
from torch.testing import assert_close

from medray.systems.super_resolution.blur_kernels import gaussian_kernel, plateau_kernel, sinc_kernel, with_border

KERNELS = {
    "isotropic": gaussian_kernel(15, (2.0, 2.0)),
    "anisotropic": gaussian_kernel(15, (1.0, 2.5), 0.7),
    "plateau": plateau_kernel(21, (2.0, 3.0), -1.2, beta=4.0),
    "sinc": sinc_kernel(21, 2.0),
}


def covariance(kernel: torch.Tensor) -> torch.Tensor:
    """Second moments about the center, (2, 2), in the order x, y."""
    offsets = torch.arange(kernel.shape[0], dtype=torch.float64) - kernel.shape[0] // 2
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    taps = kernel.double()
    return torch.tensor([[(taps * x * x).sum(), (taps * x * y).sum()], [(taps * x * y).sum(), (taps * y * y).sum()]])


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_sums_to_one_and_turns_onto_itself_by_half_a_turn(name):
    kernel = KERNELS[name]
    assert float(kernel.double().sum()) == pytest.approx(1, abs=1e-6)
    assert_close(kernel, kernel.flip(0, 1))


@pytest.mark.parametrize(
    "kernel", [gaussian_kernel(9, (1.5, 1.5)), plateau_kernel(9, (2, 2), beta=3), sinc_kernel(9, 2)]
)
def test_an_isotropic_kernel_has_the_symmetries_of_a_square(kernel):
    assert_close(kernel, kernel.T)
    assert_close(kernel, kernel.flip(0))


def test_a_gaussian_has_its_values_by_hand():
    edge = math.exp(-0.5)  # one pixel away at sigma 1
    row = torch.tensor([edge, 1, edge])
    assert_close(gaussian_kernel(3, (1.0, 1.0)), torch.outer(row, row) / (1 + 2 * edge) ** 2)


def test_direction_of_an_isotropic_gaussian_changes_nothing():
    assert_close(gaussian_kernel(11, (1.3, 1.3), 0.9), gaussian_kernel(11, (1.3, 1.3)))


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, -2.0])
def test_second_moments_of_an_anisotropic_gaussian_are_the_sigmas_along_the_angle(angle):
    first = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    across = torch.tensor([-math.sin(angle), math.cos(angle)], dtype=torch.float64)
    expected = 3.0**2 * torch.outer(first, first) + 1.2**2 * torch.outer(across, across)
    assert_close(covariance(gaussian_kernel(41, (3.0, 1.2), angle)), expected, atol=2e-3, rtol=0)


def test_sigma_zero_is_a_single_one():
    assert_close(gaussian_kernel(5, (0.0, 0.0), 0.3), with_border(torch.ones(1, 1), 5))


def test_a_steep_plateau_is_flat_within_sigma_and_empty_beyond():
    kernel = plateau_kernel(21, (5.0, 5.0), beta=8.0)
    assert float(kernel[10, 13] / kernel[10, 10]) > 0.99
    assert float(kernel[10, 18] / kernel[10, 10]) < 0.01
    assert float(kernel[10, 15] / kernel[10, 10]) == pytest.approx(0.5)  # at one sigma, for any beta


@pytest.mark.parametrize("cutoff", [math.pi / 3, 2.0, 2.6])
def test_sinc_passes_below_its_cutoff_and_stops_above(cutoff):
    response = torch.fft.fft2(with_border(sinc_kernel(21, cutoff), 255)).abs()
    frequency = torch.fft.fftfreq(255, dtype=torch.float64) * 2 * math.pi
    radius = torch.hypot(frequency[:, None], frequency)
    assert float(response[0, 0]) == pytest.approx(1, abs=1e-6)
    assert response[radius < cutoff - 0.4].min() > 0.8
    assert response[(radius > cutoff + 0.4) & (radius < math.pi)].max() < 0.15
    assert response[(radius - cutoff).abs() < 0.01].mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("size", [0, 4])
def test_even_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"odd number of taps per side, got {size}"):
        gaussian_kernel(size, (1.0, 1.0))
