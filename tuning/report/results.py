"""What a sweep has found so far: its trials, ranked, with what the page says about each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from optuna.study import Study

from medray.report.measures import duration, number
from medray.report.run_files import as_number
from tuning.records import SweepRecord, TrialRecord, read_sweep, read_trials
from tuning.space import Value


@dataclass(frozen=True)
class Results:
    """A sweep's folder and its study, at one moment.

    Attributes:
        folder: of the sweep.
        record: sweep.json.
        trials: of the study, by number; other sweeps may have made some of them.
        changed: when the study last did, "" before its first trial.
    """

    folder: Path
    record: SweepRecord
    trials: Sequence[TrialRecord]
    changed: str

    @property
    def metrics(self) -> tuple[str, ...]:
        """The objectives."""
        return tuple(self.record.objectives)

    @property
    def watched(self) -> str:
        """What was measured on the way: the metric that the scheduler goes by."""
        return str(self.record.settings.get("stop_on") or self.metrics[0])

    def is_own(self, trial: TrialRecord) -> bool:
        """Whether this sweep made a trial."""
        return trial.sweep in ("", self.record.id)

    @cached_property
    def ranked(self) -> list[TrialRecord]:
        """Finished trials whose objectives are numbers: those on the front first, each part by the first objective."""
        finite = [trial for trial in self.trials if trial.finished and all(map(math.isfinite, trial.values))]
        return sorted(finite, key=lambda trial: (trial.number not in self.front, *self._costs(trial)))

    @cached_property
    def front(self) -> frozenset[int]:
        """Numbers of the trials that no other beats: the Pareto front, or whatever is best with one objective."""
        costs = {
            trial.number: self._costs(trial)
            for trial in self.trials
            if trial.finished and all(map(math.isfinite, trial.values))
        }
        return frozenset(
            number for number, mine in costs.items() if not any(_beats(other, mine) for other in costs.values())
        )

    def best(self, index: int) -> TrialRecord | None:
        """The best in one objective."""
        return min(self.ranked, key=lambda trial: self._costs(trial)[index], default=None)

    def lower_is_better(self, index: int) -> bool:
        """Whether an objective is minimized."""
        return self.record.objectives[self.metrics[index]] == "min"

    def about(self, trial: TrialRecord) -> list[str]:
        """What the page says where one points at a trial."""
        lines = [f"trial {trial.number}, {trial.state}"]
        for metric, value in zip(self.metrics, trial.values, strict=False):
            spread = spread_of(trial, metric)
            lines.append(f"{metric} {shown(value)}" + (f" ± {shown(spread)}" if spread is not None else ""))
        lines += [f"{name} = {shown(value)}" for name, value in trial.config.items()]
        return [*lines, duration(trial.seconds)] if trial.seconds else lines

    def runs(self, trial: TrialRecord) -> Path:
        """Folder of a trial's runs, also of one that another sweep made."""
        other = not self.is_own(trial) and Path(trial.sweep).name == trial.sweep
        return (self.folder.resolve().parent / trial.sweep if other else self.folder) / trial.folder

    def link(self, trial: TrialRecord) -> str:
        """From the sweep's page to the page of a trial's first run; "" where there is none yet."""
        page = next(iter(sorted(self.runs(trial).glob("seed-*/report.html"))), None)
        if page is None:
            return ""
        own = page.is_relative_to(self.folder)
        found = page.relative_to(self.folder) if own else Path("..", page.relative_to(self.folder.resolve().parent))
        return quote(found.as_posix())

    def _costs(self, trial: TrialRecord) -> tuple[float, ...]:
        return tuple(
            value if self.lower_is_better(index) else -value
            for index, value in enumerate(trial.values[: len(self.metrics)])
        )


def read_results(folder: Path, study: Study) -> Results:
    """Read a sweep's folder and its study.

    Raises:
        UserError: the folder is not a sweep's.
    """
    record = read_sweep(folder)
    moments = [
        moment
        for trial in study.get_trials(deepcopy=False)
        for moment in (trial.datetime_start, trial.datetime_complete)
        if moment is not None
    ]
    changed = max(moments).strftime("%Y-%m-%d %H:%M") if moments else ""
    return Results(folder, record, read_trials(study, record.dimensions), changed)


def seed_values(trial: TrialRecord, metric: str) -> Mapping[int, float]:
    """A metric in each run of a trial that has it; what is not finite is left out."""
    found = {run.seed: as_number(run.metrics.get(metric)) for run in trial.seeds}
    return {seed: value for seed, value in found.items() if value is not None and math.isfinite(value)}


def spread_of(trial: TrialRecord, metric: str) -> float | None:
    """Standard deviation over the seeds of a trial; None for fewer than two."""
    values = list(seed_values(trial, metric).values())
    return statistics.stdev(values) if len(values) > 1 else None


def shown(value: Value) -> str:
    """A setting or a score for people: four digits, tuples by their words."""
    if isinstance(value, float):
        plain = f"{value:.4g}"
        return plain.replace("-", "−") if math.isfinite(value) else number(value)
    return " ".join(map(shown, value)) if isinstance(value, tuple) else str(value)


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other
