"""Scores of traces, by values worked out by hand and against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from medray.metrics import tracing
from medray.metrics.tracing import (
    TraceScore,
    covered,
    densified,
    distance_to_line,
    lost_track,
    score_trace,
    score_traces,
    score_union,
    until_end,
    until_length,
)
from medray.metrics.track_entropy import entropy_table

Array = NDArray[np.float64]


def _across(length: int, y: float = 0.0) -> Array:
    """Points 1 px apart along a row."""
    return np.stack([np.arange(length, dtype=float), np.full(length, y)], axis=1)


def test_two_long_steps_cover_what_lies_between() -> None:
    truth = _across(41)
    score = score_trace(np.array([[0.0, 2.0], [10.0, 2.0], [20.0, 2.0]]), truth)
    # within 3 px of (20, 2) are keypoints up to 20 + sqrt(9 - 4) = 22.2
    assert (score.keypoints, score.covered, score.points, score.lost) == (41, 23, 3, 0)
    metrics = score.metrics()
    assert metrics["coverage_pct"] == pytest.approx(100 * 23 / 41)
    assert (metrics["error_px"], metrics["error_sd_px"]) == (2.0, 0.0)


def test_exactly_three_pixels_off_is_covered() -> None:
    assert covered(_across(5), [_across(5, 3.0)]).all()
    assert not covered(_across(5), [_across(5, 3.001)]).any()
    assert not covered(_across(5), []).any()
    assert covered(np.zeros((0, 2)), [_across(5)]).shape == (0,)


def test_error_is_measured_to_the_segment_and_to_the_ends() -> None:
    line = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0]])
    points = np.array([[5.0, 2.0], [-3.0, 4.0], [13.0, 14.0], [9.0, 5.0], [11.0, -1.0]])
    assert distance_to_line(points, line).tolist() == pytest.approx([2.0, 5.0, 5.0, 1.0, math.sqrt(2)])
    assert distance_to_line(points[:1], line[:1]).tolist() == pytest.approx([math.hypot(5, 2)])


def test_mean_and_spread_by_hand() -> None:
    score = score_trace(np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 5.0]]), _across(10))
    metrics = score.metrics()
    assert metrics["error_px"] == pytest.approx(2.0)
    assert metrics["error_sd_px"] == pytest.approx(math.sqrt((4 + 1 + 9) / 3))


def test_periods_of_more_than_five_steps_are_lost() -> None:
    #                        five in a row: not lost    six: lost                   11 exactly is not off
    distance = np.array([0.0, 12, 12, 12, 12, 12, 1.0, 12, 13, 14, 15, 16, 17, 11.0, 12])
    assert np.flatnonzero(lost_track(distance)).tolist() == [7, 8, 9, 10, 11, 12]
    assert lost_track(np.full(6, 12.0)).all()
    assert not lost_track(np.full(5, 12.0)).any()
    assert lost_track(np.zeros(0)).shape == (0,)


def test_lost_periods_are_left_out_of_the_error_but_not_of_the_raw_one() -> None:
    trace = np.concatenate([_across(10, 1.0), _across(10, 20.0)])
    metrics = score_trace(trace, _across(10)).metrics()
    assert (metrics["error_px"], metrics["raw_error_px"], metrics["lost_pct"]) == (1.0, 10.5, 50.0)
    assert (metrics["error_sd_px"], metrics["raw_error_sd_px"]) == (0.0, 9.5)


def test_scores_are_added_by_counts() -> None:
    long, short = _across(91), _across(9)
    both = score_traces([long, _across(9, 8.0)], [long, short])
    assert both == score_trace(long, long) + score_trace(_across(9, 8.0), short)
    metrics = both.metrics()
    assert metrics["coverage_pct"] == 91.0  # and not 50, the mean of the branches
    assert metrics["error_px"] == pytest.approx(0.72)
    assert math.isnan(TraceScore().metrics()["error_px"])


def test_in_a_union_any_trace_covers_and_the_nearest_branch_counts() -> None:
    truths = [_across(10), _across(10, 30.0)]
    score = score_union([_across(10, 29.0), _across(5, 1.0)], np.concatenate(truths), truths)
    # the second reaches to 4 + sqrt(9 - 1) = 6.8
    assert (score.covered, score.points, score.error_sum) == (17, 15, 15.0)


def test_densified_keeps_corners_and_leaves_no_gap() -> None:
    line = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 0.3], [4.0, 5.3]])
    dense = densified(line)
    assert np.hypot(*np.diff(dense, axis=0).T).max() <= 0.5 + 1e-12
    assert all((np.abs(dense - corner).sum(axis=1) < 1e-12).any() for corner in line)
    assert len(dense) == 8 + 1 + 10 + 1
    assert densified(line[:1]).tolist() == [[0, 0]]


def test_many_points_at_once_are_measured_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    line, points = random.uniform(0, 50, (40, 2)), random.uniform(0, 50, (100, 2))
    dense = densified(line, 0.02)
    expected = [np.hypot(*(dense - point).T).min() for point in points]
    np.testing.assert_allclose(distance_to_line(points, line), expected, atol=0.01)
    whole = distance_to_line(points, line)
    monkeypatch.setattr(tracing, "_PAIRS_AT_ONCE", 1000)
    np.testing.assert_array_equal(distance_to_line(points, line), whole)


def test_a_trace_is_cut_where_it_came_closest_to_the_end() -> None:
    trace = np.array([[0.0, 1.0], [4.0, 1.0], [8.0, 1.0], [12.0, 1.0], [16.0, 1.0]])
    assert until_end(trace, np.array([9.0, 0.0])).tolist() == [[0, 1], [4, 1], [8, 1], [9, 1]]
    assert until_end(trace, np.array([8.0, 0.0])).tolist() == [[0, 1], [4, 1], [8, 1]]
    assert until_end(trace, np.array([9.0, 4.0])).tolist() == [[0, 1], [4, 1], [8, 1], [9, 1]]  # exactly 3 px
    assert until_end(trace, np.array([9.0, 4.01])) is trace
    assert until_end(trace, np.array([18.0, 1.0])).tolist() == trace.tolist()  # its own end is the closest place
    assert until_end(trace[:1], np.array([0.0, 1.0])).tolist() == [[0, 1]]


def test_only_the_first_visit_to_the_end_counts() -> None:
    there_and_back = np.array([[0.0, 2.0], [20.0, 2.0], [20.0, 0.0], [0.0, 0.0]])
    assert until_end(there_and_back, np.array([10.0, 0.0])).tolist() == [[0, 2], [10, 2]]


def test_a_branch_that_starts_beside_its_end_is_followed_around() -> None:
    angles = np.radians(np.arange(10, 350, 5))
    ring = 30 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    closed = np.concatenate([ring, ring[:8]])
    cut = until_end(closed, closed[0] - [0.0, 2.0])
    assert len(ring) - 2 <= len(cut) <= len(ring) + 2


def test_a_trace_is_judged_as_far_as_its_branch_is_long() -> None:
    trace = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 9.0], [3.0, 10.0]])
    assert until_length(trace, 10.0).tolist() == trace[:3].tolist()
    assert until_length(trace, 9.9).tolist() == trace[:2].tolist()
    assert until_length(trace, -1).tolist() == trace[:1].tolist()


def test_entropy_on_and_off_track_by_hand() -> None:
    images = {
        "a": (np.array([-4.0, -2.0, -1.0, np.nan]), np.array([0.0, 2.9, 3.0, 9.0])),  # on -3, off -1
        "b": (np.array([-5.0, -2.0]), np.array([1.0, 4.0])),  # on -5, off -2
        "c": (np.array([-1.0]), np.array([1.0])),  # never off: no pair
        "d": (np.array([-3.0, -2.5]), np.array([0.0, 7.0])),
    }
    table = entropy_table(images)
    rows = {row.image: row for row in table.rows}
    assert (rows["a"].on_mean, rows["a"].on_sd, rows["a"].off_mean) == (-3.0, 1.0, -1.0)
    assert (rows["a"].num_on, rows["a"].num_off, rows["c"].num_off) == (2, 1, 0)
    assert math.isnan(rows["c"].off_mean)
    assert (table.num_images, table.difference) == (3, pytest.approx((2 + 3 + 0.5) / 3))
    # t = mean / (sd / sqrt(n)) of 2, 3, 0.5, two-tailed with 2 degrees of freedom
    differences = np.array([2, 3, 0.5])
    t = differences.mean() / (differences.std(ddof=1) / math.sqrt(3))
    assert table.p_images == pytest.approx(2 * stats.t.sf(t, 2))
    assert table.point_difference == pytest.approx((-1 - 2 - 2.5) / 3 - (-4 - 2 - 5 - 1 - 3) / 5)
    # Welch: means -3 and -1.83, variances 2.5 (5 points) and 0.583 (3 points)
    on, off = 2.5 / 5, (1.75 / 3) / 3
    freedom = (on + off) ** 2 / (on**2 / 4 + off**2 / 2)
    assert table.p_points == pytest.approx(2 * stats.t.sf((7 / 6) / math.sqrt(on + off), freedom))


def test_entropy_of_one_image_has_no_test() -> None:
    table = entropy_table({"a": (np.array([-4.0, -1.0]), np.array([0.0, 5.0]))})
    assert table.difference == 3.0
    assert math.isnan(table.p_images)
    assert math.isnan(table.p_points)
    assert math.isnan(entropy_table({}).difference)
