"""The Optuna study of a sweep: where it lives, whose it is, what to try next, what became of it.

The study is the sweep's memory. It is written before a trial starts and as soon as it ends, so a driver that is killed
loses nothing: whoever resumes takes over the trials that were left running, with their parameters and folders. Several
sweeps may feed one study, at the same time too: each touches only the trials that carry its name.

    journal:///abs/path/study.log      a file that only grows; the default, in the sweep's folder
    sqlite:////abs/path/study.db       a file
    postgresql://, mysql://            a database server, for sweeps on several machines
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from medray.engine.rundir import permanent
from medray.errors import UserError
from medray.learner import seed_of
from tuning.records import JOURNAL
from tuning.space import Dimension

HIDDEN = ":***@"
"""What stands in the place of a password."""
SAMPLERS = ("tpe", "random", "grid")
_NUM_STARTUP_TRIALS = 8
"""Random ones before TPE has something to go by."""


def open_storage(url: str) -> BaseStorage:
    """The storage behind a url.

    Raises:
        UserError: it cannot be reached, or its driver is not installed.
    """
    try:
        if url.startswith(JOURNAL):
            path = Path(url.removeprefix(JOURNAL))
            path.parent.mkdir(parents=True, exist_ok=True)
            # an open file as the lock: links, the default, are not to be had on every file system
            return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True}, heartbeat_interval=None)
    except Exception as error:
        first = str(getattr(error, "orig", error)).strip().splitlines() or [type(error).__name__]
        raise UserError(f"--storage {without_password(url)} cannot be reached: {first[0]}") from None


def absolute(url: str) -> str:
    """The url of a file with its path from the root, so that it means the same from every folder; others as given."""
    for scheme in (JOURNAL, "sqlite:///"):
        path = url.removeprefix(scheme)
        if path and path != url and not path.startswith(("/", ":")):
            return f"{scheme}{permanent(Path(path))}"
    return url


def open_study(url: str, name: str) -> Study:
    """An existing study.

    Raises:
        UserError: the storage cannot be reached or holds no study of that name.
    """
    storage = open_storage(url)
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        raise UserError(f"there is no study {name!r} in {without_password(url)}") from None


def create_study(
    url: str,
    name: str,
    *,
    system: str,
    objectives: Mapping[str, str],
    dimensions: Sequence[Dimension],
    setting: Mapping[str, Any],
) -> Study:
    """A study, made now or before by another sweep of the same system, objectives, space and setting.

    Args:
        url: of the storage.
        name: of the study.
        system: slug.
        objectives: metric -> "max" or "min".
        dimensions: of the space.
        setting: what else trials must share to be compared: preset, variant, data, fields set, seeds, metric watched.

    Raises:
        UserError: the storage cannot be reached, or the study is of something else.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_storage(url)
    directions: list[Literal["maximize", "minimize"]] = [
        "maximize" if mode == "max" else "minimize" for mode in objectives.values()
    ]
    mine = {
        "system": system,
        "objectives": [f"{metric} ({mode})" for metric, mode in objectives.items()],
        "space": [dimension.text for dimension in dimensions],
        "setting": {key: json.loads(json.dumps(value, default=str)) for key, value in setting.items()},
    }
    try:
        study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    except ValueError:  # the number of directions differs
        raise UserError(_foreign(name, "objectives", "others", mine["objectives"])) from None
    theirs = study.user_attrs
    if "system" not in theirs:
        if study.get_trials(deepcopy=False):
            raise UserError(f"the study {name!r} was not made by a medray sweep; give another --study")
        for key, value in mine.items():
            study.set_user_attr(key, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(objectives))
        return study
    for key, value in mine.items():
        if theirs[key] != value:
            raise UserError(_foreign(name, key, theirs[key], value))
    return study


def make_sampler(kind: str, seed: int, number: int) -> BaseSampler:
    """What chooses trial ``number``: its draws depend on the seed and the number alone, also after a restart."""
    drawn = seed_of("sweep", seed, number) % 2**31
    if kind == "random":
        return RandomSampler(seed=drawn)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            seed=drawn, n_startup_trials=_NUM_STARTUP_TRIALS, multivariate=True, group=False, constant_liar=True
        )


def make_pruner(kind: str, *, grace: int, reduction: int, reverse: bool = False) -> BasePruner:
    """When a trial is given up: never, by asynchronous successive halving, or below the median of its peers.

    Args:
        kind: none, asha, median.
        grace: epochs or rounds before which none is given up.
        reduction: of how many trials one goes on past each rung of successive halving.
        reverse: whether less of what trials tell on the way is better where more of the objective is, or the reverse.
    """
    pruner: BasePruner = NopPruner()
    if kind == "asha":
        pruner = SuccessiveHalvingPruner(min_resource=grace, reduction_factor=reduction)
    elif kind == "median":
        pruner = MedianPruner(n_startup_trials=4, n_warmup_steps=grace)
    return _Reversed(pruner) if reverse else pruner


class _Reversed(BasePruner):
    """Decides as another pruner would in a study of the other direction; Optuna knows but one for both."""

    def __init__(self, pruner: BasePruner) -> None:
        self._pruner = pruner

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """See `BasePruner.prune`."""
        other = copy(study)
        less = study.direction is StudyDirection.MAXIMIZE
        other._directions = [StudyDirection.MINIMIZE if less else StudyDirection.MAXIMIZE]
        return self._pruner.prune(other, trial)


def _foreign(name: str, what: str, theirs: Any, mine: Any) -> str:
    if isinstance(theirs, Mapping):
        differing = [key for key in {**theirs, **mine} if theirs.get(key) != mine.get(key)]
        what, theirs, mine = differing[0], theirs.get(differing[0]), mine.get(differing[0])
    return (
        f"the study {name!r} has another {what}: {_plain(theirs)}, and this sweep {_plain(mine)}; give another --study"
    )


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def without_password(url: str) -> str:
    """The url with the password hidden, for messages and files."""
    scheme, found, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    return f"{scheme}{found}{credentials.partition(':')[0]}{HIDDEN}{place}" if at and ":" in credentials else url
