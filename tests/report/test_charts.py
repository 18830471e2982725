"""Geometry of the charts, by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medray.report.charts import (
    BOTTOM,
    LEFT,
    MAX_CHARTS,
    RIGHT,
    TOP,
    curve_charts,
    interval_bar,
    strip_chart,
    thin_out,
    ticks_between,
)


def log(values: list[float | None], name: str = "train", **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, "step": step, "wall_s": 1.0, "loss": value, **more} for step, value in enumerate(values)]


def test_curve_spans_the_plot_and_higher_values_are_higher_up() -> None:
    (chart,), more = curve_charts(log([1.0, 2.0, 4.0]))
    points = chart.lines[0].dots
    assert more == 0
    assert [x for x, _ in points] == [LEFT, (LEFT + RIGHT) / 2, RIGHT]
    assert points[0][1] > points[1][1] > points[2][1]
    assert all(TOP <= y <= BOTTOM for _, y in points)
    # 1, 2, 4 with a margin of 6 % of the range: 0.82 to 4.18.
    assert points[1][1] == pytest.approx(BOTTOM - (2 - 0.82) / 3.36 * (BOTTOM - TOP), abs=0.06)


def test_gap_breaks_the_line_and_a_lonely_point_is_a_dot() -> None:
    (chart,), _ = curve_charts(log([1.0, 2.0, None, 3.0, math.nan, 2.0, 2.5]))
    line = chart.lines[0]
    assert line.path.count("M") == 3
    assert chart.hover["series"][0]["y"] == [1.0, 2.0, None, 3.0, None, 2.0, 2.5]


def test_steps_repeated_after_a_resume_count_once_with_their_last_value() -> None:
    (chart,), _ = curve_charts([*log([3.0, 2.0, 1.0]), *log([3.0, 2.0, 0.5, 0.4])[2:]])
    assert chart.hover["series"][0]["x"] == [0, 1, 2, 3]
    assert chart.hover["series"][0]["y"] == [3.0, 2.0, 0.5, 0.4]


def test_wide_ranges_get_a_logarithmic_axis_with_even_decades() -> None:
    (chart,), _ = curve_charts(log([1000.0, 100.0, 10.0, 1.0, 0.1]))
    assert chart.hover["log"]
    assert "logarithmic" in chart.note
    heights = [y for _, y in chart.lines[0].dots]
    steps = [after - before for before, after in pairwise(heights)]
    assert max(steps) - min(steps) < 0.25
    assert not curve_charts(log([1000.0, -1.0]))[0][0].hover["log"]


def test_parts_of_a_run_share_a_chart_and_keep_their_color() -> None:
    lines = [*log([1.0, 0.5]), *log([1.1, 0.6], "validation"), {"name": "validation", "step": 1, "epe_px": 2.0}]
    loss, epe = curve_charts(lines)[0]
    assert [(line.name, line.color) for line in loss.lines] == [("train", 1), ("validation", 2)]
    assert [(line.name, line.color) for line in epe.lines] == [("validation", 2)]
    assert epe.title == "EPE (px)"


def test_what_was_before_the_method_is_a_curve_beside_it_and_bookkeeping_is_none() -> None:
    lines = [{"name": "validation", "step": k, "total_steps": 9, "initial_dice": 0.4, "dice": 0.5} for k in range(3)]
    (chart,) = curve_charts(lines)[0]
    assert [line.name for line in chart.lines] == ["validation initial", "validation"]


def test_losses_come_first_and_speeds_last() -> None:
    charts, _ = curve_charts(
        [{"name": "train", "step": k, "samples_per_second": 5, "auc": 1, "loss": 2} for k in (1, 2)]
    )
    assert [chart.title for chart in charts] == ["Loss", "AUC", "Samples per second"]


def test_loops_of_a_chain_are_told_apart() -> None:
    charts, _ = curve_charts([*log([1.0, 0.5], loop="segment"), *log([2.0, 1.0], loop="classify")])
    assert [line.name for line in charts[0].lines] == ["segment train", "classify train"]


def test_records_without_steps_are_counted() -> None:
    (chart,), _ = curve_charts([{"name": "round", "wall_s": 5.0, "auc": value} for value in (0.5, 0.6)])
    assert chart.x_label == "record"
    assert chart.hover["series"][0]["x"] == [1, 2]


def test_nothing_finite_draws_nothing_and_too_many_are_counted() -> None:
    assert curve_charts(log([math.nan, None])) == ([], 0)
    assert curve_charts([]) == ([], 0)
    many = [{"name": "train", "step": step, **{f"m{k}": 1.0 for k in range(MAX_CHARTS + 5)}} for step in range(3)]
    charts, more = curve_charts(many)
    assert (len(charts), more) == (MAX_CHARTS, 5)


def test_thinning_keeps_the_mean() -> None:
    points = [(float(i), float(i)) for i in range(10)]
    thinned, every = thin_out(points, 5)
    assert every == 2
    assert thinned == [(0.5, 0.5), (2.5, 2.5), (4.5, 4.5), (6.5, 6.5), (8.5, 8.5)]
    assert thin_out([(0.0, math.nan), (1.0, 3.0)], 1)[0] == [(0.5, 3.0)]


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6), target=st.integers(3, 8))
def test_ticks_are_inside_even_and_about_as_many_as_asked(low: float, span: float, target: int) -> None:
    ticks = ticks_between(low, low + span, target)
    assert 1 <= len(ticks) <= target + 2
    assert all(low - 1e-6 * span - 1e-9 <= tick <= low + span * (1 + 1e-6) + 1e-9 for tick in ticks)
    gaps = [after - before for before, after in pairwise(ticks)]
    assert all(gap == pytest.approx(gaps[0], rel=1e-3) for gap in gaps)


def test_strip_has_a_dot_per_case_and_variants_without_cases_keep_their_color_free() -> None:
    chart = strip_chart("Dice", "", [("a", {"p0": 0.5, "p1": 0.7}, 0.6), ("b", {}, math.nan), ("c", {"p0": 0.9}, 0.9)])
    assert chart is not None
    assert [(strip.name, strip.color, len(strip.dots)) for strip in chart.strips] == [("a", 1, 2), ("c", 3, 1)]
    assert chart.strips[0].dots[0][2] == "p0: 0.500"
    left, right = (dot[0] for dot in chart.strips[0].dots)
    assert chart.strips[0].mean == pytest.approx((left + right) / 2, abs=0.11)
    assert strip_chart("Dice", "", [("b", {}, 0.5)]) is None


def test_interval_bar_orders_its_parts() -> None:
    bar = interval_bar(0.5, 0.2, (0.4, 0.7))
    assert bar is not None
    assert bar.threshold is not None
    assert bar.low is not None
    assert bar.value is not None
    assert bar.high is not None
    assert 0 < bar.threshold < bar.low < bar.value < bar.high < 200
    open_bar = interval_bar(0.5, 0.2, (math.nan, math.inf))
    assert open_bar is not None
    assert open_bar.low is None
    assert interval_bar(math.nan, 0.2, (math.nan, math.nan)) is None
