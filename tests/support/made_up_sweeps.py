"""Folders of sweeps that nobody ran: a study in a journal, sweep.json and some files of the trials."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from tuning.records import trial_folder
from tuning.space import Choice, Dimension, Uniform
from tuning.study import create_study

DIMENSIONS = (
    Dimension("feature_lr", Uniform(1e-4, 1e-1, log=True)),
    Dimension("features", Choice(("cnn", "mind"))),
    Dimension("grid_spacing", Choice(((20, 10, 7), (12, 8), (16,)))),
)
HOSTILE = "</script><script>document.title='taken'</script><img src=http://example.org/x> & \"quoted\" 'so'"
_SEEDS = (0, 1, 2)


def made_up_sweep(
    folder: Path,
    *,
    objectives: Mapping[str, str] | None = None,
    states: Sequence[TrialState] | None = None,
    dimensions: Sequence[Dimension] = DIMENSIONS,
    seeds: Sequence[int] = _SEEDS,
    odd: bool = False,
) -> Study:
    """Write a sweep of SUTS and return its study.

    Args:
        folder: of the sweep; its name is the sweep's.
        objectives: metric -> "max" or "min".
        states: of the trials; by default 12 of which one failed, two were stopped early and one still runs.
        dimensions: what was searched.
        seeds: of each trial.
        odd: whether the first trial has an infinite objective and NaN among its seeds and its curve.
    """
    objectives = objectives or {"dice": "max"}
    folder.mkdir(parents=True)
    url = f"journal://{folder / 'study.log'}"
    setting = {"preset": "smoke", "variant": "cnn", "data": "phantom:abdomen?n=4", "seeds": len(seeds)}
    study = create_study(
        url, f"suts-{folder.name}", system="suts", objectives=objectives, dimensions=dimensions, setting=setting
    )
    for number, state in enumerate(_mixed() if states is None else states):
        add_trial(study, folder, number, state, objectives, dimensions, seeds, odd=odd and number == 0)
    saved: dict[str, Any] = {
        "id": folder.name,
        "system": "suts",
        **{key: setting[key] for key in ("preset", "variant", "data")},
        "objectives": objectives,
        "dimensions": [dimension.text for dimension in dimensions],
        "defaults": {"feature_lr": 0.001, "features": "cnn", "grid_spacing": (20, 10, 7)},
        "fields_set": {"moving": "ct", "same_start": "false"},
        "sampler": "tpe",
        "scheduler": "median",
        "num_seeds": len(seeds),
        "num_trials": 12,
        "study": study.study_name,
        "storage": "journal://study.log",
        "command": "python -m tuning.sweep suts --trials 12",
        "started": "2026-03-01 10:00:00",
        "settings": {"trials": 12, "seeds": len(seeds)},
        "versions": {"python": "3.11", "optuna": optuna.__version__},
    }
    (folder / "sweep.json").write_text(json.dumps(saved))
    return study


def add_trial(
    study: Study,
    folder: Path,
    number: int,
    state: TrialState,
    objectives: Mapping[str, str],
    dimensions: Sequence[Dimension],
    seeds: Sequence[int],
    *,
    odd: bool = False,
    sweep: str = "",
) -> None:
    """One trial, with settings and scores that follow from its number."""
    config = {dimension.name: _setting(dimension, number) for dimension in dimensions}
    goal = 0.8 - 0.05 * (math.log10(float(config.get("feature_lr", 1e-2))) + 2.3) ** 2
    goal -= 0.04 * (config.get("features") == "mind")
    cost = 5.0 + 4.0 * goal**2 + 0.1 * (number % 3)  # pulls the other way, mostly: there is a front
    scores = {metric: goal if mode == "max" else cost for metric, mode in objectives.items()}
    finished = state is TrialState.COMPLETE
    runs: list[dict[str, Any]] = [
        {
            "seed": seed,
            "metrics": {metric: score + 0.01 * (seed - 1) for metric, score in scores.items()},
            "seconds": 30.0 + number,
        }
        for seed in (seeds if finished else ())
    ]
    curve = {step: goal * (1 - math.exp(-step / 3)) for step in range(1, {TrialState.PRUNED: 4}.get(state, 9))}
    values = list(scores.values())
    if odd:
        values[0], curve[2] = math.inf, math.nan
        runs[0]["metrics"] = dict.fromkeys(scores, math.nan)
    told = {
        "seeds": runs,
        "seconds": sum(run["seconds"] for run in runs) or 12.5,
        "num_cpus": 1.0,
        "num_gpus": 0.5 if number % 2 else 0.0,
        "node": "node-a",
        "attempts": 3 if state is TrialState.FAIL else 1,
        "failure": HOSTILE if state is TrialState.FAIL else "",
        "sweep": sweep or folder.name,
    }
    study.add_trial(
        create_trial(
            state=state,
            params={dimension.name: dimension.values.encode(config[dimension.name]) for dimension in dimensions},
            distributions={dimension.name: dimension.values.distribution for dimension in dimensions},
            values=values if finished else None,
            intermediate_values=curve if state not in (TrialState.FAIL, TrialState.WAITING) else {},
            user_attrs=told,
        )
    )
    if finished:
        run = folder / trial_folder(number) / "seed-0"
        run.mkdir(parents=True)
        (run / "report.html").write_text(f"<title>trial {number}</title>")


def _mixed() -> list[TrialState]:
    states = [TrialState.COMPLETE] * 12
    states[3], states[11] = TrialState.FAIL, TrialState.RUNNING
    states[5] = states[8] = TrialState.PRUNED
    return states


def _setting(dimension: Dimension, number: int) -> Any:
    """Spread over the dimension, each in a rhythm of its own."""
    values = dimension.values
    if isinstance(values, Choice):
        return values.values[(number * (1 + len(dimension.name)) // 3) % len(values.values)]
    share = number * (0.618034 + 0.1 * (len(dimension.name) % 5)) % 1.0
    width = values.high - values.low
    value = values.low * (values.high / values.low) ** share if values.log else values.low + share * width
    return round(value) if values.whole else value
