"""What a tracker sees, against SciPy's interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from envs.axon import Scene, Trackers, TrackingOptions
from envs.axon.views import Windows, sample

HERE = np.array([0])
IMAGE = np.random.default_rng(0).random((50, 60)).astype(np.float32)
LINE = np.stack([np.linspace(10.0, 50.0, 60), np.linspace(20.0, 30.0, 60)], axis=1)
NOWHERE = np.full((1, 2), np.nan)


def _at(start: tuple[float, float], *, heading: tuple[float, float] = (1, 0), **options: Any) -> Trackers:
    trackers = Trackers([Scene(IMAGE, LINE)], 1, TrackingOptions(**options))
    trackers.place(HERE, [0], np.array([start]), np.array([heading], float), LINE[-1:])
    return trackers


def _frames(trackers: Trackers) -> NDArray[np.float32]:
    """(4, 3, 11, 11): times; window, wide window and path."""
    return trackers.observe()["views"][0].reshape(4, 3, 11, 11)


def _expected(image: NDArray[Any], centre: tuple[float, float], spacing: float) -> NDArray[np.float64]:
    offsets = spacing * np.arange(-5, 6)
    y, x = np.meshgrid(centre[1] + offsets, centre[0] + offsets, indexing="ij")
    return np.asarray(map_coordinates(image.astype(float), [y, x], order=1, mode="grid-constant", cval=0.0))


@pytest.mark.parametrize("view_scale", [1.0, 1.5])
@pytest.mark.parametrize("centre", [(30.0, 25.0), (30.25, 24.6), (1.3, 2.7), (0.0, 0.0), (59.0, 49.0), (57.9, 3.1)])
def test_windows_are_bilinear_samples_with_zeros_outside(centre: tuple[float, float], view_scale: float) -> None:
    window, wide, _ = _frames(_at(centre, view_scale=view_scale))[-1]
    np.testing.assert_allclose(window, _expected(IMAGE, centre, view_scale), atol=1e-5)
    np.testing.assert_allclose(wide, _expected(IMAGE, centre, 2 * view_scale), atol=1e-5)


def test_the_border_is_zero_beyond_the_image() -> None:
    window = _frames(_at((0.0, 0.0)))[-1, 0]
    assert (window[:5] == 0).all()
    assert (window[:, :5] == 0).all()
    np.testing.assert_array_equal(window[5:, 5:], IMAGE[:6, :6])


def test_the_critic_sees_the_centreline_where_the_actor_sees_the_image() -> None:
    trackers = _at((30.4, 24.8))
    margin = trackers.bank.margin
    guide = trackers.bank.guides[0][margin : margin + 50, margin : margin + 60]
    assert guide.max() > 0.95
    np.testing.assert_allclose(trackers.observe()["centreline"][0, -1], _expected(guide, (30.4, 24.8), 1), atol=1e-5)


def test_the_path_starts_with_a_stub_behind_the_start() -> None:
    path = _frames(_at((30.0, 25.0), heading=(1, 0)))[-1, 2]
    expected = np.zeros((11, 11))
    expected[5, :6] = 1  # 6 px to the left of the middle; the window shows 5
    np.testing.assert_array_equal(path, expected)
    assert _frames(_at((30.0, 25.0), heading=(np.nan, np.nan)))[-1, 2].sum() == 0
    assert _frames(_at((30.0, 25.0), history=False))[-1, 2].sum() == 0


def test_every_pixel_that_was_crossed_is_in_the_path() -> None:
    trackers = _at((30.0, 25.0), heading=(np.nan, np.nan))
    trackers.move(HERE, np.array([[4.0, 0.0]]))
    trackers.move(HERE, np.array([[0.0, 3.0]]))
    expected = np.zeros((11, 11))
    expected[2, 1:6] = 1  # (30..34, 25), seen from (34, 28)
    expected[2:6, 5] = 1  # (34, 25..28)
    np.testing.assert_array_equal(_frames(trackers)[-1, 2], expected)


def test_a_diagonal_leaves_no_hole() -> None:
    trackers = _at((30.0, 25.0), heading=(np.nan, np.nan))
    trackers.move(HERE, np.array([[4.0, 4.0]]))
    assert (np.diag(_frames(trackers)[-1, 2])[1:6] == 1).all()


def test_frames_move_up_and_stay_where_they_were_taken() -> None:
    trackers = _at((30.0, 25.0))
    first = _frames(trackers)
    assert all((first[time] == first[0]).all() for time in range(4))
    trackers.move(HERE, np.array([[3.0, 1.0]]))
    second = _frames(trackers)
    np.testing.assert_array_equal(second[:3], first[1:])
    np.testing.assert_allclose(second[3, 0], _expected(IMAGE, (33.0, 26.0), 1), atol=1e-5)
    trackers.move(HERE, np.array([[-1.5, 2.0]]))
    third = _frames(trackers)
    np.testing.assert_array_equal(third[:3], second[1:])
    assert (third[3] != second[3]).any()


def test_a_single_scale_leaves_the_wide_window_empty() -> None:
    frames = _frames(_at((30.0, 25.0), scales=(1.0,)))
    assert (frames[:, 1] == 0).all()
    assert (frames[:, 0] > 0).any()


def test_the_wide_window_may_be_blurred_and_the_other_is_not() -> None:
    window, wide, _ = _frames(_at((30.25, 24.6), wide_blur=0.5))[-1]
    np.testing.assert_allclose(window, _expected(IMAGE, (30.25, 24.6), 1), atol=1e-5)
    np.testing.assert_allclose(wide, _expected(gaussian_filter(IMAGE, 1.0), (30.25, 24.6), 2), atol=1e-3)


@pytest.mark.parametrize("spacing", [1.0, 2.0, 1.5, 0.5])
def test_many_windows_of_many_images_at_once(spacing: float) -> None:
    rng = np.random.default_rng(1)
    stack = rng.random((3, 50, 60)).astype(np.float32)
    centres, which = rng.uniform(15, 34, (20, 2)), rng.integers(0, 3, 20)
    found = Windows(centres, spacing, 60).cut(stack, which)
    for window, centre, image in zip(found, centres, which, strict=True):
        np.testing.assert_allclose(window, _expected(stack[image], tuple(centre), spacing), atol=1e-5)
    points = rng.uniform(1, 48, (20, 7, 2))
    expected = [
        map_coordinates(stack[image].astype(float), [p[:, 1], p[:, 0]], order=1)
        for p, image in zip(points, which, strict=True)
    ]
    np.testing.assert_allclose(sample(stack, which, points), expected, atol=1e-5)
