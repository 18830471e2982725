"""The report's charts as plain geometry: the template draws it as SVG, a few lines of script add the hover.

Everything is in the units of the SVG's view box, so that a chart prints, needs no script to be seen, and scales.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medray.report.measures import families, number
from medray.report.run_files import as_number

WIDTH, HEIGHT = 480.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 468.0, 10.0, 214.0
MAX_SERIES = 8
MAX_CHARTS = 24
_NOT_METRICS = frozenset({"name", "loop", "step", "epoch", "wall_s", "total_steps"})
_INITIAL_PREFIX = "initial_"
_POINT_BUDGET = 30_000
_LOG_RATIO = 50.0
_SHOW_DOTS_UP_TO = 40
_STRIP_DOTS = 200

Point = tuple[float, float]
_Curves = dict[tuple[str, str], dict[float, float]]  # y by x, by part and metric
_Curve = tuple[str, int, dict[float, float]]  # name, color, y by x


@dataclass(frozen=True)
class Tick:
    """A place on an axis and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """One curve: its name, color (1 to `MAX_SERIES`), SVG path, and its points where few enough to be seen."""

    name: str
    color: int
    path: str
    dots: Sequence[Point]


@dataclass(frozen=True)
class Chart:
    """A line chart.

    Attributes:
        title: what the vertical axis shows, with its unit.
        x_label: what the horizontal axis counts.
        lines: at most `MAX_SERIES`.
        note: averaging or a logarithmic axis, for the caption; may be empty.
        summary: the same in a sentence, for who cannot see it.
        hover: scales and values for the script.
    """

    title: str
    x_label: str
    lines: Sequence[Line]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    note: str
    summary: str
    hover: Mapping[str, Any]


@dataclass(frozen=True)
class Strip:
    """One variant's cases on the axis of a strip chart; color 1 to `MAX_SERIES`, the same in every chart."""

    name: str
    color: int
    y: float
    dots: Sequence[tuple[float, float, str]]
    mean: float | None
    text: str


@dataclass(frozen=True)
class StripChart:
    """Every case as a dot, one line per variant."""

    title: str
    height: float
    strips: Sequence[Strip]
    ticks: Sequence[Tick]
    summary: str


@dataclass(frozen=True)
class IntervalBar:
    """A value with its interval against a threshold. Positions are None for what is not finite."""

    low: float | None
    high: float | None
    value: float | None
    threshold: float | None


@dataclass(frozen=True)
class Scale:
    """Linear or logarithmic map from values to positions."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Position of a value, which must be positive on a logarithmic scale."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        share = ((math.log10(value) if self.log else value) - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 1)


@dataclass(frozen=True)
class _Plan:
    title: str
    unit: str
    x_label: str
    lines: Sequence[_Curve]


def curve_charts(log: Sequence[Mapping[str, Any]]) -> tuple[list[Chart], int]:
    """Charts of all that was logged, losses first and speeds last, and how many more there would have been.

    A metric is one chart with a curve for each part of the run that logged it (train, validation, a stage's name). The
    metrics of a family (the Dice of every organ) share a chart for each part instead.
    """
    curves, axes = _collect(log)
    colors = {part: index % MAX_SERIES + 1 for index, part in enumerate(dict.fromkeys(part for part, _ in curves))}
    plans: list[_Plan] = []
    for family in families(dict.fromkeys(key for _, key in curves)):
        parts = dict.fromkeys(part for part, key in curves if any(key == m.key for _, m in family.members))
        if len(family.members) == 1:
            key = family.members[0][1].key
            named = [(part, colors[part], curves[part, key]) for part in parts]
            x_label = next(axes[part] for part in parts)
            plans += [_Plan(family.label, family.unit, x_label, lines) for lines in _portions(named)]
            continue
        for part in parts:
            members = [(label, m.key) for label, m in family.members if (part, m.key) in curves]
            named = [(label, i % MAX_SERIES + 1, curves[part, key]) for i, (label, key) in enumerate(members)]
            title = f"{family.label}, {part}"
            plans += [_Plan(title, family.unit, axes[part], lines) for lines in _portions(named)]
    plans = [plan for plan in plans if any(math.isfinite(y) for _, _, line in plan.lines for y in line.values())]
    plans.sort(key=_importance)
    num_lines = sum(len(plan.lines) for plan in plans[:MAX_CHARTS])
    limit = min(400, max(60, _POINT_BUDGET // max(num_lines, 1)))
    return [_line_chart(plan, limit) for plan in plans[:MAX_CHARTS]], max(0, len(plans) - MAX_CHARTS)


def strip_chart(title: str, unit: str, variants: Sequence[tuple[str, Mapping[str, float], float]]) -> StripChart | None:
    """Every case of every variant as a dot; None when there is nothing to draw.

    Args:
        title: the metric.
        unit: of the axis.
        variants: name, value per case and overall value of each; those without cases are left out.
    """
    shown = [(i % MAX_SERIES + 1, *variant) for i, variant in enumerate(variants) if variant[1]]
    values = [value for _, _, cases, _ in shown for value in cases.values()]
    if not values:
        return None
    ends = [*values, *(mean for _, _, _, mean in shown if math.isfinite(mean))]
    scale, ticks = _axis(min(ends), max(ends), 110.0, 468.0, log=False, target=5)
    digits = _digits_for(max(values) - min(values))
    strips = []
    for index, (color, name, cases, mean) in enumerate(shown):
        y = 16.0 + 30.0 * index
        dots = [
            (scale(value), round(y + (i % 5 - 2) * 2.4, 1), f"{case}: {number(value, digits)}{_unit(unit)}")
            for i, (case, value) in enumerate(_thin(sorted(cases.items(), key=lambda item: item[1])))
        ]
        text = f"{name}: {number(mean, digits)}{_unit(unit)} overall, n = {len(cases)}"
        strips.append(Strip(name, color, y, dots, scale(mean) if math.isfinite(mean) else None, text))
    summary = f"{title} of every case. " + "; ".join(strip.text for strip in strips) + "."
    return StripChart(title + (f" ({unit})" if unit else ""), 16.0 + 30.0 * len(shown), strips, ticks, summary)


def interval_bar(value: float, threshold: float, interval: tuple[float, float]) -> IntervalBar | None:
    """Positions on a bar of 200 units around value, threshold and interval; None if no two of them are finite."""
    finite = [number for number in (value, threshold, *interval) if math.isfinite(number)]
    if len(finite) < 2:
        return None
    margin = (max(finite) - min(finite)) * 0.1 or abs(finite[0]) * 0.1 or 1.0
    scale = Scale(min(finite) - margin, max(finite) + margin, 4.0, 196.0)
    low, high, at, limit = (
        scale(number) if math.isfinite(number) else None for number in (*interval, value, threshold)
    )
    return IntervalBar(low, high, at, limit)


def ticks_between(low: float, high: float, target: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, about ``target`` of them.

    >>> ticks_between(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    raw = (high - low) / max(target, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def thin_out(points: Sequence[Point], limit: int) -> tuple[list[Point], int]:
    """At most ``limit`` points, each the mean of as many neighbors; NaN only where all of them are.

    Returns:
        The points and how many of the old ones each stands for.
    """
    every = max(1, math.ceil(len(points) / limit))
    if every == 1:
        return list(points), 1
    thinned = []
    for start in range(0, len(points), every):
        group = points[start : start + every]
        finite = [y for _, y in group if math.isfinite(y)]
        thinned.append((sum(x for x, _ in group) / len(group), sum(finite) / len(finite) if finite else math.nan))
    return thinned, every


def _collect(log: Sequence[Mapping[str, Any]]) -> tuple[_Curves, dict[str, str]]:
    """Values by part of the run and metric, and what the horizontal axis of each part counts."""
    loops = dict.fromkeys(record["loop"] for record in log if record.get("loop"))
    curves: _Curves = {}
    axes: dict[str, str] = {}
    counts: dict[str, int] = {}
    for record in log:
        if record.get("name") == "speed":  # for TensorBoard and Prometheus; it would bury the metrics here
            continue
        part = str(record.get("name", "run"))
        if record.get("loop") and len(loops) > 1 and record["loop"] != part:
            part = f"{record['loop']} {part}"
        counts[part] = counts.get(part, 0) + 1
        axis = axes.setdefault(part, next((name for name in ("step", "epoch") if name in record), "record"))
        x = as_number(record.get(axis, counts[part]))
        if x is None or not math.isfinite(x):
            continue
        for key, value in record.items():
            y = as_number(value)
            if key in _NOT_METRICS or y is None:
                continue
            # What a metric was before the method belongs into the metric's own chart, as a curve beside it.
            owner = f"{part} initial" if key.startswith(_INITIAL_PREFIX) else part
            axes.setdefault(owner, axis)
            # A resumed run repeats the steps after its last checkpoint; what it measured last is what counts.
            curves.setdefault((owner, key.removeprefix(_INITIAL_PREFIX)), {})[x] = y
    return curves, axes


def _importance(plan: _Plan) -> int:
    title = plan.title.lower()
    return 0 if "loss" in title else 2 if "per second" in title or "learning rate" in title else 1


def _portions(curves: Sequence[_Curve]) -> list[Sequence[_Curve]]:
    return [curves[start : start + MAX_SERIES] for start in range(0, len(curves), MAX_SERIES)]


def _line_chart(plan: _Plan, limit: int) -> Chart:
    thinned = [(name, color, *thin_out(sorted(points.items()), limit)) for name, color, points in plan.lines]
    every = max(count for _, _, _, count in thinned)
    xs = [x for _, _, points, _ in thinned for x, _ in points]
    ys = [y for _, _, points, _ in thinned for _, y in points if math.isfinite(y)]
    log = min(ys) > 0 and max(ys) / min(ys) > _LOG_RATIO
    x_scale, x_ticks = _axis(min(xs), max(xs), LEFT, RIGHT, log=False, target=5, snug=True)
    y_scale, y_ticks = _axis(min(ys), max(ys), BOTTOM, TOP, log=log, target=5)
    notes = [f"each point is the mean of {every} logged values"] if every > 1 else []
    notes += ["logarithmic axis"] if log else []
    ends = [f"{name} ends at {_last(points)}" for name, _, points, _ in thinned]
    hover = {
        "x": [x_scale.low, x_scale.high, x_scale.start, x_scale.end],
        "y": [y_scale.low, y_scale.high, y_scale.start, y_scale.end],
        "log": log,
        "unit": plan.unit,
        "xLabel": plan.x_label,
        "series": [
            {
                "name": name,
                "color": color,
                "x": [float(f"{x:.9g}") for x, _ in points],
                "y": [float(f"{y:.5g}") if math.isfinite(y) else None for _, y in points],
            }
            for name, color, points, _ in thinned
        ],
    }
    return Chart(
        title=plan.title + (f" ({plan.unit})" if plan.unit else ""),
        x_label=plan.x_label,
        lines=[_line(name, color, points, x_scale, y_scale) for name, color, points, _ in thinned],
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        note="; ".join(notes),
        summary=f"{plan.title} over {plan.x_label}s: " + "; ".join(ends) + ".",
        hover=hover,
    )


def _line(name: str, color: int, points: Sequence[Point], x_scale: Scale, y_scale: Scale) -> Line:
    path, pen_down, alone = [], False, []
    for index, (x, y) in enumerate(points):
        if not math.isfinite(y):
            pen_down = False
            continue
        path.append(f"{'L' if pen_down else 'M'}{x_scale(x):g} {y_scale(y):g}")
        after = points[index + 1][1] if index + 1 < len(points) else math.nan
        if not pen_down and not math.isfinite(after):
            alone.append((x_scale(x), y_scale(y)))  # a point between gaps makes no line
        pen_down = True
    finite = [(x_scale(x), y_scale(y)) for x, y in points if math.isfinite(y)]
    return Line(name, color, "".join(path), finite if len(finite) <= _SHOW_DOTS_UP_TO else alone)


def _axis(
    low: float, high: float, start: float, end: float, *, log: bool, target: int, snug: bool = False
) -> tuple[Scale, list[Tick]]:
    if log:
        bottom, top = low / 1.15, high * 1.15
        first, last = math.floor(math.log10(bottom)), math.ceil(math.log10(top))
        factors, every = ((1, 2, 5), 1) if last - first <= 3 else ((1,), max(1, (last - first) // 5))
        candidates = [factor * 10.0**power for power in range(first, last + 1, every) for factor in factors]
        scale = Scale(bottom, top, start, end, log=True)
        return scale, [Tick(scale(value), _tick_text(value)) for value in candidates if bottom <= value <= top]
    if low == high:
        low, high = low - (abs(low) * 0.05 or 0.5), high + (abs(high) * 0.05 or 0.5)
    elif not snug:
        margin = (high - low) * 0.06
        # Dice, losses, distances: an axis must not run into negatives that the metric cannot take.
        low, high = (max(0.0, low - margin) if low >= 0 else low - margin), high + margin
    scale = Scale(low, high, start, end)
    values = ticks_between(low, high, target)
    return scale, [Tick(scale(value), _tick_text(value)) for value in values]


def _tick_text(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _digits_for(span: float) -> int:
    return min(max(2 - math.floor(math.log10(span)), 0), 5) if span > 0 else 3


def _thin(items: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    # Evenly by rank: the shape of the distribution stays, and so do its ends.
    if len(items) <= _STRIP_DOTS:
        return list(items)
    return [items[round(i * (len(items) - 1) / (_STRIP_DOTS - 1))] for i in range(_STRIP_DOTS)]


def _last(points: Sequence[Point]) -> str:
    finite = [y for _, y in points if math.isfinite(y)]
    return number(finite[-1]) if finite else "no value"


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""
