"""The command that runs a trial again, outside of its sweep."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from tuning.records import SweepRecord, TrialRecord
from tuning.space import Value

_TRUTH = {"true": True, "false": False}


def reproduce_command(record: SweepRecord, trial: TrialRecord, seed: int) -> str:
    """The job with everything that the trial set, as one line for a shell.

    Args:
        record: of the sweep.
        trial: one of its trials.
        seed: of the run among those of the trial.
    """
    given: Mapping[str, str] = record.settings.get("set") or {}
    words = ["python", f"jobs/{record.system}.py", "train"]
    for flag, value in (("preset", record.preset), ("variant", record.variant), ("data", record.data)):
        words += [f"--{flag}", value]
    words += ["--seed", str(seed)]
    for name, text in given.items():
        if name not in trial.config:
            words += _flag(name, _TRUTH[text.lower()]) if text.lower() in _TRUTH else [_name(name), *text.split()]
    for name, value in trial.config.items():
        words += _flag(name, value)
    return shlex.join(words)


def _flag(name: str, value: Value) -> list[str]:
    """The words for a field of the config, as `medray.cli` reads them."""
    if isinstance(value, bool):
        return [_name(name) if value else _name(f"no_{name}")]
    return [_name(name), *map(str, value if isinstance(value, tuple) else (value,))]


def _name(field: str) -> str:
    body = field.strip("_")  # the flag of lambda_ is --config.lambda_
    return f"--config.{field.replace(body, body.replace('_', '-'))}"
