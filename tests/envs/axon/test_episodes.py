"""How episodes begin and end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.axon import Scene, Trackers, TrackingOptions
from envs.axon.episodes import begin, ends_of
from envs.axon.trackers import Outcome

HERE = np.array([0])
LINE = np.stack([np.arange(5.0, 56.0), np.full(51, 20.0)], axis=1)
SCENE = Scene(np.zeros((40, 60), np.float32), LINE, "straight")


def _at(start: tuple[float, float], **options: Any) -> Trackers:
    trackers = Trackers([SCENE], 1, TrackingOptions(**options))
    trackers.place(HERE, [0], np.array([start]), np.array([[1.0, 0.0]]), LINE[-1:])
    return trackers


def _move(trackers: Trackers, x: float, y: float) -> Outcome:
    return trackers.move(HERE, np.array([[x, y]]))


def test_the_end_is_reached_from_three_pixels() -> None:
    trackers = _at((49.0, 20.0))
    assert not _move(trackers, 2.9, 0).terminated
    outcome = _move(trackers, 0.1, 0)
    assert outcome.terminated
    assert not outcome.truncated


def test_a_tracker_is_lost_where_that_ends_an_episode() -> None:
    trackers = _at((20.0, 20.0), lost_px=6.0)
    first, second = _move(trackers, 0, 4), _move(trackers, 0, 4)
    assert (bool(first.terminated[0]), bool(second.terminated[0])) == (False, True)
    assert second.distance == pytest.approx([8.0], abs=0.05)
    wandering = _at((20.0, 20.0))
    assert not any(_move(wandering, 0, 4).terminated[0] for _ in range(4))


def test_steps_run_out() -> None:
    trackers = _at((10.0, 20.0), max_steps=3)
    told = [_move(trackers, 1, 0) for _ in range(3)]
    assert [bool(one.truncated[0]) for one in told] == [False, False, True]
    assert not any(one.terminated[0] for one in told)


def test_the_last_step_may_reach_the_end() -> None:
    outcome = _move(_at((50.0, 20.0), max_steps=1), 3, 0)
    assert outcome.terminated
    assert not outcome.truncated


def test_the_border_holds_a_tracker_back() -> None:
    trackers = _at((2.0, 1.0))
    outcome = _move(trackers, -4, -4)
    np.testing.assert_array_equal(trackers.position, [[0, 0]])
    np.testing.assert_array_equal(outcome.moved, [[-2, -1]])
    assert _move(trackers, -4, -4).reward == [-1]  # it has not moved


def test_episodes_start_at_either_end() -> None:
    rng = np.random.default_rng(0)
    starts = [tuple(begin(rng, [SCENE], TrackingOptions()).start) for _ in range(30)]
    assert set(starts) == {(5, 20), (55, 20)}
    assert {tuple(begin(rng, [SCENE], TrackingOptions(either_end=False)).start) for _ in range(9)} == {(5, 20)}


def test_headings_point_along_the_first_five_pixels() -> None:
    bent = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0], [3.0, 20.0]])
    start, heading, end = ends_of(Scene(np.zeros((40, 60), np.float32), bent))
    np.testing.assert_array_equal(start, (0, 0))
    np.testing.assert_array_equal(end, (3, 20))
    np.testing.assert_allclose(heading, np.array((3, 2)) / np.sqrt(13))  # 5 px of arc lead to (3, 2)
    np.testing.assert_allclose(ends_of(SCENE, backwards=True)[1], (-1, 0))


def test_errors_of_start_and_heading_have_their_size() -> None:
    rng = np.random.default_rng(0)
    options = TrackingOptions(start_noise_px=1.5, heading_noise_deg=20, either_end=False)
    drawn = [begin(rng, [SCENE], options) for _ in range(400)]
    assert np.std([one.start[1] for one in drawn]) == pytest.approx(1.5, rel=0.15)
    angles = np.rad2deg([np.arctan2(one.heading[1], one.heading[0]) for one in drawn])
    assert np.std(angles) == pytest.approx(20, rel=0.15)
    assert np.allclose([np.linalg.norm(one.heading) for one in drawn], 1)


def test_a_start_outside_names_point_and_image() -> None:
    with pytest.raises(ValueError, match=r"x=61, y=20 is outside its 60 x 40 px image"):
        _at((61.0, 20.0))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"max_step_px": 0}, "max_step_px must be more than 0"),
        ({"lost_px": 13}, r"0 \(never\) to 12"),
        ({"scales": (1.0, 2.0, 4.0)}, "one or two sample spacings"),
    ],
)
def test_rules_that_cannot_be_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TrackingOptions(**wrong)
