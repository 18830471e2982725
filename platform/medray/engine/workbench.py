"""The `Workbench` in one process: notebooks, tests, `--num-workers 0`, and each of many runs side by side on Ray."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from medray.engine.loop import LoopResult, LoopSettings, run_loop
from medray.engine.options import Precision
from medray.engine.rundir import append_json
from medray.engine.world import World
from medray.learner import Learner
from medray.progress import Watcher
from medray.system import FitResult, Workbench

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class StoppedByUser(KeyboardInterrupt):
    """The run was asked to stop and has left a checkpoint to go on from."""


class InProcessWorkbench:
    """Everything in this process, one thing after another."""

    def __init__(
        self,
        out: Path,
        *,
        seed: int = 0,
        precision: Precision = "fp32",
        checkpoint_every_steps: int = 0,
        quiet: bool = False,
        tensorboard: bool = True,
    ) -> None:
        self.out = out
        self.seed = seed
        self.precision: Precision = precision
        self.checkpoint_every_steps = checkpoint_every_steps
        self.quiet = quiet
        self.tensorboard = tensorboard
        self._started = time.monotonic()
        out.mkdir(parents=True, exist_ok=True)

    def fit(self, make_learner: Callable[[], Learner], *, name: str = "train") -> FitResult:
        """See `Workbench.fit`. Ctrl-C stops after the current step with a checkpoint."""
        watcher = contextlib.nullcontext() if self.quiet else Watcher(self.out / "metrics.jsonl")
        with _interrupt_as_stop_file(self.out / "stop"), watcher:
            return fit_result(run_loop(make_learner, World(), self.loop_settings(name)))

    def map(self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, name: str) -> list[ResultT]:
        """See `Workbench.map`."""
        return [function(item) for item in items]

    def map_runs(
        self, function: Callable[[Workbench, ItemT], ResultT], items: Iterable[ItemT], *, name: str
    ) -> list[ResultT]:
        """See `Workbench.map_runs`."""
        return [function(self.nested(f"{name}/{index}"), item) for index, item in enumerate(items)]

    def log(self, metrics: Mapping[str, float], *, name: str) -> None:
        """See `Workbench.log`."""
        elapsed = round(time.monotonic() - self._started, 3)
        append_json(self.out / "metrics.jsonl", {"name": name, "wall_s": elapsed, **metrics})

    def say(self, message: str) -> None:
        """See `Workbench.say`."""
        if not self.quiet:
            log.info("%s", message)

    def loop_settings(self, name: str) -> LoopSettings:
        """Settings of a gradient loop called ``name`` in this run."""
        return LoopSettings(
            name=name,
            run=self.out,
            seed=self.seed,
            precision=self.precision,
            checkpoint_every_steps=self.checkpoint_every_steps,
            stop_file=self.out / "stop",
            tensorboard=self.tensorboard,
        )

    def nested(self, name: str) -> InProcessWorkbench:
        """A workbench of its own under this run, in this process."""
        return InProcessWorkbench(
            self.out / name,
            seed=self.seed,
            precision=self.precision,
            checkpoint_every_steps=self.checkpoint_every_steps,
            quiet=True,
            tensorboard=False,
        )


def fit_result(result: LoopResult) -> FitResult:
    """What a system sees of a finished loop.

    Raises:
        StoppedByUser: the loop was stopped before its end.
    """
    if not result.finished:
        raise StoppedByUser(f"stopped after step {result.step}")
    return FitResult(
        weights=Path(result.weights) if result.weights else None,
        metrics=result.metrics,
        num_steps=result.step,
        seconds=result.seconds,
        samples_per_second=result.samples_per_second,
    )


class _interrupt_as_stop_file:
    """Turn the first Ctrl-C into the stop file the loop looks for; a second one interrupts at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        import signal

        self.path.unlink(missing_ok=True)
        self._previous = None
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.getsignal(signal.SIGINT)

            def ask(_signum: int, _frame: object) -> None:
                self.path.touch()
                signal.signal(signal.SIGINT, self._previous)
                log.warning("stopping after this step; Ctrl-C again stops at once")

            signal.signal(signal.SIGINT, ask)

    def __exit__(self, *_: object) -> None:
        import signal

        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        self.path.unlink(missing_ok=True)
