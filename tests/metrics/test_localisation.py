"""Whether a map points at the mask: values worked out by hand, and what moves them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from medray.metrics.localisation import hit, hit_by_chance, mass_inside, peak, peak_distance_mm

Array = NDArray[Any]
SHAPE = (5, 6)
HEATS = arrays.arrays(np.float64, SHAPE, elements=st.integers(0, 4).map(float))
MASKS = arrays.arrays(np.bool_, SHAPE).filter(np.any)


def spot(*place: int, shape: tuple[int, ...] = SHAPE, value: float = 1.0) -> Array:
    found = np.zeros(shape)
    found[place] = value
    return found


def test_peak_is_the_largest_pixel() -> None:
    assert peak(spot(1, 4) + 0.5 * spot(3, 3)) == (1, 4)


def test_of_equal_peaks_the_middle_one_counts() -> None:
    heat = np.zeros(SHAPE)
    heat[2, 1:4] = 3.0
    assert peak(heat) == (2, 2)


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_map_without_contrast_has_no_peak_and_misses(value: float) -> None:
    heat = np.full(SHAPE, value)
    assert peak(heat) is None
    assert hit(heat, np.ones(SHAPE)) == 0.0
    assert math.isnan(peak_distance_mm(heat, np.ones(SHAPE), (1, 1)))


def test_hit_counts_the_distance_from_the_mask_in_pixels() -> None:
    mask = spot(2, 2)
    assert hit(spot(2, 2), mask) == 1.0
    assert hit(spot(2, 3), mask) == 0.0
    assert hit(spot(2, 3), mask, tolerance_px=1) == 1.0
    assert hit(spot(3, 3), mask, tolerance_px=1) == 0.0  # sqrt(2) away
    assert hit(spot(3, 3), mask, tolerance_px=1.5) == 1.0


def test_chance_is_the_dilated_masks_share_by_hand() -> None:
    mask = spot(2, 2)
    assert hit_by_chance(mask) == pytest.approx(1 / 30)
    assert hit_by_chance(mask, 1) == pytest.approx(5 / 30)
    assert hit_by_chance(mask, 1.5) == pytest.approx(9 / 30)
    body = np.zeros(SHAPE)
    body[:3, :3] = 1  # holds the pixel, and two of its four neighbors
    assert hit_by_chance(mask, 1, body) == pytest.approx(3 / 9)
    assert math.isnan(hit_by_chance(mask, 1, np.zeros(SHAPE)))


@pytest.mark.parametrize("tolerance", [0, 1, 2.5])
def test_peaks_that_fall_anywhere_hit_as_often_as_chance_says(tolerance: float) -> None:
    mask = np.random.default_rng(4).random(SHAPE) > 0.85
    places = [spot(row, column) for row in range(SHAPE[0]) for column in range(SHAPE[1])]
    rate = np.mean([hit(heat, mask, tolerance) for heat in places])
    assert rate == pytest.approx(hit_by_chance(mask, tolerance))


def test_mass_by_hand() -> None:
    heat = spot(0, 0, value=1.0) + spot(2, 2, value=3.0)
    assert mass_inside(heat, spot(2, 2)) == 0.75
    assert mass_inside(heat, np.ones(SHAPE)) == 1.0
    assert mass_inside(np.zeros(SHAPE), spot(2, 2)) == 0.0


def test_distance_is_in_millimeters_of_each_axis() -> None:
    mask = spot(0, 0, 0, shape=(4, 4, 4)) + spot(3, 0, 3, shape=(4, 4, 4))
    heat = spot(2, 0, 0, shape=(4, 4, 4))
    assert peak_distance_mm(heat, mask, (1.0, 1.0, 1.0)) == 2.0  # along the first axis
    assert peak_distance_mm(heat, mask, (4.0, 1.0, 1.0)) == 5.0  # the other end: 4 along the first, 3 along the last
    assert peak_distance_mm(heat, heat, (4.0, 1.0, 1.0)) == 0.0


def test_an_empty_mask_has_no_answer() -> None:
    empty, heat = np.zeros(SHAPE), spot(1, 1)
    for value in (
        hit(heat, empty),
        hit_by_chance(empty),
        mass_inside(heat, empty),
        peak_distance_mm(heat, empty, (1, 1)),
    ):
        assert math.isnan(value)


@settings(max_examples=50, deadline=None)
@given(HEATS, MASKS, MASKS)
def test_a_larger_mask_or_tolerance_never_makes_it_worse(heat: Array, mask: Array, more: Array) -> None:
    larger = mask | more
    assert hit(heat, mask) <= hit(heat, larger)
    assert hit(heat, mask) <= hit(heat, mask, 1) <= hit(heat, mask, 2)
    assert hit_by_chance(mask) <= hit_by_chance(mask, 1) <= hit_by_chance(larger, 1) <= 1
    assert mass_inside(heat, mask) <= mass_inside(heat, larger) + 1e-12
    if peak(heat) is not None:
        assert peak_distance_mm(heat, mask, (1, 2)) >= peak_distance_mm(heat, larger, (1, 2))
        assert (peak_distance_mm(heat, mask, (1, 2)) == 0) == (hit(heat, mask) == 1)


def test_the_scale_of_the_heat_does_not_matter() -> None:
    heat, mask = np.random.default_rng(5).random(SHAPE), spot(2, 3)
    assert hit(heat, mask, 2) == hit(1000 * heat, mask, 2)
    assert mass_inside(heat, mask) == pytest.approx(mass_inside(1000 * heat, mask))


@pytest.mark.parametrize(
    ("heat", "message"),
    [
        (np.zeros((5, 7)), r"heat \(5, 7\) and mask \(5, 6\)"),
        (np.full(SHAPE, -1.0), "not be negative or nan, its minimum is -1.0"),
        (np.full(SHAPE, np.nan), "its minimum is nan"),
    ],
)
def test_what_is_no_heat_is_refused(heat: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hit(heat, spot(1, 1))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mask \(5, 6\) and inside \(2,\)"):
        hit_by_chance(spot(1, 1), inside=np.ones(2))
    with pytest.raises(ValueError, match=r"spacing \(1,\) needs one number for each axis"):
        peak_distance_mm(spot(1, 1), spot(1, 1), (1,))
