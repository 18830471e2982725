"""Ray Tune's view of the sweep: trials from the keeper of the study, and its decision which of them to give up.

Tune's own `OptunaSearch` keeps which Optuna trial is which of Tune's in a pickle that lags behind the study, cannot
share a study with another sweep, and records trials that were stopped early as complete.
"""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from tuning.keeper import StudyKeeper

CONFIG, NUMBER, TAKEN = "config", "number", "taken"
"""Keys of a Tune trial's config: the fields searched, the number of the trial in the study, and, in population-based
training, the last change of its settings, with the checkpoint to go on from."""


class StudySearcher(Searcher):
    """Suggests what the keeper hands out, and closes what ends."""

    def __init__(self, keeper: StudyKeeper) -> None:
        super().__init__()
        self._keeper = keeper

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next trial's config."""
        found = self._keeper.next(trial_id)
        if found is None:
            return str(Searcher.FINISHED)
        number, config = found
        changes = self._keeper.history(trial_id)
        return {NUMBER: number, CONFIG: config, TAKEN: changes[-1] if changes else None}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: `tuning.progress` closes trials, where their errors are known too."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""


class GiveUp(FIFOScheduler):
    """Puts what trials measure on the way into the study, and stops those that its pruner gives up.

    The pruner's memory is the study, so it survives a killed driver and is shared by sweeps that feed one study.
    """

    def __init__(self, keeper: StudyKeeper) -> None:
        super().__init__()
        self._keeper = keeper

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Ask the pruner after each measurement on the way."""
        if "value" in result and self._keeper.watched(trial.trial_id, result["step"], result["value"]):
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)


class EndIfFatal(Stopper):
    """Ends the sweep when no further trial makes sense."""

    def __init__(self, keeper: StudyKeeper) -> None:
        self._keeper = keeper

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never a single trial."""
        return False

    def stop_all(self) -> bool:
        """Whether a trial has shown that all others will fail likewise."""
        return bool(self._keeper.fatal)
