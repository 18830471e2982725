"""Algorithm 1 of the paper on a straight line, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.axon import Scene, Trackers, TrackingOptions

HERE = np.array([0])
LINE = np.stack([np.arange(5.0, 56.0), np.full(51, 20.0)], axis=1)
"""From (5, 20) to (55, 20)."""


def _at(start: tuple[float, float], *, heading: tuple[float, float] = (1, 0), **options: Any) -> Trackers:
    trackers = Trackers([Scene(np.zeros((40, 60), np.float32), LINE)], 1, TrackingOptions(**options))
    trackers.place(HERE, [0], np.array([start], float), np.array([heading], float), LINE[-1:])
    return trackers


def _rewards(trackers: Trackers, *moves: tuple[float, float]) -> list[float]:
    return [float(trackers.move(HERE, np.array([move], float)).reward[0]) for move in moves]


@pytest.mark.parametrize(("reward", "expected"), [("mean", 1.0), ("integral", 0.5), ("sum", 100.0)])
def test_two_pixels_along_the_line(reward: str, expected: float) -> None:
    """Full brightness on all 100 points; the integral counts 2 of the 4 px that a step may have."""
    assert _rewards(_at((10, 20), reward=reward), (2, 0)) == pytest.approx([expected])


def test_the_mean_pays_a_step_and_the_integral_a_pixel() -> None:
    assert _rewards(_at((10, 20)), (4, 0), (0.1, 0)) == pytest.approx([1, 1])
    assert _rewards(_at((10, 20), reward="integral"), (4, 0), (0.1, 0)) == pytest.approx([1, 0.025])


def test_beside_the_line_the_gaussian_profile_is_earned() -> None:
    assert _rewards(_at((10, 21)), (3, 0)) == pytest.approx([np.exp(-0.5)], abs=1e-5)
    assert _rewards(_at((10, 25)), (3, 0)) == pytest.approx([0], abs=1e-4)
    assert _rewards(_at((10, 21), centreline_px=0), (3, 0)) == [0]  # a line one pixel wide


def test_on_the_way_to_the_line_the_profile_is_averaged_over_100_points() -> None:
    rows = np.linspace(17, 20, 100)
    profile = np.interp(rows, [17, 18, 19, 20], np.exp(-(np.array([3.0, 2, 1, 0]) ** 2) / 2))
    assert _rewards(_at((20, 17)), (0, 3)) == pytest.approx([profile.mean()], abs=1e-5)


@pytest.mark.parametrize("reward", ["mean", "integral", "sum"])
def test_not_moving_costs_one(reward: str) -> None:
    assert _rewards(_at((10, 20), reward=reward), (0, 0)) == [-1]


def test_a_reversal_turns_the_sign_until_the_next_one() -> None:
    assert _rewards(_at((30, 20)), (2, 0), (-2, 0), (-2, 0), (2, 0), (2, 0)) == pytest.approx([1, -1, -1, 1, 1])


def test_the_first_step_may_be_a_reversal_of_the_initial_direction() -> None:
    assert _rewards(_at((30, 20)), (-2, 0)) == pytest.approx([-1])
    assert _rewards(_at((30, 20), heading=(-1, 0)), (-2, 0)) == pytest.approx([1])
    assert _rewards(_at((30, 20), heading=(np.nan, np.nan)), (-2, 0)) == pytest.approx([1])


def test_a_right_angle_is_no_reversal() -> None:
    along, across = _rewards(_at((30, 20)), (1, 0), (0, 1))
    assert along == pytest.approx(1)
    assert across > 0


def test_a_step_is_cut_to_what_it_may_be() -> None:
    trackers = _at((10, 20))
    outcome = trackers.move(HERE, np.array([[9.0, 0.0]]))
    np.testing.assert_array_equal(outcome.moved, [[4, 0]])
    np.testing.assert_array_equal(trackers.position, [[14, 20]])
