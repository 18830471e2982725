"""What a trial does in population-based training: learn for a turn, tell, go on from its own weights or another's.

A turn ends when the run's loop, asked to stop after a measurement, has written a checkpoint and ended. The next one
goes on from there, in this process or another. Told to go on from another trial, it first puts that one's checkpoints
in the place of its own. ``turns.json`` in the run's folder says which change it has made already, so whoever starts it
again goes on with what is there: Tune would offer the checkpoint of the last turn, which may be older than the run's.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune

from medray.engine.host import Host
from medray.engine.rundir import RunDirectory
from medray.engine.trial import TrialResult
from medray.engine.workbench import StoppedByUser
from medray.errors import UserError

NOT_JUDGED = frozenset({"train", "speed"})
"""Records of a loop that tell nothing about cases it has not learnt from."""
_FILE = "turns.json"
_CHECKPOINTS = "checkpoints"


class NoTrialCan(UserError):
    """What is wrong with one trial is wrong with all."""


@dataclass(frozen=True)
class Turns:
    """Where a trial is between two turns.

    Attributes:
        change: how many changes of weights and settings are behind it.
        step: epoch or round of its last turn's end.
        seconds: of work in all turns.
    """

    change: int = 0
    step: int = 0
    seconds: float = 0.0


def learn_in_turns(
    run: RunDirectory,
    learn: Callable[[Host], TrialResult],
    *,
    metric: str,
    every: int,
    taken: Mapping[str, Any] | None,
) -> tuple[TrialResult, list[tuple[int, float]]]:
    """Learn to the end of the run, telling Tune after each turn; where Tune pauses the trial, this does not return.

    Args:
        run: of the trial.
        learn: learns and scores with what it is given as the listener; raises `StoppedByUser` where that stopped it.
        metric: what is told, as measured during training.
        every: epochs or rounds in a turn, at least.
        taken: from whom to go on: "change", counted from 1; "checkpoint", a folder; "source_step", where that one was.

    Returns:
        the result, and the (step, value) measured since the last turn.

    Raises:
        NoTrialCan: the training of this system does not measure the metric, or has no loop that can be stopped.
    """
    turns = _read(run)
    if taken and turns.change < taken["change"]:
        take_over(run, Path(taken["checkpoint"]))
        turns = replace(turns, change=taken["change"], step=taken["source_step"])
        run.write_json(_FILE, asdict(turns))
    if (done := run.read_result()) is not None:  # it was interrupted before it could tell
        return TrialResult(done["metrics"], turns.seconds + done["seconds"]), []
    while True:
        listener = TurnListener(metric, turns.step + every)
        began = time.perf_counter()
        try:
            result = learn(listener)
        except StoppedByUser:
            step, value = listener.curve[-1]
            turns = replace(turns, step=step, seconds=turns.seconds + time.perf_counter() - began)
            run.write_json(_FILE, asdict(turns))
            checkpoint = tune.Checkpoint.from_directory(str(run.path / _CHECKPOINTS))
            tune.report({"step": step, "value": value, "curve": listener.curve}, checkpoint=checkpoint)
            continue
        if not turns.step:
            _check(run, listener, metric)
        return replace(result, seconds=result.seconds + turns.seconds), listener.curve


def take_over(run: RunDirectory, checkpoints: Path) -> None:
    """Put another run's checkpoints in the place of a run's own: all of them or, if this is killed, none."""
    place = run.path / _CHECKPOINTS
    fresh, old = run.path / f".{_CHECKPOINTS}.new", run.path / f".{_CHECKPOINTS}.old"
    for left_over in (fresh, old):
        shutil.rmtree(left_over, ignore_errors=True)
    shutil.copytree(checkpoints, fresh, ignore=shutil.ignore_patterns(".*"))
    with suppress(FileNotFoundError):  # killed between the two renames
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)


class TurnListener(Host):
    """Asks the loop to stop at the first measurement from a given step on.

    Args:
        metric: what is listened for.
        until: epoch or round that ends the turn.

    Attributes:
        curve: (step, value) of each measurement.
        others: names of what else was measured.
    """

    def __init__(self, metric: str, until: int) -> None:
        super().__init__()
        self._metric, self._until = metric, until
        self.others: set[str] = set()
        self.curve: list[tuple[int, float]] = []

    def observe(self, name: str, metrics: Mapping[str, float]) -> None:
        """Note what was measured."""
        if name in NOT_JUDGED:
            return
        value = metrics.get(self._metric)
        if value is None or not math.isfinite(value):
            self.others |= metrics.keys() - {self._metric, "step", "epoch"}
            return
        self.curve.append((max(int(metrics.get("epoch", metrics.get("step", 1))), 1), float(value)))

    def stop_requested(self) -> bool:
        """Whether the turn is over."""
        return bool(self.curve) and self.curve[-1][0] >= self._until


def _check(run: RunDirectory, listener: TurnListener, metric: str) -> None:
    """At the end of a run without a turn: that there could have been one."""
    if not any((run.path / _CHECKPOINTS).glob("*/step-*")):
        raise NoTrialCan(
            "--scheduler pbt goes on from checkpoints, and this system trains without any; give another --scheduler"
        )
    if not listener.curve and listener.others:
        known = ", ".join(sorted(listener.others))
        raise NoTrialCan(f"--stop-on {metric} is not measured while this system trains; it measures {known}")


def _read(run: RunDirectory) -> Turns:
    try:
        return Turns(**json.loads((run.path / _FILE).read_text()))
    except FileNotFoundError:
        return Turns()
