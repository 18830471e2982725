"""Two workers on Ray: one of them is killed, or the driver with its cluster, or a whole node."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from clusters import Beside, Nodes, local_ray
from clusters import nodes as cluster_of_nodes

from medray.engine.options import RunOptions
from medray.engine.ray_train import RayWorkbench
from tests.chaos.kills import WRITING, Kill, end, hunt, moments_of, plan
from tests.chaos.learners import Subject
from tests.chaos.notes import PREPARING, STARTING, TRAINER, TRAINING, VALIDATING
from tests.chaos.stage import Run, Stage
from tests.chaos.verdict import compare

OPTIONS = RunOptions(data="", num_workers=2, max_failures=-1, checkpoint_every_steps=2)
_AIMS = (PREPARING, TRAINING, VALIDATING, WRITING)
_KILLS_IN_A_RUN = {"workers": 2, "driver": 2, "nodes": 2}
"""Each costs a start of two worker processes, or of a cluster."""
_PATIENCE_S = 180.0


def workers(stage: Stage) -> None:
    """One of the two training processes is killed; Ray Train starts both anew."""
    with _quiet(stage), local_ray():
        for learner in stage.learners:
            reference = stage.reference(learner, 2, _fit)
            run = stage.run("workers", learner)
            with _Training(partial(_fit, run.folder, run.subject)) as training:
                _kill(stage, "workers", run, end, training.over.is_set)
                training.beside.result(_PATIENCE_S)
            stage.judge("workers", learner, compare(run.folder, reference))


def nodes(stage: Stage) -> None:
    """A node of the two is killed with everything on it, and replaced."""
    learner = stage.learners[-1]
    with _quiet(stage), cluster_of_nodes(2) as cluster:
        reference = stage.reference(learner, 2, _fit)
        run = stage.run("nodes", learner)
        with _Training(partial(_fit, run.folder, run.subject)) as training:
            _kill(stage, "nodes", run, partial(_replace_node_of, cluster), training.over.is_set)
            training.beside.result(_PATIENCE_S)
        stage.judge("nodes", learner, compare(run.folder, reference))


def driver(stage: Stage) -> None:
    """The process that started Ray and the training is killed, and started again in the same folder."""
    learner = stage.learners[0]
    with _quiet(stage):
        reference = stage.reference(learner, 2, _fit_by_a_driver)
        run = stage.run("driver", learner)
        tries: list[Driver] = []

        def strike(_: int) -> None:
            end(tries[-1].process.pid)
            tries[-1].process.wait()
            tries.append(Driver(run.folder, run.subject))

        tries.append(Driver(run.folder, run.subject))
        try:
            _kill(stage, "driver", run, strike, lambda: tries[-1].process.poll() is not None)
            tries[-1].finish()
        finally:
            for each in tries:
                each.close()
        stage.judge("driver", learner, compare(run.folder, reference))


class Driver:
    """A driver in a process of its own, with a Ray of its own; see driver.py."""

    def __init__(self, folder: Path, subject: Subject) -> None:
        self._start(folder, ["tests.chaos.driver", str(folder), subject.kind, str(subject.notes), str(subject.pace_s)])

    @classmethod
    def of(cls, module: str, folder: Path) -> Driver:
        """A driver that is another module, called with the folder."""
        driver = cls.__new__(cls)
        driver._start(folder, [module, str(folder)])
        return driver

    def _start(self, folder: Path, module: list[str]) -> None:
        self.said = folder.with_name("said")
        self.said.parent.mkdir(parents=True, exist_ok=True)
        self._scratch = tempfile.TemporaryDirectory(prefix="mr", dir="/tmp", ignore_cleanup_errors=True)
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        with self.said.open("a") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *module],
                env={**environment, "RAY_TMPDIR": self._scratch.name},
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def finish(self) -> None:
        """Wait for its end, which must be a good one."""
        status = self.process.wait(_PATIENCE_S)
        assert status == 0, f"the driver ended with status {status}: {self.said.read_text().splitlines()[-1:]}"

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._scratch.cleanup()


class _Training:
    """A run beside the main thread; ``over`` is set once it ended, well or not."""

    def __init__(self, fit: Callable[[], None]) -> None:
        self._fit = fit
        self.over = threading.Event()

    def __enter__(self) -> _Training:
        self.beside: Beside[None] = Beside(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing: Ray's end ends it."""

    def _run(self) -> None:
        try:
            self._fit()
        finally:
            self.over.set()


def _kill(stage: Stage, scenario: str, run: Run, strike: Callable[[int], None], over: Callable[[], bool]) -> None:
    learner = run.subject.kind
    rng = stage.rng(scenario, learner)
    before: set[int] = set()  # of the tries that are over

    def candidates(order: int) -> list[int]:
        return [pid for pid in run.board.of_kind(TRAINER) if pid not in before][::order]

    for aim in plan(
        rng, (*_AIMS, STARTING) if scenario == "workers" else _AIMS, min(stage.most, _KILLS_IN_A_RUN[scenario])
    ):
        either_worker = partial(candidates, rng.choice((1, -1)))
        victim = hunt(aim, run.board, either_worker, over, _PATIENCE_S)
        if victim is None:
            return
        before.update(run.board.pids())
        strike(victim)
        stage.killed(Kill(scenario, learner, moments_of(run.board, victim), run.board.read(victim).step))


def _replace_node_of(cluster: Nodes, worker: int) -> None:
    family = {process.pid for process in psutil.Process(worker).parents()}
    node = next(node for node in cluster.alive if node.all_processes["raylet"][0].process.pid in family)
    cluster.kill(node)
    cluster.add()


def _fit(folder: Path, subject: Subject) -> None:
    RayWorkbench(folder, OPTIONS).fit(subject)


def _fit_by_a_driver(folder: Path, subject: Subject) -> None:
    undisturbed = Driver(folder, subject)
    try:
        undisturbed.finish()
    finally:
        undisturbed.close()


@contextmanager
def _quiet(stage: Stage) -> Iterator[Any]:
    """What Ray and the runs themselves say goes to a file."""
    with (stage.folder / "said").open("a") as file, redirect_stdout(file), redirect_stderr(file):
        yield
