"""The command that runs a trial again, outside of its sweep."""

from __future__ import annotations

import shlex

from medray import registry
from tuning.fields import flag
from tuning.plan import flags_of
from tuning.records import SweepRecord, TrialRecord
from tuning.space import Value


def reproduce_command(record: SweepRecord, trial: TrialRecord, seed: int) -> str:
    """The job with everything that the trial set, as one line for a shell.

    Args:
        record: of the sweep.
        trial: one of its trials.
        seed: of the run among those of the trial.

    Raises:
        UserError: the system is not registered, or lacks a field that the sweep set.
    """
    words = ["python", f"jobs/{record.system}.py", "train"]
    for name, value in (("preset", record.preset), ("variant", record.variant), ("data", record.data)):
        words += [f"--{name}", value]
    words += ["--seed", str(seed)]
    common = {name: text for name, text in record.fields_set.items() if name not in trial.config}
    words += flags_of(registry.load(record.system).config_class, common)
    for name, value in trial.config.items():
        words += _flag(name, value)
    return shlex.join(words)


def _flag(field: str, value: Value) -> list[str]:
    """The words for a field of the config, as `medray.cli` reads them."""
    if isinstance(value, bool):
        return [flag(field) if value else flag(field).replace("--config.", "--config.no-")]
    return [flag(field), *map(str, value if isinstance(value, tuple) else (value,))]
