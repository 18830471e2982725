"""Tracing by a scripted policy: what stops it, and that trackers do not disturb each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from envs.axon import Scene, TrackingOptions
from envs.axon.episodes import Beginning
from envs.axon.traces import Trace
from medray.systems.tracking import tracing
from medray.systems.tracking.axon_tracker import AxonProblem, AxonTrackerConfig
from medray.systems.tracking.stopping import Rules, entropy_limit, stop_of
from medray.systems.tracking.tracing import follow, from_first_ends

LINE = np.stack([np.arange(5.0, 96.0), np.full(91, 20.0)], axis=1)
SCENES = [Scene(np.zeros((40, 100), np.float32), LINE)]
NOWHERE = np.full(2, np.nan)
EAST = np.array([1.0, 0.0])


def _from(x: float, y: float, end: NDArray[np.float64] = NOWHERE) -> Beginning:
    return Beginning(0, np.array([x, y]), EAST, end)


class Script:
    """Answers with the same displacement and entropy, and remembers how many trackers asked."""

    def __init__(self, step: tuple[float, float], entropy: float = -3.0) -> None:
        self.step, self.entropy = step, entropy
        self.asked: list[int] = []

    def __call__(self, problem: Any, actor: Any, obs: Mapping[str, Any]) -> tuple[Any, Any]:
        count = len(obs["views"])
        self.asked.append(count)
        return np.tile(self.step, (count, 1)), np.full(count, self.entropy)


def _follow(
    monkeypatch: pytest.MonkeyPatch,
    script: Script,
    beginnings: list[Beginning],
    rules: Rules | None = None,
    **options: Any,
) -> list[Trace]:
    monkeypatch.setattr(tracing, "act", script)
    problem = AxonProblem(AxonTrackerConfig(channels=(2, 2), hidden=2), SCENES)
    return follow(problem, problem.make_actor(), SCENES, beginnings, TrackingOptions(**options), rules)


def test_a_trace_ends_where_its_end_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    (trace,) = _follow(monkeypatch, Script((4, 0)), from_first_ends(SCENES))
    assert trace.stopped == "end reached"
    np.testing.assert_array_equal(trace.points, [(5 + 4 * k, 20) for k in range(23)])  # 93 is within 3 px of 95
    assert np.isnan(trace.entropy[-1])
    assert (trace.entropy[:-1] == -3).all()


def test_steps_run_out_and_early_ends_of_training_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    (trace,) = _follow(monkeypatch, Script((0, 0.5)), [_from(50, 20)], max_steps=30, lost_px=6, start_noise_px=5)
    assert trace.stopped == "steps"
    np.testing.assert_array_equal(trace.points[-1], (50, 35))


def test_only_those_that_run_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script((4, 0))
    ends = [np.array([x, 20.0]) for x in (70, 50, 90)]
    traces = _follow(monkeypatch, script, [_from(40, 20, end) for end in ends], max_steps=100)
    assert [len(trace.points) - 1 for trace in traces] == [7, 2, 12]
    assert script.asked == [3, 3, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1]


def test_many_go_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    beginnings = [_from(10 + 3 * k, 20, LINE[-1]) for k in range(7)]
    whole = _follow(monkeypatch, Script((2, 0)), beginnings)
    monkeypatch.setattr(tracing, "AT_ONCE", 3)
    for one, other in zip(whole, _follow(monkeypatch, Script((2, 0)), beginnings), strict=True):
        np.testing.assert_array_equal(one.points, other.points)


def test_a_loop_that_starts_beside_its_end_is_left_first(monkeypatch: pytest.MonkeyPatch) -> None:
    (trace,) = _follow(monkeypatch, Script((2, 0)), [_from(50, 20, np.array([51.0, 20.0]))], max_steps=12)
    assert trace.stopped == "steps"


def test_the_border_stops_a_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    (trace,) = _follow(monkeypatch, Script((4, 0)), [_from(60, 20)], Rules(), max_steps=100)
    assert trace.stopped == "left the image"
    np.testing.assert_array_equal(trace.points[-1], (99, 20))
    assert len(trace.points) == 11


def test_an_unsure_policy_stops_a_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    (trace,) = _follow(monkeypatch, Script((1, 0), entropy=-0.5), [_from(50, 20)], Rules(entropy=-1), max_steps=40)
    assert trace.stopped == "entropy"
    assert len(trace.points) == 1


def test_a_trained_actor_answers_alike_alone_and_in_company() -> None:
    torch.manual_seed(0)
    config = AxonTrackerConfig(channels=(4, 4), hidden=8, max_steps=20)
    image = np.random.default_rng(0).random((40, 100)).astype(np.float32)
    scenes = [Scene(image, LINE)]
    problem = AxonProblem(config, scenes)
    actor = problem.make_actor().eval()
    beginnings = [_from(20.0 + 5 * k, 20.3) for k in range(6)]
    together = follow(problem, actor, scenes, beginnings, config.options)
    for beginning, trace in zip(beginnings, together, strict=True):
        (alone,) = follow(problem, actor, scenes, [beginning], config.options)
        np.testing.assert_allclose(alone.points, trace.points, atol=1e-3)


# --- rules on finished paths -----------------------------------------------------------------------------------------

SIZE = (100, 100)


def _walk(*moves: tuple[float, float], start: tuple[float, float] = (50, 50)) -> NDArray[np.float64]:
    return np.concatenate([[start], np.cumsum(moves, axis=0) + start])


def test_doubt_must_last_to_stop() -> None:
    points = _walk(*[(2, 0)] * 9)
    once = np.array([-3, -3, 0, 0, -3, -3, -3, -3, -3.0])
    assert stop_of(points, once, SIZE, Rules(entropy=-1)) is None
    lasting = np.array([-3, -3, -3, -3, 0, 0, 0, -3, -3.0])
    stop = stop_of(points, lasting, SIZE, Rules(entropy=-1))
    assert stop is not None
    assert (stop.last, stop.why) == (4, "entropy")


def test_turning_back_ends_at_the_turn() -> None:
    points = _walk(*[(3, 0)] * 8, *[(-3, 0.1)] * 8)
    stop = stop_of(points, np.full(16, -3.0), SIZE, Rules())
    assert stop is not None
    assert (stop.last, stop.why) == (8, "own path")


def test_crossing_the_own_path_stops_nothing() -> None:
    angles = np.linspace(0, 2 * np.pi, 30)
    loop = np.stack([50 + 15 * np.sin(angles), 65 - 15 * np.cos(angles)], axis=1)
    points = np.concatenate([_walk(*[(3, 0)] * 7, start=(29, 50)), loop[1:-3], _walk(*[(0, -4)] * 8, start=(40, 62))])
    assert stop_of(points, np.full(len(points) - 1, -3.0), SIZE, Rules()) is None


def test_creeping_is_no_return() -> None:
    points = _walk(*[(0.3, 0.05)] * 60)
    assert stop_of(points, np.full(60, -3.0), SIZE, Rules()) is None


def test_following_the_own_path_again_stops_where_it_begins() -> None:
    square = [(4, 0)] * 5 + [(0, 4)] * 5 + [(-4, 0)] * 5 + [(0, -4)] * 5
    points = _walk(*square, *[(4, 0)] * 5)
    stop = stop_of(points, np.full(25, -3.0), SIZE, Rules())
    assert stop is not None
    assert stop.why == "own path"
    assert 19 <= stop.last <= 21


@pytest.mark.parametrize("since", [0, 8, 16])
def test_looking_late_finds_the_same_stop(since: int) -> None:
    points = np.minimum(_walk(*[(3, 0)] * 20), 99)
    stop = stop_of(points, np.full(20, -3.0), SIZE, Rules(), since=since)
    assert stop is not None
    assert (stop.last, stop.why) == (16, "left the image")


def test_the_limit_keeps_what_stayed_on_its_track() -> None:
    line = np.stack([np.arange(0.0, 40.0), np.full(40, 5.0)], axis=1)
    good = [Trace(line, np.append(np.full(39, -3 + 0.01 * k), np.nan), "end reached") for k in range(101)]
    lost = Trace(line + np.array([0, 9]), np.append(np.full(39, 5.0), np.nan), "steps")
    assert entropy_limit([*good, lost], [line] * 102) == pytest.approx(-3 + 0.98)
    assert entropy_limit([lost], [line]) == float("inf")
