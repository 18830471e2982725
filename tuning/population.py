"""Population-based training (Jaderberg et al., 2017) by Ray Tune: settings that change while the trials learn.

All trials learn side by side, or by turns where there are more of them than room. After each turn the worst quarter
goes on from the weights of one of the best quarter, with settings near its own. `tuning.turns` is what a trial does.

Asynchronous only. Tune keeps every checkpoint until the sweep is over: a trial may be told to go on from one that its
owner has long gone past, and where only a few are kept that one is gone (the trial fails; with ``synch`` all hang).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining

from medray.errors import UserError
from medray.learner import seed_of
from tuning.fields import with_values
from tuning.keeper import StudyKeeper
from tuning.searcher import CONFIG, NUMBER, TAKEN
from tuning.space import Choice, Dimension, Uniform, Value


class Population(PopulationBasedTraining):
    """Decides after each turn who goes on from whom, and has the study remember it.

    Args:
        keeper: of the study.
        config: that trials start from.
        dimensions: what is searched, and so what changes.
        mode: whether more or less of what the trials tell is better.
        every: epochs or rounds between two decisions on a trial.
        seed: of the draws; which trial is at which point when decides as much.
    """

    def __init__(
        self, keeper: StudyKeeper, config: Any, dimensions: Sequence[Dimension], *, mode: str, every: int, seed: int
    ) -> None:
        super().__init__(
            time_attr="step",
            metric="value",
            mode=mode,
            perturbation_interval=every,
            hyperparam_mutations={CONFIG: mutations(dimensions)},
            custom_explore_fn=lambda config: {**config, CONFIG: within_bounds(config[CONFIG], dimensions)},
            log_config=False,  # the study is the record
            require_attrs=False,  # a trial's last report has its objectives instead
        )
        self._keeper, self._config = keeper, config
        # Tune draws from the generators that are everybody's.
        random.seed(seed_of("population", seed))
        np.random.seed(seed_of("population", seed) % 2**32)  # noqa: NPY002

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """As Tune's own, which refuses all searchers since some learn from settings; ours hands out and no more."""
        super().on_trial_add(SimpleNamespace(search_alg=None), trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Note what a trial has measured; after a turn, decide whether it goes on from another."""
        lost = sum(change["step"] - change["source_step"] for change in self._keeper.history(trial.trial_id))
        for step, value in result.get("curve", ()):
            self._keeper.watched(trial.trial_id, step + lost, value)
        before = trial.config
        decision = super().on_trial_result(tune_controller, trial, result)
        if trial.config is not before:
            self._note_change(trial, before, result["step"])
        return str(decision)

    def _note_change(self, trial: Trial, before: Mapping[str, Any], step: int) -> None:
        """Tune has given a trial a changed copy of another's config: it keeps its number, and so its folder."""
        taken = trial.latest_checkpoint_result
        change = {
            "change": (before.get(TAKEN) or {"change": 0})["change"] + 1,
            "step": step,
            "source": trial.config[NUMBER],
            "source_step": taken.metrics["step"],
            "checkpoint": taken.checkpoint.path,
        }
        config = self._usable(trial.config[CONFIG], before[CONFIG])
        trial.set_config({CONFIG: config, NUMBER: before[NUMBER], TAKEN: change})
        self._keeper.changed(trial.trial_id, config, change)

    def _usable(self, config: Mapping[str, Value], before: Mapping[str, Value]) -> Mapping[str, Value]:
        """The settings, or those before them where the new ones cannot work together."""
        try:
            with_values(self._config, config)
        except UserError:
            return before
        return config


def mutations(dimensions: Sequence[Dimension]) -> dict[str, Any]:
    """Where Tune draws new values: between the ends of a range, or from the list of choices."""
    return {dimension.name: _mutation(dimension.values) for dimension in dimensions}


def within_bounds(config: Mapping[str, Value], dimensions: Sequence[Dimension]) -> dict[str, Value]:
    """Settings after a change, moved back into their ranges, onto their steps, and whole where they must be."""
    return {dimension.name: _bounded(config[dimension.name], dimension.values) for dimension in dimensions}


def _mutation(values: Uniform | Choice) -> Any:
    if isinstance(values, Choice):
        return list(values.values)
    low, high = values.corners
    if values.whole:
        return (tune.lograndint if values.log else tune.randint)(low, high + 1)
    return (tune.loguniform if values.log else tune.uniform)(low, high)


def _bounded(value: Value, values: Uniform | Choice) -> Value:
    if isinstance(values, Choice):
        return value
    if values.step:
        value = values.low + round((value - values.low) / values.step) * values.step
    value = min(max(value, values.low), values.high)
    return round(value) if values.whole else float(value)
