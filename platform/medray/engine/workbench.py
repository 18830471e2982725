"""The `Workbench` in one process: notebooks, tests, `--num-workers 0`, and each of many runs side by side on Ray."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from medray.data.cache import SampleCache
from medray.engine.host import Host
from medray.engine.loop import LoopResult, LoopSettings, run_loop
from medray.engine.mirror import Mirror
from medray.engine.options import LoopOptions
from medray.engine.reinforce import run_reinforce, usable_precision
from medray.engine.rundir import append_json
from medray.engine.stages import run_stage
from medray.engine.world import World
from medray.learner import Learner
from medray.policy import PolicyProblem
from medray.progress import Watcher
from medray.storage import Folder
from medray.storage.local import local_copy
from medray.system import FitResult, Hosting, Team, Workbench

if TYPE_CHECKING:
    from medray.rl.crew import Crew

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class StoppedByUser(KeyboardInterrupt):
    """The run was asked to stop and has left a checkpoint to go on from."""


class InProcessWorkbench:
    """Everything in this process, one thing after another.

    Attributes:
        device: where its loops compute; the CPU unless a process was given a GPU.
        listener: hears what the run's own loops log, and may ask them to stop; a sweep listens to its trials this way.
    """

    def __init__(
        self,
        out: Path,
        options: LoopOptions | None = None,
        *,
        mirror: Mirror | None = None,
        quiet: bool = False,
        tensorboard: bool = True,
    ) -> None:
        self.out = out
        self.mirror = mirror
        self.options = options or LoopOptions()
        self.seed = self.options.seed
        self.device = torch.device("cpu")
        self.listener = Host()
        self.quiet = quiet
        self.tensorboard = tensorboard
        self._started = time.monotonic()
        out.mkdir(parents=True, exist_ok=True)

    @property
    def place(self) -> str:
        """See `Workbench.place`."""
        return self.url or str(self.out)

    @property
    def url(self) -> str:
        """Where in object storage this folder lasts; empty where the folder itself does."""
        if self.mirror is None:
            return ""
        below = self.out.relative_to(self.mirror.local).as_posix()
        return self.mirror.remote.url if below == "." else f"{self.mirror.remote.url}/{below}"

    @property
    def cache(self) -> SampleCache:
        """See `Workbench.cache`."""
        return SampleCache(memory_gb=self.options.cache_memory_gb, disk_gb=self.options.cache_disk_gb)

    def fit(self, make_learner: Callable[[], Learner], *, name: str = "train") -> FitResult:
        """See `Workbench.fit`. Ctrl-C stops after the current step with a checkpoint."""
        watcher = contextlib.nullcontext() if self.quiet else Watcher(self.out / "metrics.jsonl")
        with StopOnSignal(self.mirror, self.listener) as host, watcher:
            return fit_result(run_loop(make_learner, World(device=self.device), self.loop_settings(name), host))

    def reinforce(self, problem: PolicyProblem, *, name: str = "train") -> FitResult:
        """See `Workbench.reinforce`. Ctrl-C stops after the current round with a checkpoint."""
        from medray.rl.crew import CrewHere  # importing RLlib takes seconds

        precision = usable_precision(self.options)
        return self._reinforce(problem, lambda: CrewHere(problem, self.seed, precision=precision), name)

    def _reinforce(self, problem: PolicyProblem, make_crew: Callable[[], Crew], name: str) -> FitResult:
        watcher = contextlib.nullcontext() if self.quiet else Watcher(self.out / "metrics.jsonl")
        with StopOnSignal(self.mirror, self.listener) as host, watcher:
            return fit_result(run_reinforce(problem, make_crew, self.loop_settings(name), host))

    def forget(self, name: str) -> None:
        """See `Workbench.forget`."""
        folder = self.out / "checkpoints" / name
        shutil.rmtree(folder, ignore_errors=True)
        if self.mirror is not None:
            self.mirror.remote.folder(folder.relative_to(self.mirror.local).as_posix()).delete_all()

    def map(self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, name: str) -> list[ResultT]:
        """See `Workbench.map`."""
        return [function(item) for item in items]

    def map_runs(
        self, function: Callable[[Workbench, ItemT], ResultT], items: Iterable[ItemT], *, name: str
    ) -> list[ResultT]:
        """See `Workbench.map_runs`."""
        return [function(self.nested(f"{name}/{index}"), item) for index, item in enumerate(items)]

    def stage(self, name: str, make: Callable[[Path], None]) -> Path:
        """See `Workbench.stage`."""
        return run_stage(self.out / "stages" / name, make, self.mirror)

    @contextlib.contextmanager
    def team(
        self,
        make_member: Callable[[Workbench, ItemT], Any],
        items: Mapping[str, ItemT],
        *,
        name: str,
        hosting: Hosting = "process",
        patient: bool = False,
    ) -> Iterator[Team]:
        """See `Workbench.team`. All are in this process."""
        yield InProcessTeam({key: make_member(self.nested(f"{name}/{key}"), item) for key, item in items.items()})

    def log(self, metrics: Mapping[str, float], *, name: str) -> None:
        """See `Workbench.log`."""
        elapsed = round(time.monotonic() - self._started, 3)
        append_json(self.out / "metrics.jsonl", {"name": name, "wall_s": elapsed, **metrics})
        self.listener.observe(name, metrics)

    def say(self, message: str) -> None:
        """See `Workbench.say`."""
        if not self.quiet:
            log.info("%s", message)

    def loop_settings(self, name: str) -> LoopSettings:
        """Settings of a gradient loop called ``name`` in this run."""
        options = replace(self.options, seed=self.seed)
        return LoopSettings(name=name, run=self.out, options=options, tensorboard=self.tensorboard)

    def nested(self, name: str) -> InProcessWorkbench:
        """A workbench of its own under this run, in this process."""
        options = replace(self.options, seed=self.seed)
        work = InProcessWorkbench(self.out / name, options, mirror=self.mirror, quiet=True, tensorboard=False)
        work.device = self.device
        return work


def part_of_run(part: str, out: Path, url: str, options: LoopOptions) -> InProcessWorkbench:
    """The workbench of a part of a run that is carried out in this process, maybe on another machine than the run.

    Args:
        part: name of the folder below the run's.
        out: the run's folder.
        url: where that lasts in object storage; empty where it is on storage all machines share.
        options: of the run.
    """
    mirror = Mirror(local_copy(f"{url}/{part}", "task"), Folder(f"{url}/{part}")) if url else None
    folder = mirror.local if mirror else out / part
    return InProcessWorkbench(folder, options, mirror=mirror, quiet=True, tensorboard=False)


class InProcessTeam:
    """See `medray.system.Team`: members in this process, called one after another. Nobody goes away."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = members

    def call(self, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """See `medray.system.Team.call`."""
        return {name: getattr(self._members[name], method)(*args) for name, args in arguments.items()}


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


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM (`ray job stop`, a pod that is evicted) is heard as Ctrl-C is: the run saves before it ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopOnSignal(Host):
    """Asks the loop to stop at the first Ctrl-C or SIGTERM; another one interrupts at once. So may the listener."""

    def __init__(self, mirror: Mirror | None, listener: Host) -> None:
        super().__init__(mirror)
        self._listener = listener
        self._asked = False
        self._pid = os.getpid()
        self._previous: dict[int, Any] = {}

    def stop_requested(self) -> bool:
        """Whether a signal came, or the listener asks."""
        return self._asked or self._listener.stop_requested()

    def observe(self, name: str, metrics: Mapping[str, float]) -> None:
        """Tell the listener."""
        self._listener.observe(name, metrics)

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame: object) -> None:
        if os.getpid() != self._pid:  # a forked process that prepares batches: its parent will end it
            return
        self._asked = True
        for each in self._previous:
            signal.signal(each, signal.default_int_handler)
        log.warning("stopping after this step with a checkpoint; %s again stops at once", signal.Signals(number).name)
