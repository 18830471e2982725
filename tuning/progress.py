"""Closes trials in the study as Tune ends them, tells the person watching, and keeps the report fresh."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from ray import tune
from ray.tune.experiment import Trial

from medray.report.measures import duration, number
from tuning.keeper import StudyKeeper

log = logging.getLogger("medray.tuning")

_REPORT_EVERY_S = 60.0
_TOLD = ("seeds", "seconds", "node")
"""What a trial tells besides its objectives."""


class Progress(tune.Callback):
    """Follows the trials.

    Args:
        keeper: of the study.
        objectives: metric -> "max" or "min".
        num_trials: asked for.
        ended: called with each trial that has.
    """

    def __init__(
        self,
        keeper: StudyKeeper,
        objectives: Mapping[str, str],
        num_trials: int,
        ended: Callable[[FrozenTrial], None],
    ) -> None:
        self._keeper, self._objectives = keeper, objectives
        self._num_trials, self._ended = num_trials, ended
        self._trying: set[str] = set()

    def __getstate__(self) -> dict[str, object]:
        """Nothing, as the keeper."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A try begins, or goes on after a pause."""
        if trial.trial_id in self._trying:
            return
        self._trying.add(trial.trial_id)
        factory = trial.placement_group_factory
        self._keeper.started(trial.trial_id, factory.required_resources if factory else {})

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has ended: with its objectives, given up early, or with a sentence why it cannot."""
        result = trial.last_result or {}
        self._keeper.fatal = self._keeper.fatal or result.get("fatal", "")
        failure = result.get("failure") or result.get("fatal", "")
        self._tell(trial)
        self._closed(self._keeper.close(trial.trial_id, result.get("objectives"), failure=failure))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A try has failed, and there will be another."""
        self._trying.discard(trial.trial_id)
        which, tries = self._keeper.about(trial.trial_id)
        log.warning("trial %d: try %d failed, trying again", which, tries)  # Tune does not yet say of what

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has failed as often as it may."""
        self._tell(trial)
        death = _death(trial)
        self._keeper.told(trial.trial_id, traceback=death)
        self._closed(self._keeper.close(trial.trial_id, None, failure=_sentence(death)))

    def _tell(self, trial: Trial) -> None:
        result = trial.last_result or {}
        self._keeper.told(trial.trial_id, **{name: result[name] for name in _TOLD if name in result})

    def _closed(self, trial: FrozenTrial) -> None:
        best = best_of(self._keeper.mine(), self._objectives)
        log.info("%s", self._line(trial, best))
        self._ended(trial)

    def _line(self, trial: FrozenTrial, best: FrozenTrial | None) -> str:
        """Trial 7 (8/40): ssim 0.812, 41 s, lambda_adv 0.013; best trial 5: ssim 0.831"""
        where = f"trial {trial.number} ({self._keeper.closed}/{self._num_trials})"
        settings = ", ".join(f"{name} {_short(value)}" for name, value in self._keeper.settings_of(trial).items())
        if trial.state is TrialState.FAIL:
            return f"{where}: failed with {settings}: {trial.user_attrs.get('failure') or 'a value that is not finite'}"
        if trial.state is TrialState.PRUNED:
            last = max(trial.intermediate_values, default=0)
            return f"{where}: given up after {last} with {settings}"
        told = f"{where}: {self._values(trial)}, {duration(trial.user_attrs.get('seconds', 0.0))}, {settings}"
        if best is None or len(self._objectives) > 1 or best.number == trial.number:
            return told
        return f"{told}; best trial {best.number}: {self._values(best)}"

    def _values(self, trial: FrozenTrial) -> str:
        return ", ".join(f"{name} {number(value)}" for name, value in zip(self._objectives, trial.values, strict=True))


def best_of(trials: list[FrozenTrial], objectives: Mapping[str, str]) -> FrozenTrial | None:
    """The finished trial that is best in the first objective; None where none has finished."""
    finished = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    sign = 1 if next(iter(objectives.values())) == "max" else -1
    return max(finished, key=lambda trial: sign * trial.values[0], default=None)


def throttled(action: Callable[[], None]) -> Callable[[], None]:
    """``action``, but not more often than once a minute."""
    last = time.monotonic() - _REPORT_EVERY_S

    def run() -> None:
        nonlocal last
        if time.monotonic() - last >= _REPORT_EVERY_S:
            last = time.monotonic()
            action()

    return run


def _death(trial: Trial) -> str:
    """What the trial's tries died of, as the driver wrote it down; ``get_error`` reads a copy that may come later."""
    if not trial.error_file or not Path(trial.error_file).is_file():
        return ""
    return Path(trial.error_file).read_text()


def _sentence(death: str) -> str:
    """The last line of what a trial died of."""
    lines = [line.strip() for line in death.splitlines() if line.strip()]
    return lines[-1] if lines else "lost"


def _short(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)
