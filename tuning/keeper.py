"""The trials of one sweep in its study: handed out, watched, closed. The one place that writes what became of them.

A trial is in the study before it starts. What a killed driver leaves running there is handed out again, under its
number and so into its folder, where it goes on from its checkpoint.
"""

from __future__ import annotations

import logging
import math
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner, NopPruner
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from medray.learner import seed_of
from tuning.space import Choice, Dimension, Value
from tuning.study import make_sampler

log = logging.getLogger("medray.tuning")

SWEEP = "sweep"
"""User attribute of a trial: the sweep it belongs to."""


class StudyKeeper:
    """Hands out trials and closes them.

    Attributes:
        study: where everything is written.
        fatal: why no further trial makes sense; empty while they do.
        progress: how many trials of this sweep are closed.
    """

    def __init__(
        self,
        study: Study,
        dimensions: Sequence[Dimension],
        *,
        sweep: str,
        num_trials: int,
        sampler: str,
        seed: int,
        pruner: BasePruner,
    ) -> None:
        self.study = study
        self.study.pruner = pruner
        self.fatal = ""
        self._dimensions = dimensions
        self._sweep, self._sampler, self._seed = sweep, sampler, seed
        self._distributions = {dimension.name: dimension.values.distribution for dimension in dimensions}
        self._open: dict[str, Trial] = {}
        self._pruned: set[str] = set()
        mine = [trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get(SWEEP) == sweep]
        self._left_running = [trial for trial in mine if trial.state is TrialState.RUNNING]
        self.closed = sum(trial.state.is_finished() for trial in mine)
        self.to_hand_out = max(0, num_trials - self.closed)

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune pickles what it is given, to go on by itself, and the study's address may hold a password."""
        return {}

    def next(self, key: str) -> tuple[int, dict[str, Value]] | None:
        """The next trial's number and config; None when all are handed out.

        Args:
            key: under which it will be spoken of.
        """
        if self.to_hand_out == 0 or self.fatal:
            return None
        trial = self._taken_over() or self._asked()
        if trial is None:
            self.to_hand_out = 0
            return None
        self.to_hand_out -= 1
        self._open[key] = trial
        return trial.number, self.settings_of(trial)

    def started(self, key: str, resources: Mapping[str, float]) -> None:
        """A try of a trial begins."""
        trial = self._open[key]
        trial.set_user_attr("attempts", trial.user_attrs.get("attempts", 0) + 1)
        trial.set_user_attr("num_cpus", float(resources.get("CPU", 0)))
        trial.set_user_attr("num_gpus", float(resources.get("GPU", 0)))

    def watched(self, key: str, step: int, value: float) -> bool:
        """A trial has measured itself on the way; whether it should be given up."""
        if len(self.study.directions) > 1:  # Optuna keeps no curves of several objectives, and gives nothing up
            return False
        trial = self._open[key]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a resumed trial tells again what it told before it was interrupted
            trial.report(value, step)
        if trial.should_prune():
            self._pruned.add(key)
            return True
        return False

    def changed(self, key: str, config: Mapping[str, Value], change: Mapping[str, Any]) -> None:
        """A trial goes on with other settings, from another's weights, as in population-based training.

        Args:
            key: of the trial.
            config: what it goes on with.
            change: the rest of what `tuning.records.Change` has.
        """
        self._open[key].set_user_attr("history", [*self.history(key), {**change, "config": self.encoded(config)}])

    def history(self, key: str) -> list[dict[str, Any]]:
        """The changes of a trial, as the study keeps them."""
        return list(self._open[key].user_attrs.get("history", ()))

    def told(self, key: str, **attributes: Any) -> None:
        """More about a trial, for the record."""
        for name, value in attributes.items():
            self._open[key].set_user_attr(name, value)

    def close(self, key: str, values: Sequence[float] | None, *, failure: str = "") -> FrozenTrial:
        """The end of a trial: with its objectives, given up early, or failed."""
        trial = self._open.pop(key)
        if failure:
            trial.set_user_attr("failure", failure)
        pruned = key in self._pruned
        finite = values is not None and all(math.isfinite(value) for value in values)
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE if finite and not failure else TrialState.FAIL
        try:
            self.study.tell(trial.number, values if state is TrialState.COMPLETE else None, state=state)
            self.closed += 1
        except (UpdateFinishedTrialError, ValueError):
            log.debug("trial %d was closed before", trial.number)
        return self.study.get_trials(deepcopy=False)[trial.number]

    def about(self, key: str) -> tuple[int, int]:
        """A trial's number in the study, and how often it was started."""
        trial = self._open[key]
        return trial.number, int(trial.user_attrs["attempts"])

    @property
    def num_open(self) -> int:
        """Trials handed out and not closed."""
        return len(self._open)

    def mine(self) -> list[FrozenTrial]:
        """Trials of this sweep."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.user_attrs.get(SWEEP) == self._sweep]

    def config_of(self, params: Mapping[str, Any]) -> dict[str, Value]:
        """Settings from what the study keeps."""
        return {each.name: each.values.decode(params[each.name]) for each in self._dimensions}

    def settings_of(self, trial: Trial | FrozenTrial) -> dict[str, Value]:
        """What a trial goes by now: what it began with, or its last change."""
        changes = trial.user_attrs.get("history")
        return self.config_of(changes[-1]["config"] if changes else trial.params)

    def encoded(self, config: Mapping[str, Value]) -> dict[str, Any]:
        """What the study keeps for settings."""
        return {each.name: each.values.encode(config[each.name]) for each in self._dimensions}

    def _taken_over(self) -> Trial | None:
        """A trial that an earlier driver of this sweep left running, maybe before all its settings were chosen."""
        if not self._left_running:
            return None
        left = self._left_running.pop(0)
        self.study.sampler = make_sampler(self._sampler, self._seed, left.number)
        trial = Trial(self.study, left._trial_id)
        for name, distribution in self._distributions.items():
            trial._suggest(name, distribution)
        return trial

    def _asked(self) -> Trial | None:
        """A new trial; None where the grid has no more. Its number decides the sampler's draws.

        It is announced first, and so has the sweep's name from its beginning: whenever this process is killed, it is
        known whose trial it is.
        """
        trials = self.study.get_trials(deepcopy=False)
        number = next((trial.number for trial in trials if trial.state is TrialState.WAITING), None)
        if number is None:
            number = len(trials)
            point = self._next_of_grid(trials) if self._sampler == "grid" else {}
            if point is None:
                return None
            self.study.enqueue_trial(point, user_attrs={SWEEP: self._sweep})
        self.study.sampler = make_sampler(self._sampler, self._seed, number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = self.study.ask(self._distributions)
        if trial.user_attrs.get(SWEEP) != self._sweep:  # one that another sweep, or a person, has announced
            trial.set_user_attr(SWEEP, self._sweep)
        return trial

    def _next_of_grid(self, trials: Sequence[FrozenTrial]) -> dict[str, Any] | None:
        tried = [trial.system_attrs.get("fixed_params") or trial.params for trial in trials]
        return next((point for point in self._order() if point not in tried), None)

    def _order(self) -> list[dict[str, Any]]:
        """The grid as it is gone through: in order, or mixed where trials are given up.

        There an order in which each trial is a little better than the one before would give up nothing.
        """
        points = list(self._grid())
        if not isinstance(self.study.pruner, NopPruner):
            random.Random(seed_of("grid", self._seed)).shuffle(points)
        return points

    def _grid(self) -> Iterator[dict[str, Any]]:
        """All combinations, the last dimension running fastest."""
        choices = [
            [dimension.values.encode(value) for value in dimension.values.values]
            for dimension in self._dimensions
            if isinstance(dimension.values, Choice)
        ]
        names = [dimension.name for dimension in self._dimensions]
        for point in product(*choices):
            yield dict(zip(names, point, strict=True))
