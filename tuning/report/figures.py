"""The page's figures as plotly takes them. What one trial says is added by the script, from its number in ``meta``.

Colors are the names of the style's, which know light and dark: ``var(--c1)``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.study import Study

from tuning.records import TrialRecord
from tuning.report.importance import importances
from tuning.report.results import Results, seed_values

STATE_COLORS = {
    "finished": "var(--c1)",
    "stopped early": "var(--c6)",
    "failed": "var(--bad)",
    "running": "var(--c3)",
    "waiting": "var(--c8)",
}
BEST_COLOR = "var(--c2)"
_FEW = 20
"""Trials whose seeds are shown one by one."""


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


def pareto(results: Results) -> list[Choosable]:
    """Every two objectives against each other, with the front; empty with one objective or without trials."""
    pairs = itertools.combinations(range(len(results.metrics)), 2) if results.ranked else ()
    return [Choosable(f"{results.metrics[x]} and {results.metrics[y]}", [_pareto(results, x, y)]) for x, y in pairs]


def spreads(results: Results) -> list[Choosable]:
    """For each objective, the seeds of the best trials; empty where no trial has two."""
    best = [trial for trial in results.ranked if len(trial.seeds) > 1][:_FEW]
    return [Choosable(metric, [_spread(best, metric, index)]) for index, metric in enumerate(results.metrics) if best]


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
            "width": 0.8,
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


def _pareto(results: Results, x: int, y: int) -> Plot:
    front = sorted((t for t in results.ranked if t.number in results.front), key=lambda trial: trial.values[x])
    rest = [trial for trial in results.ranked if trial.number not in results.front]
    groups = [("on the front", front, BEST_COLOR, 11), ("others", rest, STATE_COLORS["finished"], 8)]
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
    numbers = ", ".join(str(trial.number) for trial in front)
    summary = f"{len(front)} of {len(results.ranked)} trials are on the front: {numbers}"
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
        "marker": {"symbol": "line-ew", "size": 16, "line": {"width": 2.5, "color": "var(--ink)"}},
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
