"""Sweep a system's settings: Ray Tune runs the trials, Optuna chooses them, a page shows what came of them.

    python -m tuning.sweep mvaal --space gamma3 --preset demo --seeds 3
    python -m tuning.sweep blimsr --search 'config.lambda_adv=loguniform(1e-3,1e-1)' --metric ssim --mode max
    python -m tuning.sweep --resume runs/sweeps/blimsr/20260101-120000-search
    ray job submit -- python -m tuning.sweep suts --space suts_descent --preset demo --num-workers 2

Each trial is a run of the system as `train` would do it, scored on the validation cases. docs/sweeps.md has the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from medray.cli.app import existing, guarded, log_to_stderr
from medray.cli.sentences import parse
from medray.cli.show import line
from tuning.settings import SweepSettings

PROG = "python -m tuning.sweep"
_REPEATABLE = ("--search", "--set", "--metric", "--mode")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; the last line printed is the sweep's folder."""
    log_to_stderr()
    arguments = gathered(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _sweep(arguments), resume_with=f"{PROG} --resume")


def gathered(argv: Sequence[str]) -> list[str]:
    """The arguments with the values of flags that may be repeated brought together: ``--search A --search B``."""
    kept: list[str] = []
    values: dict[str, list[str]] = {}
    current = ""
    for token in argv:
        name, equals, value = token.partition("=")
        if token.startswith("--"):
            current = name if name in _REPEATABLE else ""
            if current:
                values.setdefault(current, []).extend([value] if equals else [])
                continue
        if current:
            values[current].append(token)
        else:
            kept.append(token)
    return kept + [word for name, several in values.items() for word in (name, *several)]


def _sweep(argv: list[str]) -> int:
    description = (__doc__ or "").split("\n\n")[0]
    folder = _resumed(argv)
    from tuning import run  # only now: it imports Ray, and --help should not

    stored = replace(run.stored_settings(folder), resume=folder) if folder else SweepSettings()
    asked = parse(SweepSettings, argv, prog=PROG, description=description, default=stored)
    if folder:
        run.settled(stored, asked)
    line(str(run.resume(asked) if folder else run.start(asked)))
    return 0


def _resumed(argv: Sequence[str]) -> str:
    """The folder of ``--resume``, looked up ahead of the parse."""
    for index, token in enumerate(argv):
        name, equals, value = token.partition("=")
        if name == "--resume":
            value = value if equals else next(iter(argv[index + 1 : index + 2]), "")
            if value and not value.startswith("--"):
                existing("--resume", value, "the folder of a sweep")
                return value
    return ""


if __name__ == "__main__":
    raise SystemExit(main())
