"""A sweep's folder: what it holds, and how its trials are read back.

    <out>/sweeps/<slug>/<sweep id>/
        sweep.json          settings, space, objectives, command, versions
        study.log           the Optuna study (a journal), unless it lives in a database
        trials/0007/seed-0  run directories of the trials, each as `train` leaves them
        report.html         of the whole sweep

What a trial was and gave is in the study, which outlives the driver at every moment: parameters, intermediate values
and objectives where Optuna keeps them, everything else in the trial's user attributes under the names below.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from medray.errors import UserError
from tuning.space import Dimension, Value, parse_dimension

SWEEP_FILE = "sweep.json"
JOURNAL = "journal://"
"""Of the url of a study in a file of Optuna's own kind."""
STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True)
class SeedResult:
    """One run of a trial.

    Attributes:
        seed: of the run.
        metrics: what the run measured on the validation cases, and what training itself measured.
        seconds: it took.
    """

    seed: int
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class Change:
    """A trial of population-based training goes on from another's weights, with settings near the other's.

    Attributes:
        step: epoch or round at which it had arrived by itself.
        source: number of the other trial.
        source_step: epoch or round of the weights it goes on from.
        config: what it goes on with.
    """

    step: int
    source: int
    source_step: int
    config: Mapping[str, Value]


@dataclass(frozen=True)
class TrialRecord:
    """What a trial was and gave.

    Attributes:
        number: in the study; also the name of its folder.
        state: finished, stopped early, failed, running or waiting.
        config: field -> value, of the fields searched; what it began with where they changed.
        history: how they changed, in population-based training alone.
        values: objectives, means over seeds, in the order of the sweep's; empty before the end.
        seeds: its runs.
        curve: what the scheduler goes by, over training: epochs or rounds worked -> value. A trial that
            went back to another's weights has worked more of them than those weights have behind them.
        seconds: of work over all seeds, of each the try that ended it.
        num_cpus: that it held.
        num_gpus: that it held.
        node: where it ran last.
        attempts: how often it was started.
        failure: why it failed, in a sentence; else empty.
        sweep: id of the sweep it belongs to; several may feed one study.
        folder: of its runs, relative to the folder of its sweep.
    """

    number: int
    state: str
    config: Mapping[str, Value]
    history: tuple[Change, ...]
    values: tuple[float, ...]
    seeds: tuple[SeedResult, ...]
    curve: Mapping[int, float]
    seconds: float
    num_cpus: float
    num_gpus: float
    node: str
    attempts: int
    failure: str
    sweep: str
    folder: str

    @property
    def finished(self) -> bool:
        """Whether it has its objectives."""
        return self.state == "finished"

    @property
    def last_config(self) -> Mapping[str, Value]:
        """What it ended with, or goes on with now."""
        return self.history[-1].config if self.history else self.config


@dataclass(frozen=True)
class SweepRecord:
    """sweep.json.

    Attributes:
        id: by which its trials are known in the study; the name the folder was given.
        system: slug.
        preset: size of the trials.
        variant: of the system.
        data: source of the trials.
        objectives: metric -> "max" or "min".
        dimensions: what was searched.
        defaults: value of each searched field that the preset has.
        fields_set: fields that differ from the preset's in all trials, as text; items of tuples with spaces between.
        sampler: tpe, random, grid.
        scheduler: none, asha, median, pbt.
        num_seeds: runs of each configuration.
        num_trials: asked for.
        study: name of the study.
        storage: where it lives; see `tuning.study`.
        command: that started the sweep.
        started: when.
        settings: all flags of the sweep.
        versions: of the packages.
    """

    id: str
    system: str
    preset: str
    variant: str
    data: str
    objectives: Mapping[str, str]
    dimensions: tuple[Dimension, ...]
    defaults: Mapping[str, Value]
    fields_set: Mapping[str, str]
    sampler: str
    scheduler: str
    num_seeds: int
    num_trials: int
    study: str
    storage: str
    command: str
    started: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]


def read_sweep(folder: Path) -> SweepRecord:
    """sweep.json of a folder.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = folder / SWEEP_FILE
    try:
        saved = json.loads(path.read_text())
        dimensions = tuple(parse_dimension(text) for text in saved.pop("dimensions"))
        defaults = {name: tuple(v) if isinstance(v, list) else v for name, v in saved.pop("defaults").items()}
        saved["storage"] = _beside(folder, saved["storage"])
        return SweepRecord(dimensions=dimensions, defaults=defaults, **saved)
    except FileNotFoundError:
        raise UserError(f"{folder} is not a sweep: it has no {SWEEP_FILE}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _beside(folder: Path, storage: str) -> str:
    """A journal in the sweep's own folder is known by its name alone, so that the folder can be moved."""
    name = storage.removeprefix(JOURNAL)
    if name == storage or name.startswith("/"):
        return storage
    return f"{JOURNAL}{folder.resolve() / name}"


def read_trials(study: Study, dimensions: Sequence[Dimension]) -> list[TrialRecord]:
    """All trials of a study, by number."""
    return [read_trial(trial, dimensions) for trial in study.get_trials(deepcopy=False)]


def read_trial(trial: FrozenTrial, dimensions: Sequence[Dimension]) -> TrialRecord:
    """One trial of a study."""
    told = trial.user_attrs
    return TrialRecord(
        number=trial.number,
        state=STATES[trial.state],
        config=dict(_config(trial.params, dimensions)),
        history=tuple(_change(saved, dimensions) for saved in told.get("history", ())),
        values=tuple(trial.values) if trial.state is TrialState.COMPLETE and trial.values else (),
        seeds=tuple(SeedResult(**seed) for seed in told.get("seeds", ())),
        curve=dict(sorted(trial.intermediate_values.items())),
        seconds=float(told.get("seconds", 0.0)),
        num_cpus=float(told.get("num_cpus", 0.0)),
        num_gpus=float(told.get("num_gpus", 0.0)),
        node=str(told.get("node", "")),
        attempts=int(told.get("attempts", 0)),
        failure=str(told.get("failure", "")),
        sweep=str(told.get("sweep", "")),
        folder=trial_folder(trial.number),
    )


def trial_folder(number: int) -> str:
    """Where the runs of a trial are, relative to the folder of its sweep."""
    return f"trials/{number:04d}"


def _config(params: Mapping[str, Any], dimensions: Sequence[Dimension]) -> Iterator[tuple[str, Value]]:
    for dimension in dimensions:
        if dimension.name in params:
            yield dimension.name, dimension.values.decode(params[dimension.name])


def _change(saved: Mapping[str, Any], dimensions: Sequence[Dimension]) -> Change:
    config = dict(_config(saved["config"], dimensions))
    return Change(step=saved["step"], source=saved["source"], source_step=saved["source_step"], config=config)
