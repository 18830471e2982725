"""Parallel coordinates as plain geometry: the template draws it as SVG, the script adds brushing and hover."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medray.report.charts import Scale, Tick, ticks_between
from tuning.records import TrialRecord
from tuning.report import axes
from tuning.report.results import Results, shown
from tuning.space import Choice, Dimension

HEIGHT, TOP, BOTTOM = 400.0, 64.0, 376.0
_MARGIN, _GAP, _MIN_WIDTH = 80.0, 150.0, 1180.0
_FAN = 9.0
"""Lines through the same choice leave its place by up to this much, so that they can be told apart."""


@dataclass(frozen=True)
class Axis:
    """A searched field or an objective, as a vertical axis at ``x``."""

    name: str
    x: float
    ticks: Sequence[Tick]
    objective: bool


@dataclass(frozen=True)
class Run:
    """A trial's line.

    Attributes:
        number: of the trial.
        path: of SVG.
        ys: where it crosses each axis.
        share: 1 for the best trial, 0 for the worst.
    """

    number: int
    path: str
    ys: Sequence[float]
    share: float


@dataclass(frozen=True)
class Parallel:
    """The whole chart, in the units of its view box."""

    width: float
    axes: Sequence[Axis]
    runs: Sequence[Run]


def parallel_coordinates(results: Results) -> Parallel | None:
    """Every finished trial as a line over its settings and objectives; None where there is none."""
    names = {dimension.name for dimension in results.record.dimensions}
    trials = [trial for trial in reversed(results.ranked) if names <= set(trial.config)]  # the best on top
    if not trials:
        return None
    columns = [*map(_field, results.record.dimensions)]
    columns += [_objective(results, index, trials) for index in range(len(results.metrics))]
    width = max(_MIN_WIDTH, 2 * _MARGIN + _GAP * (len(columns) - 1))
    step = (width - 2 * _MARGIN) / max(1, len(columns) - 1)
    xs = [round(_MARGIN + step * index, 1) for index in range(len(columns))]
    made = [
        Axis(name, x, ticks, index >= len(results.record.dimensions))
        for index, ((name, ticks, _), x) in enumerate(zip(columns, xs, strict=True))
    ]
    runs = []
    for rank, trial in enumerate(trials):
        share = round(rank / max(1, len(trials) - 1), 3)
        ys = [round(where(trial, share), 1) for _, _, where in columns]
        path = "M" + "L".join(f"{x} {y}" for x, y in zip(xs, ys, strict=True))
        runs.append(Run(trial.number, path, ys, share))
    return Parallel(width, made, runs)


_Column = tuple[str, Sequence[Tick], Callable[[TrialRecord, float], float]]
"""Name, ticks, and where a trial crosses, by its share of the ranks."""


def _field(dimension: Dimension) -> _Column:
    low, high = axes.extent(dimension)
    scale = Scale(low, high, BOTTOM, TOP, axes.is_log(dimension))
    if isinstance(dimension.values, Choice):
        ticks = [Tick(scale(index), shown(value)) for index, value in enumerate(dimension.values.values)]
        fan = _FAN
    else:
        ticks, fan = _ticks(scale), 0.0

    def where(trial: TrialRecord, share: float) -> float:
        return scale(axes.place(dimension, trial.config[dimension.name])) + fan * (1 - 2 * share)

    return dimension.name, ticks, where


def _objective(results: Results, index: int, trials: Sequence[TrialRecord]) -> _Column:
    """The better end is on top."""
    values = [trial.values[index] for trial in trials]
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 1.0, high + 1.0
    ends = (TOP, BOTTOM) if results.lower_is_better(index) else (BOTTOM, TOP)
    scale = Scale(low, high, *ends)
    return results.metrics[index], _ticks(scale), lambda trial, share: scale(trial.values[index])


def _ticks(scale: Scale) -> list[Tick]:
    if scale.log and scale.high / scale.low >= 10:
        powers = range(math.ceil(math.log10(scale.low) - 1e-9), math.floor(math.log10(scale.high) + 1e-9) + 1)
        values = [10.0**power for power in powers]
    else:
        values = ticks_between(scale.low, scale.high)
    return [Tick(scale(value), shown(value)) for value in values]
