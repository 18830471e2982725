"""Intensity scales by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from medray.data.intensity import normalize_intensity


def test_ct_window_by_hand() -> None:
    hu = np.array([[[-1000.0, -160.0, 40.0, 240.0, 3000.0]]])
    assert_allclose(normalize_intensity(hu, "ct"), [[[-1, -1, 0, 1, 1]]])
    assert_allclose(normalize_intensity(np.array([[[0.0, 50.0]]]), "ct", window=(0.0, 100.0)), [[[-1, 0]]])


def test_percentiles_by_hand() -> None:
    ramp = np.arange(101.0).reshape(1, 101)  # 1st percentile 1, 99th 99
    result = normalize_intensity(ramp)
    assert_allclose(result[0, [0, 1, 50, 99, 100]], [-1, -1, 0, 1, 1], atol=1e-6)
    assert result.dtype == np.float32


def test_channels_are_scaled_separately() -> None:
    ramp = np.arange(101.0)
    both = normalize_intensity(np.stack([ramp, 1000 * ramp + 7]))
    assert_allclose(both[0], both[1], atol=1e-5)


def test_zscore() -> None:
    result = normalize_intensity(np.array([[1.0, 3.0]]), "zscore")
    assert_allclose(result, [[-1, 1]])


def test_unit_by_hand() -> None:
    assert_allclose(normalize_intensity(np.array([[2, 4, 6]]), "unit"), [[0, 0.5, 1]])


@pytest.mark.parametrize("mode", ["percentile", "zscore", "unit"])
def test_a_constant_image_becomes_zero(mode: str) -> None:
    assert_allclose(normalize_intensity(np.full((1, 3, 3), 7), mode), 0.0)  # type: ignore[arg-type]


@given(st.floats(0.1, 100), st.floats(-1000, 1000))
def test_percentile_scale_ignores_gain_and_offset(gain: float, offset: float) -> None:
    image = np.random.default_rng(0).normal(size=(1, 20, 20))
    assert_allclose(normalize_intensity(gain * image + offset), normalize_intensity(image), atol=2e-3)


def test_the_input_is_untouched_and_bad_modes_are_named() -> None:
    image = np.arange(6, dtype=np.float32).reshape(1, 6)
    normalize_intensity(image, "percentile")
    assert_allclose(image[0], np.arange(6))
    with pytest.raises(ValueError, match="intensity mode is one of percentile, ct, zscore, unit, none, got 'mr'"):
        normalize_intensity(image, "mr")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limits must ascend, got 3 and 1"):
        normalize_intensity(image, "ct", window=(3, 1))
