"""How much each searched field matters to an objective."""

from __future__ import annotations

import math
from collections.abc import Mapping

from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.study import Study
from optuna.trial import TrialState

MIN_TRIALS = 6
_MAX_DEPTH = 8
"""Of the forest's trees. Deeper ones change nothing that their seed would not, and take twice as long."""


def importances(study: Study, objective: int) -> Mapping[str, float]:
    """Share of the objective's variance that each field explains by itself, from the largest; they add up to 1.

    Empty where fewer than `MIN_TRIALS` have ended with a number, or all with the same.

    Source: functional ANOVA on a random forest, Hutter et al., ICML 2014, as in Optuna.
    """
    values = [trial.values[objective] for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < MIN_TRIALS or len(set(finite)) < 2:
        return {}
    forest = FanovaImportanceEvaluator(max_depth=_MAX_DEPTH, seed=0)
    return get_param_importances(study, evaluator=forest, target=lambda trial: trial.values[objective])
