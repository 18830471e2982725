"""The objectives over the searched fields: one field at a time, and two at a time."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import QhullError

from tuning.report import axes
from tuning.report.figures import BEST_COLOR, STATE_COLORS, Choosable, Plot
from tuning.report.results import Results, spread_of
from tuning.space import Choice, Dimension

_GRID = 48
"""Points of a map along each axis."""


def slices(results: Results) -> list[Choosable]:
    """For each objective, a figure for each searched field: the objective over the field."""
    return [
        Choosable(metric, [_slice(results, dimension, index) for dimension in results.record.dimensions])
        for index, metric in enumerate(results.metrics)
        if results.ranked
    ]


def contours(results: Results) -> list[Choosable]:
    """For each objective and two of the fields, a map of the objective; empty with fewer than three trials."""
    pairs = itertools.combinations(results.record.dimensions, 2) if len(results.ranked) > 2 else ()
    return [
        Choosable(
            f"{x.name} and {y.name}" + (f", {metric}" if len(results.metrics) > 1 else ""),
            [_contour(results, x, y, index)],
        )
        for x, y in pairs
        for index, metric in enumerate(results.metrics)
    ]


def _slice(results: Results, dimension: Dimension, index: int) -> Plot:
    metric = results.metrics[index]
    trials = [trial for trial in results.ranked if dimension.name in trial.config]
    best = results.best(index)
    spreads = [spread_of(trial, metric) for trial in trials]
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": _fanned([axes.place(dimension, trial.config[dimension.name]) for trial in trials], dimension),
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
            "color": [BEST_COLOR if trial == best else STATE_COLORS["finished"] for trial in trials],
            "opacity": 0.85,
            "line": {"width": 0},
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
    shape = {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": line}
    return shape if low <= at <= high else None


def _contour(results: Results, x: Dimension, y: Dimension, index: int) -> Plot:
    trials = [trial for trial in results.ranked if x.name in trial.config and y.name in trial.config]
    points = [[axes.place(one, trial.config[one.name]) for trial in trials] for one in (x, y)]
    values = [trial.values[index] for trial in trials]
    metric = results.metrics[index]
    colors = {"colorscale": "Viridis", "reversescale": results.lower_is_better(index)}
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": _fanned(points[0], x),
        "y": _fanned(points[1], y),
        "marker": {
            "size": 12,
            "color": values,
            **colors,
            "line": {"color": "#ffffff", "width": 1.5},
            "colorbar": {"title": {"text": metric}, "thickness": 14, "outlinewidth": 0},
        },
        "meta": {"trials": [trial.number for trial in trials]},
        "hovertemplate": "%{text}<extra></extra>",
    }
    data: list[Mapping[str, Any]] = [dots]
    if grid := _interpolated(np.array(points).T, np.array(values), (x, y)):
        shared = {"zmin": min(values), "zmax": max(values), "showscale": False, "hoverinfo": "skip"}
        line = {"width": 0.5, "color": "rgba(255,255,255,.5)"}
        data.insert(0, {"type": "contour", **grid, **colors, **shared, "ncontours": 14, "line": line})
    layout = {"xaxis": axes.axis(x), "yaxis": axes.axis(y), "height": 440, "showlegend": False}
    summary = f"{metric} of {len(trials)} trials by {x.name} and {y.name}, brighter is better"
    return Plot(f"{metric} over {x.name} and {y.name}", {"data": data, "layout": layout}, summary)


def _fanned(positions: Sequence[float], dimension: Dimension) -> list[float]:
    """Trials of the same choice side by side, the best in the middle; numbers stay where they are."""
    if not isinstance(dimension.values, Choice):
        return list(positions)
    seen: Counter[float] = Counter()
    fanned = []
    for position in positions:
        count = seen[position]
        seen[position] += 1
        fanned.append(position + 0.28 * math.sin(2.4 * count) * (count > 0))
    return fanned


def _interpolated(
    points: np.ndarray, values: np.ndarray, dimensions: tuple[Dimension, Dimension]
) -> Mapping[str, Any] | None:
    """Values between the trials, (K, 2) positions, on a grid; nothing beyond them.

    None where there is nothing between: for choices, and for trials that span no area.
    """
    if any(isinstance(dimension.values, Choice) for dimension in dimensions):
        return None
    unit = np.stack([_unit(points[:, i], dimension) for i, dimension in enumerate(dimensions)], axis=1)
    places, which = np.unique(unit.round(6), axis=0, return_inverse=True)
    means = np.bincount(which.ravel(), values) / np.bincount(which.ravel())
    xs, ys = (_grid(dimension) for dimension in dimensions)
    try:
        between = LinearNDInterpolator(places, means)
    except (QhullError, ValueError):  # on a line, or fewer than three
        return None
    z = between(*np.meshgrid(_unit(xs, dimensions[0]), _unit(ys, dimensions[1])))
    return {"x": xs.tolist(), "y": ys.tolist(), "z": [[float(f"{value:.5g}") for value in row] for row in z]}


def _grid(dimension: Dimension) -> np.ndarray:
    low, high = axes.extent(dimension)
    return np.geomspace(low, high, _GRID) if axes.is_log(dimension) else np.linspace(low, high, _GRID)


def _unit(positions: np.ndarray, dimension: Dimension) -> np.ndarray:
    """Positions along an axis as shares of it."""
    low, high = axes.extent(dimension)
    if axes.is_log(dimension):
        positions, low, high = np.log(positions), np.log(low), np.log(high)
    return (positions - low) / (high - low)
