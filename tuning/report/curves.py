"""The learning curves of all trials in one figure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medray.engine.rundir import read_json_lines
from medray.report.charts import thin_out
from medray.report.run_files import as_number
from tuning.records import TrialRecord
from tuning.report.figures import STATE_COLORS, Plot
from tuning.report.results import Results

_MAX_POINTS = 200
"""Of one curve."""


def curve_plot(results: Results) -> Plot | None:
    """What the scheduler goes by over training, a curve for each trial or, where no scheduler looked, each seed of it.

    None where nothing was measured yet.
    """
    metric = results.watched
    best = results.best(0)
    data: list[Mapping[str, Any]] = []
    named: set[str] = set()
    for trial in sorted(results.trials, key=lambda one: one == best):  # the best is drawn last, on top
        for name, curve in _curves(results, trial):
            data.append(_trace(trial, name, curve, first=trial.state not in named, best=trial == best))
            named.add(trial.state)
    if not data:
        return None
    layout = {
        "xaxis": {"title": {"text": "validation"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": metric}},
        "showlegend": True,
        "height": 460,
    }
    summary = f"{metric} over training, {len(data)} curves"
    return Plot(f"{metric} over training", {"data": data, "layout": layout}, summary)


def _curves(results: Results, trial: TrialRecord) -> Iterator[tuple[str, Sequence[tuple[float, float]]]]:
    """What was measured while a trial trained, with the name of the run it is of where there are several."""
    if trial.curve:
        yield "", [(float(step), value) for step, value in trial.curve.items()]
        return
    for run in sorted(results.runs(trial).glob("seed-*")):
        if curve := list(_logged(run, results.watched)):
            yield run.name.replace("-", " "), curve


def _logged(run: Path, metric: str) -> Iterator[tuple[float, float]]:
    records = (record for record in read_json_lines(run / "metrics.jsonl") if record.get("name") == "validation")
    for count, record in enumerate((record for record in records if metric in record), start=1):
        value = as_number(record[metric])
        yield float(count), math.nan if value is None else value


def _trace(
    trial: TrialRecord, name: str, curve: Sequence[tuple[float, float]], *, first: bool, best: bool
) -> Mapping[str, Any]:
    points, _ = thin_out(curve, _MAX_POINTS)
    told = f"{name}, " if name else ""
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(points) < 40 else "lines",
        "name": trial.state,
        "legendgroup": trial.state,
        "showlegend": first,
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "line": {"color": STATE_COLORS[trial.state], "width": 3.5 if best else 1.4},
        "marker": {"size": 6 if best else 4},
        "opacity": 1.0 if best else 0.6,
        "meta": {"trial": trial.number},
        "hovertemplate": "%{text}<br>" + told + "validation %{x}: <b>%{y:.4g}</b><extra></extra>",
    }
