"""The page's figures as plotly takes them. What one trial says is added by the script, from its number in ``meta``.

Colors are the names of the style's, which know light and dark: ``var(--c1)``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import Study
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import QhullError

from tuning.records import TrialRecord
from tuning.report import axes
from tuning.report.importance import importances
from tuning.report.results import Results, seed_values, spread_of
from tuning.space import Choice, Dimension

STATE_COLORS = {
    "finished": "var(--c1)",
    "stopped early": "var(--c6)",
    "failed": "var(--bad)",
    "running": "var(--c3)",
    "waiting": "var(--c8)",
}
_BEST = "var(--c2)"
_FEW = 20
"""Trials whose seeds are shown one by one."""
_GRID = 30
"""Points of a contour plot along a continuous axis."""


@dataclass(frozen=True)
class Plot:
    """A figure.

    Attributes:
        title: what is to be seen.
        figure: data and layout for plotly.
        summary: the same in a sentence, for who cannot see it.
    """

    title: str
    figure: Mapping[str, Any]
    summary: str


@dataclass(frozen=True)
class Choosable:
    """Figures of which one set is shown at a time.

    Attributes:
        label: in the select box.
        plots: of the set.
    """

    label: str
    plots: Sequence[Plot]


def importance_plot(results: Results, study: Study) -> Plot | None:
    """How much each field matters to each objective; None where that cannot be said yet."""
    found = {metric: importances(study, index) for index, metric in enumerate(results.metrics)}
    found = {metric: shares for metric, shares in found.items() if shares}
    if not found:
        return None
    names = sorted(next(iter(found.values())), key=next(iter(found.values())).__getitem__)
    bars = [
        {
            "type": "bar",
            "orientation": "h",
            "name": metric,
            "y": names,
            "x": [shares.get(name, 0.0) for name in names],
            "marker": {"color": f"var(--c{index + 1})"},
            "texttemplate": "%{x:.0%}",
            "textposition": "outside",
            "cliponaxis": False,
            "hovertemplate": "%{y}: %{x:.1%} of the variance of " + metric + "<extra></extra>",
        }
        for index, (metric, shares) in enumerate(found.items())
    ]
    layout = {
        "xaxis": {"title": {"text": "share of the variance"}, "tickformat": ".0%", "rangemode": "tozero"},
        "yaxis": {"automargin": True},
        "showlegend": len(bars) > 1,
        "height": 130 + 34 * len(names) * len(bars),
    }
    told = "; ".join(
        f"{metric}: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        for metric, shares in found.items()
    )
    return Plot("Share of each field", {"data": bars, "layout": layout}, told)


def slices(results: Results) -> list[Choosable]:
    """For each objective, a figure for each searched field: the objective over the field."""
    return [
        Choosable(metric, [_slice(results, dimension, index) for dimension in results.record.dimensions])
        for index, metric in enumerate(results.metrics)
        if results.ranked
    ]


def contours(results: Results) -> list[Choosable]:
    """For each objective and two of the fields, a map of the objective; pairs that span no area are left out."""
    pairs = itertools.combinations(results.record.dimensions, 2)
    made = [
        (f"{x.name} and {y.name}" + (f", {metric}" if len(results.metrics) > 1 else ""), _contour(results, x, y, index))
        for x, y in pairs
        for index, metric in enumerate(results.metrics)
    ]
    return [Choosable(label, [plot]) for label, plot in made if plot is not None]


def pareto(results: Results) -> list[Choosable]:
    """Every two objectives against each other, with the front; empty with one objective or without trials."""
    pairs = itertools.combinations(range(len(results.metrics)), 2) if results.ranked else ()
    return [
        Choosable(f"{results.metrics[x]} and {results.metrics[y]}", [_pareto(results, x, y)]) for x, y in pairs
    ]


def spreads(results: Results) -> list[Choosable]:
    """For each objective, the seeds of the best trials; empty where no trial has two."""
    best = [trial for trial in results.ranked if len(trial.seeds) > 1][:_FEW]
    return [
        Choosable(metric, [_spread(best, metric, index)]) for index, metric in enumerate(results.metrics) if best
    ]


def seconds_plot(results: Results) -> Plot | None:
    """Seconds of work of each trial; None before any ended."""
    worked = [trial for trial in results.trials if trial.seconds]
    bars = [
        {
            "type": "bar",
            "name": state,
            "x": [trial.number for trial in those],
            "y": [trial.seconds for trial in those],
            "marker": {"color": STATE_COLORS[state]},
            "meta": {"trials": [trial.number for trial in those]},
            "customdata": [_resources(trial) for trial in those],
            "hovertemplate": "%{text}<br>%{customdata}<extra></extra>",
            "textposition": "none",
        }
        for state, those in _by_state(worked)
    ]
    layout = {
        "barmode": "overlay",
        "xaxis": {"title": {"text": "trial"}, **_whole([trial.number for trial in worked])},
        "yaxis": {"title": {"text": "seconds of work"}, "rangemode": "tozero"},
        "showlegend": True,
        "height": 330,
    }
    total = sum(trial.seconds for trial in worked)
    return Plot("Time", {"data": bars, "layout": layout}, f"{len(worked)} trials, {total:.0f} s") if worked else None


def _slice(results: Results, dimension: Dimension, index: int) -> Plot:
    metric = results.metrics[index]
    trials = [trial for trial in results.ranked if dimension.name in trial.config]
    best = results.best(index)
    spreads = [spread_of(trial, metric) for trial in trials]
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": [axes.place(dimension, trial.config[dimension.name]) for trial in trials],
        "y": [trial.values[index] for trial in trials],
        "error_y": {
            "type": "data",
            "array": [spread or 0.0 for spread in spreads],
            "visible": any(spreads),
            "thickness": 1,
            "width": 0,
            "color": "var(--soft)",
        },
        "marker": {
            "size": [11 if trial == best else 8 for trial in trials],
            "symbol": ["star" if trial == best else "circle" for trial in trials],
            "color": [_BEST if trial == best else STATE_COLORS["finished"] for trial in trials],
        },
        "meta": {"trials": [trial.number for trial in trials]},
        "hovertemplate": "%{text}<extra></extra>",
    }
    layout = {"xaxis": axes.axis(dimension), "yaxis": {"title": {"text": metric}}, "height": 300}
    default = results.record.defaults.get(dimension.name)
    shape = _default_line(dimension, default) if dimension.name in results.record.defaults else None
    return Plot(
        f"{metric} over {dimension.name}",
        {"data": [points], "layout": {**layout, "shapes": [shape] if shape else []}},
        f"{metric} of {len(trials)} trials over {dimension.name}",
    )


def _default_line(dimension: Dimension, default: Any) -> Mapping[str, Any] | None:
    """The preset's value across a figure; None where it is outside of what was searched."""
    try:
        at = axes.place(dimension, default)
    except (TypeError, ValueError):  # a choice without it, or None as in "chosen by the data"
        return None
    low, high = axes.extent(dimension)
    line = {"color": "var(--soft)", "dash": "dash", "width": 1.5}
    return {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": line} if low <= at <= high else None


def _contour(results: Results, x: Dimension, y: Dimension, index: int) -> Plot | None:
    trials = [trial for trial in results.ranked if x.name in trial.config and y.name in trial.config]
    points = np.array([[axes.place(one, trial.config[one.name]) for one in (x, y)] for trial in trials])
    grid = _interpolated(points, np.array([trial.values[index] for trial in trials]), (x, y)) if trials else None
    if grid is None:
        return None
    metric, low = results.metrics[index], results.lower_is_better(index)
    surface = {
        "type": "contour",
        **grid,
        "colorscale": "Viridis",
        "reversescale": low,
        "ncontours": 14,
        "line": {"width": 0.5, "color": "rgba(255,255,255,.5)"},
        "colorbar": {"title": {"text": metric}, "thickness": 14, "outlinewidth": 0},
        "hoverinfo": "skip",
    }
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
        "marker": {"size": 9, "color": "#ffffff", "line": {"color": "#16202b", "width": 1.5}},
        "meta": {"trials": [trial.number for trial in trials]},
        "hovertemplate": "%{text}<extra></extra>",
    }
    layout = {"xaxis": axes.axis(x), "yaxis": axes.axis(y), "height": 440, "showlegend": False}
    return Plot(
        f"{metric} over {x.name} and {y.name}",
        {"data": [surface, dots], "layout": layout},
        f"Map of {metric} between {len(trials)} trials, brighter is better",
    )


def _interpolated(
    points: np.ndarray, values: np.ndarray, dimensions: tuple[Dimension, Dimension]
) -> Mapping[str, Any] | None:
    """Values between the trials, (K, 2) positions, on a grid; nothing beyond them. None where they span no area."""
    unit = np.stack([_unit(points[:, i], dimension) for i, dimension in enumerate(dimensions)], axis=1)
    places, which = np.unique(unit.round(6), axis=0, return_inverse=True)
    means = np.bincount(which.ravel(), values) / np.bincount(which.ravel())
    xs, ys = (_grid(dimension) for dimension in dimensions)
    try:
        between = LinearNDInterpolator(places, means)
    except (QhullError, ValueError):  # on a line, or fewer than three
        return None
    z = between(*np.meshgrid(_unit(xs, dimensions[0]), _unit(ys, dimensions[1])))
    return {"x": xs.tolist(), "y": ys.tolist(), "z": z.tolist()}


def _grid(dimension: Dimension) -> np.ndarray:
    low, high = axes.extent(dimension)
    if isinstance(dimension.values, Choice):
        return np.arange(high + 1)
    return np.geomspace(low, high, _GRID) if axes.is_log(dimension) else np.linspace(low, high, _GRID)


def _unit(positions: np.ndarray, dimension: Dimension) -> np.ndarray:
    """Positions along an axis as shares of it."""
    low, high = axes.extent(dimension)
    if axes.is_log(dimension):
        positions, low, high = np.log(positions), np.log(low), np.log(high)
    return (positions - low) / (high - low)


def _pareto(results: Results, x: int, y: int) -> Plot:
    front = sorted((t for t in results.ranked if t.number in results.front), key=lambda trial: trial.values[x])
    rest = [trial for trial in results.ranked if trial.number not in results.front]
    groups = [("on the front", front, _BEST, 11), ("others", rest, STATE_COLORS["finished"], 8)]
    data = [
        {
            "type": "scatter",
            "mode": "markers+lines" if name == "on the front" and len(results.metrics) == 2 else "markers",
            "name": name,
            "x": [trial.values[x] for trial in those],
            "y": [trial.values[y] for trial in those],
            "marker": {"size": size, "color": color},
            "line": {"color": color, "width": 1, "dash": "dot"},
            "meta": {"trials": [trial.number for trial in those]},
            "hovertemplate": "%{text}<extra></extra>",
        }
        for name, those, color, size in groups
        if those
    ]
    names = [f"{results.metrics[i]} ({'lower' if results.lower_is_better(i) else 'higher'} is better)" for i in (x, y)]
    layout = {
        "xaxis": {"title": {"text": names[0]}},
        "yaxis": {"title": {"text": names[1]}},
        "showlegend": True,
        "height": 420,
    }
    summary = f"{len(front)} of {len(results.ranked)} trials are on the front: {', '.join(str(t.number) for t in front)}"
    return Plot(f"{results.metrics[y]} against {results.metrics[x]}", {"data": data, "layout": layout}, summary)


def _spread(trials: Sequence[TrialRecord], metric: str, index: int) -> Plot:
    labels = [f"#{trial.number}" for trial in trials]
    runs = [
        (label, trial.number, seed, value)
        for label, trial in zip(labels, trials, strict=True)
        for seed, value in seed_values(trial, metric).items()
    ]
    means = [trial.values[index] for trial in trials]
    found = [list(seed_values(trial, metric).values()) or [mean] for trial, mean in zip(trials, means, strict=True)]
    bars = {
        "type": "scatter",
        "mode": "markers",
        "name": "mean and range",
        "x": labels,
        "y": means,
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [max(values) - mean for values, mean in zip(found, means, strict=True)],
            "arrayminus": [mean - min(values) for values, mean in zip(found, means, strict=True)],
            "color": "var(--soft)",
            "thickness": 1.5,
        },
        "marker": {"symbol": "line-ew", "size": 16, "color": "var(--ink)", "line": {"width": 2.5, "color": "var(--ink)"}},
        "meta": {"trials": [trial.number for trial in trials]},
        "hovertemplate": "%{text}<extra></extra>",
    }
    dots = {
        "type": "scatter",
        "mode": "markers",
        "name": "one seed",
        "x": [label for label, _, _, _ in runs],
        "y": [value for _, _, _, value in runs],
        "customdata": [seed for _, _, seed, _ in runs],
        "marker": {"size": 8, "color": STATE_COLORS["finished"], "opacity": 0.75},
        "meta": {"trials": [number for _, number, _, _ in runs]},
        "hovertemplate": "%{text}<br>seed %{customdata}: <b>%{y:.4g}</b><extra></extra>",
    }
    layout = {
        "xaxis": {"title": {"text": "trial, best first"}, "type": "category"},
        "yaxis": {"title": {"text": metric}},
        "showlegend": True,
        "height": 360,
    }
    return Plot(
        f"{metric} of each seed", {"data": [bars, dots], "layout": layout}, f"Seeds of the best {len(trials)} trials"
    )


def _by_state(trials: Sequence[TrialRecord]) -> Iterator[tuple[str, list[TrialRecord]]]:
    for state in STATE_COLORS:
        if those := [trial for trial in trials if trial.state == state]:
            yield state, those


def _resources(trial: TrialRecord) -> str:
    tries = f"{trial.attempts} attempts" if trial.attempts > 1 else ""
    held = [f"{trial.num_cpus:g} CPU", f"{trial.num_gpus:g} GPU" if trial.num_gpus else "", trial.node, tries]
    return ", ".join(part for part in held if part)


def _whole(numbers: Sequence[int]) -> Mapping[str, Any]:
    """Ticks for an axis of trial numbers: never between two of them."""
    span = max(numbers, default=0) - min(numbers, default=0)
    return {"dtick": 1} if span <= 24 else {"tickformat": "d"}
