"""Cheapest paths and ridge following: drawn curves to a fraction of a pixel, why a trace stops, real vessels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from envs.axon.centrelines import read_centrelines
from envs.axon.pictures import read_picture
from envs.axon.polyline import heading_of
from envs.axon.preparation import prepare
from medray.classical.minimal_path import minimal_paths, path_cost
from medray.classical.ridge_following import FollowOptions, follow_ridges, to_middle
from medray.metrics.tracing import (
    TraceScore,
    distance_to_line,
    score_trace,
    score_traces,
    until_end,
    until_length,
)

Array = NDArray[np.float64]
SHAPE = (150, 180)


def _drawn(*curves: Array, noise: float = 0.05) -> Array:
    """Curves (n, 2) of x and y as ridges 0.6 high and 1.5 px wide on 0.1."""
    rows, columns = np.indices(SHAPE)
    gap = cKDTree(np.concatenate(curves)).query(np.stack([columns.ravel(), rows.ravel()], axis=1))[0].reshape(SHAPE)
    return 0.1 + 0.6 * np.exp(-(gap**2) / (2 * 1.5**2)) + np.random.default_rng(0).normal(0, noise, SHAPE)


def _wave(y: float = 75.0, first: float = 20.0, last: float = 160.0) -> Array:
    x = np.linspace(first, last, 2000)
    return np.stack([x, y + 15 * np.sin(x / 16)], axis=1)


def test_a_path_runs_along_the_middle_from_point_to_point() -> None:
    curve = _wave()
    forth, back = minimal_paths(_drawn(curve), curve[[0, -1]], curve[[-1, 0]])
    for path, first, last in ((forth, curve[0], curve[-1]), (back, curve[-1], curve[0])):
        np.testing.assert_array_equal(path[[0, -1]], [first, last])
        assert distance_to_line(path, curve).mean() < 0.3
        assert np.hypot(*np.diff(path, axis=0).T).max() < 3
        assert score_trace(path, curve[::15]).metrics()["coverage_pct"] == 100


def test_a_path_prefers_the_long_way_on_a_ridge_to_the_short_one_off_it() -> None:
    angle = np.linspace(0.2, 2 * np.pi - 0.2, 2000)
    ring = np.array([90.0, 75.0]) + 30 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    (path,) = minimal_paths(_drawn(ring, noise=0.02), ring[:1], ring[-1:])  # 12 px apart, 177 px around
    assert len(path) < 30  # a gap of 12 px is crossed
    (path,) = minimal_paths(_drawn(ring, noise=0.02), ring[:1], ring[[1000]])
    assert distance_to_line(path, ring).max() < 1.5


def test_cost_is_least_on_ridges_and_bounded() -> None:
    curve = _wave()
    cost = path_cost(_drawn(curve, noise=0.01))
    on = cost[np.rint(curve[:, 1]).astype(int), np.rint(curve[:, 0]).astype(int)]
    assert on.max() < 1.5
    assert cost.min() == pytest.approx(1 / 1.05, rel=1e-5)
    assert np.median(cost) > 5
    assert cost.max() <= 20


def test_points_outside_and_unpaired_ones_are_named() -> None:
    image = _drawn(_wave())
    inside, outside = np.array([[5.0, 5.0]]), np.array([[180.0, 5.0]])
    with pytest.raises(ValueError, match=r"point 1 at x=180, y=5 px is outside the image of 180 x 150 px"):
        minimal_paths(image, inside, outside)
    with pytest.raises(ValueError, match="1 starts and 2 ends"):
        minimal_paths(image, inside, np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"start point 2 at x=180, y=5 px is outside the image of 180 x 150 px"):
        follow_ridges(image, np.concatenate([inside, outside]), np.array([[1.0, 0], [1, 0]]))
    with pytest.raises(ValueError, match="a heading, a vector"):
        follow_ridges(image, inside, np.array([[1.0, 1.0]]))


def test_a_ridge_is_followed_to_its_end_and_traces_do_not_depend_on_each_other() -> None:
    curves = [_wave(50), _wave(110, 160, 20)]
    starts, headings = np.array([c[0] for c in curves]), np.array([heading_of(c) for c in curves])
    image = _drawn(*curves, noise=0.02)
    both = follow_ridges(image, starts, headings)
    for number, (trace, curve) in enumerate(zip(both, curves, strict=True)):
        assert trace.stopped == "ridge lost"
        assert distance_to_line(trace.points, curve).mean() < 0.4
        assert np.hypot(*(trace.points - curve[-1]).T).min() < 4
        assert trace.points[0].tolist() == starts[number].tolist()
        assert np.isnan(trace.entropy).all()
        (alone,) = follow_ridges(image, starts[number][None], headings[number][None])
        np.testing.assert_allclose(alone.points, trace.points, atol=1e-9)


def test_a_trace_crosses_another_structure_and_a_gap() -> None:
    x = np.linspace(20, 160, 2000)
    curve = np.stack([x, 75 + 8 * np.sin(x / 25)], axis=1)
    bar = curve[1000] + np.linspace(-40, 40, 500)[:, None] * np.array([[0.3, 0.95]])
    image = _drawn(curve, bar, noise=0.02)
    image[:, 45:51] = 0.1  # nothing for 6 px
    (trace,) = follow_ridges(image, curve[:1], heading_of(curve)[None])
    score = score_trace(until_end(trace.points, curve[-1]), curve[::15])
    assert score.metrics()["coverage_pct"] > 97


def test_why_a_trace_stops() -> None:
    line = np.stack([np.linspace(0, 179, 2000), np.full(2000, 70.0)], axis=1)
    image, start, heading = _drawn(line, noise=0.01), np.array([[60.0, 70.0]]), np.array([[1.0, 0.0]])
    (left,) = follow_ridges(image, start, heading)
    assert left.stopped == "left the image"
    assert 174 < left.points[-1, 0] <= 179.5
    (short,) = follow_ridges(image, start, heading, FollowOptions(max_length_px=30.0))
    assert (short.stopped, len(short.points)) == ("length", 11)
    (lost,) = follow_ridges(image, np.array([[60.0, 20.0]]), heading)
    assert lost.stopped == "ridge lost"
    assert len(lost.points) < 10
    with pytest.raises(ValueError, match="step_px must be above 0"):
        FollowOptions(step_px=0)


def test_the_middle_of_a_ridge_is_found_below_a_pixel() -> None:
    rows = np.arange(40.0)[:, None] + np.zeros((1, 60))
    strength = np.exp(-((rows - 20.3) ** 2) / 4)
    points = np.array([[30.0, 19.5], [30.0, 20.3], [30.0, 21.0]])
    shift = to_middle(strength, points, np.tile([1.0, 0.0], (3, 1)), 2.5)
    np.testing.assert_allclose(points[:, 1] + shift, 20.3, atol=0.25)
    assert abs(shift[1]) < 0.05
    backwards = to_middle(strength, points, np.tile([-1.0, 0.0], (3, 1)), 2.5)
    np.testing.assert_allclose(backwards, -shift, atol=1e-9)


@pytest.mark.real_data
def test_vessels_are_traced_as_well_as_the_benchmark_says(real_data: Path) -> None:
    """Bounds a little below what tests/benchmarks/bench_tracing.py measured on all 1294 branches: 95 % / 0.92 px for
    paths between given ends, 93 % / 1.4 px for ridge following."""
    folder = real_data / "retina_drive"
    if not folder.is_dir():
        pytest.skip(f"{real_data} has no retina_drive")
    paths, ridges = TraceScore(), TraceScore()
    for name in ("drive_02", "drive_04", "drive_10"):
        image = prepare(read_picture(folder / "images" / f"{name}.png"), intensity="local")
        branches = read_centrelines(folder / "centrelines" / f"{name}.json").branches
        starts, ends = (np.array([getattr(branch, which) for branch in branches]) for which in ("start", "end"))
        truths = [branch.points for branch in branches]
        paths += score_traces(minimal_paths(image, starts, ends), truths)
        traces = follow_ridges(image, starts, np.array([branch.heading for branch in branches]))
        cut = [
            until_length(until_end(trace.points, branch.end), branch.length_px + 3)
            for trace, branch in zip(traces, branches, strict=True)
        ]
        ridges += score_traces(cut, truths)
    assert paths.metrics()["coverage_pct"] > 91
    assert paths.metrics()["raw_error_px"] < 1.8
    assert ridges.metrics()["coverage_pct"] > 88
    assert ridges.metrics()["error_px"] < 1.0
