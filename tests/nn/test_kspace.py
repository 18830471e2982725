"""Transforms and data consistency: conventions, which are where the errors of reconstruction hide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from medray.data.kspace import from_image, from_kspace
from medray.nn.kspace import consistent, magnitude, mask_in, to_image, to_kspace


def complex_of(parts: torch.Tensor) -> torch.Tensor:
    return torch.complex(parts[:, 0], parts[:, 1])


@pytest.mark.parametrize("shape", [(8, 8), (7, 10)])
@pytest.mark.parametrize("convention", ["centered", "raw"])
def test_the_transforms_undo_each_other(convention: str, shape: tuple[int, int]) -> None:
    image = torch.randn(3, 2, *shape)
    assert_close(to_image(to_kspace(image, convention), convention), image, atol=1e-5, rtol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(8, 8), (7, 10)])
def test_centered_is_numpy_s_shifted_and_orthonormal(shape: tuple[int, int]) -> None:
    image = torch.randn(1, 2, *shape)
    array = complex_of(image)[0].numpy()
    expected = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(array), norm="ortho"))
    np.testing.assert_allclose(complex_of(to_kspace(image))[0].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(from_image(array), expected, atol=1e-5)
    np.testing.assert_allclose(from_kspace(from_image(array)), array, atol=1e-5)
    assert_close(to_kspace(image).square().sum(), image.square().sum())


def test_raw_is_numpy_s_plain_transform() -> None:
    image = torch.randn(1, 2, 6, 8)
    expected = np.fft.fft2(complex_of(image)[0].numpy())
    np.testing.assert_allclose(complex_of(to_kspace(image, "raw"))[0].numpy(), expected, atol=1e-4)


def test_a_constant_image_is_zero_frequency_alone() -> None:
    image = torch.zeros(1, 2, 6, 7)
    image[:, 0] = 1.0
    for convention, place in (("centered", (3, 3)), ("raw", (0, 0))):
        power = magnitude(to_kspace(image, convention))[0]  # type: ignore[arg-type]
        assert np.unravel_index(int(power.argmax()), power.shape) == place
        assert power.sum() == pytest.approx(float(power.max()), rel=1e-4)


@pytest.mark.parametrize("convention", ["centered", "raw"])
def test_a_mask_keeps_the_same_frequencies_in_both_conventions(convention: str) -> None:
    image, mask = torch.randn(2, 2, 8, 9), torch.zeros(2, 1, 8, 9)
    mask[..., 3:6, 3:6] = 1
    low = to_image(to_kspace(image) * mask)
    other = to_image(to_kspace(image, convention) * mask_in(mask, convention), convention)  # type: ignore[arg-type]
    assert_close(magnitude(other).square().sum(), magnitude(low).square().sum(), rtol=1e-4, atol=1e-4)


def test_measured_samples_stay_and_the_others_are_predicted() -> None:
    predicted, measured = torch.full((1, 2, 2, 2), 5.0), torch.full((1, 2, 2, 2), 7.0)
    mask = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[None, None]
    expected = torch.tensor([[7.0, 5.0], [5.0, 7.0]]).expand(1, 2, 2, 2)
    assert_close(consistent(predicted, measured, mask), expected)
