"""One worker without Ray, in a forked child that is killed and started again: alone, with storage, with loaders."""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from object_store import Network, object_store

from medray.engine.checkpoint import CHECKSUMS, CheckpointStore
from medray.engine.host import Host
from medray.engine.loop import LoopSettings, run_loop
from medray.engine.mirror import Mirror
from medray.engine.options import LoopOptions
from medray.engine.world import World
from medray.storage import Folder
from tests.chaos.kills import ANY, LOADER_KILLED, UPLOADING, WRITING, Aim, Kill, damage, end, hunt, moments_of, plan
from tests.chaos.learners import Subject
from tests.chaos.notes import BETWEEN, LOADER, PREPARING, STARTING, TRAINING, VALIDATING, Note
from tests.chaos.stage import Run, Stage
from tests.chaos.verdict import compare, failed

_PATIENCE_S = 120.0


class Child:
    """A function in a forked process; what it says goes to a file."""

    def __init__(self, function: Callable[[], object], said: Path) -> None:
        said.parent.mkdir(parents=True, exist_ok=True)
        self.said = said
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        status = 1
        try:
            file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(file, 1)
            os.dup2(file, 2)
            logging.basicConfig()
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def is_over(self) -> bool:
        """Whether it has ended; its wait status is then in ``status``."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = status if pid else None
        return self.status is not None

    def result(self) -> int:
        """Its wait status; one that does not end in time is killed."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self.is_over():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.002)
        assert self.status is not None
        return self.status


class Between:
    """What happens to the machine between a kill and the next try; nothing, in this one."""

    def after_kill(self) -> str:
        """Do it and say what."""
        return ""

    def before_last(self) -> None:
        """Before the try that may end."""

    def problems(self) -> tuple[str, ...]:
        """What did not come of it that should have, at the end."""
        return ()


class DamagedCheckpoints(Between):
    """Often the newest checkpoint is found unreadable; the run must say so and take the one before.

    No other is ever to be found damaged: a kill alone must not leave half a checkpoint in sight.
    """

    def __init__(self, run: Run, said: Path, rng: random.Random) -> None:
        self.run, self.said, self.rng = run, said, rng
        self._expected: list[tuple[str, int]] = []

    def after_kill(self) -> str:
        whole = [path for path in sorted(self.run.board.checkpoints.glob("step-*")) if _is_whole(path)]
        if len(whole) < 2 or self.rng.random() < 0.25:
            return ""
        first = not self._expected
        self._expected.append((whole[-1].name, self.said.stat().st_size))
        return damage(whole[-1], self.rng, weights=first)

    def problems(self) -> tuple[str, ...]:
        text = self.said.read_text()
        unexpected = _found_damaged(self.run) - {name for name, _ in self._expected}
        return (
            *(f"half of {name} was in sight" for name in sorted(unexpected)),
            *(
                f"{name} was damaged, and no warning said so"
                for name, before in self._expected
                if f"{name} is damaged" not in text[before:]
            ),
        )


class LostMachines(Between):
    """Now and then the machine's disk is gone too, or the network to storage is slow for a while.

    What is found in storage must never be half a checkpoint.
    """

    def __init__(self, run: Run, network: Network, rng: random.Random) -> None:
        self.run, self.network, self.rng = run, network, rng

    def after_kill(self) -> str:
        what = []
        if self.rng.random() < 0.5:
            shutil.rmtree(self.run.folder, ignore_errors=True)
            what.append("the machine's folder lost")
        self.network.heal()
        if self.rng.random() < 0.5:
            self.network.slow(2_000_000)
            what.append("slow network")
        return ", ".join(what)

    def before_last(self) -> None:
        self.network.heal()

    def problems(self) -> tuple[str, ...]:
        return tuple(f"half of {name} was in sight" for name in sorted(_found_damaged(self.run)))


class WatchedFolder(Folder):
    """Notes when something is being uploaded."""

    note: Callable[[], Note]

    def upload(self, path: Path, name: str) -> None:
        self.note().uploading(True)
        try:
            super().upload(path, name)
        finally:
            self.note().uploading(False)


def process(stage: Stage) -> None:
    """Kills of the process, at every moment; some newest checkpoints are damaged between."""
    aims = (STARTING, PREPARING, TRAINING, VALIDATING, BETWEEN, WRITING, WRITING, ANY)
    for learner in stage.learners:
        run, rng = stage.run("process", learner), stage.rng("process", learner)
        said = run.folder.with_name("said")
        fit = partial(_fit, run.folder, run.subject, checkpoint_every_steps=1)
        _play(stage, "process", run, fit, plan(rng, aims, stage.most), DamagedCheckpoints(run, said, rng))


def loader(stage: Stage) -> None:
    """Kills of the process while another prepares its batches, and of that other one."""
    aims = (LOADER_KILLED, LOADER_KILLED, TRAINING, VALIDATING, ANY)
    for learner in stage.learners:
        run, rng = stage.run("loader", learner), stage.rng("loader", learner)
        fit = partial(_fit, run.folder, run.subject, checkpoint_every_steps=2, loader_workers=1)
        _play(stage, "loader", run, fit, plan(rng, aims, stage.most), Between())


def storage(stage: Stage) -> None:
    """A run that lives in object storage; its machine may be lost with the process, and the network be slow."""
    aims = (UPLOADING, UPLOADING, WRITING, TRAINING, ANY)
    with object_store() as store, store.bad_network() as network:
        bucket = store.bucket("chaos")
        for learner in stage.learners:
            run, rng = stage.run("storage", learner), stage.rng("storage", learner)
            url = f"{bucket}/{learner}"
            fit = partial(_fit, run.folder, run.subject, url, checkpoint_every_steps=1)
            between = LostMachines(run, network, rng)
            _play(stage, "storage", run, fit, plan(rng, aims, stage.most), between, lasting=url)


def _play(
    stage: Stage,
    scenario: str,
    run: Run,
    fit: Callable[[], object],
    aims: list[Aim],
    between: Between,
    lasting: str = "",
) -> None:
    learner, said = run.subject.kind, run.folder.with_name("said")
    reference = stage.reference(learner, 1, _fit_in_child)
    for aim in aims:
        child = Child(fit, said)
        aimed_at_loader = aim.moment == LOADER_KILLED
        try:
            victim = hunt(
                Aim(ANY, aim.steps, aim.pause_s) if aimed_at_loader else aim,
                run.board,
                partial(run.board.of_kind, LOADER) if aimed_at_loader else lambda pid=child.pid: [pid],
                child.is_over,
            )
            if victim is None:
                break
            end(victim)
        finally:
            if not aimed_at_loader:
                end_if_alive(child)
        child.result()
        moments = (LOADER_KILLED,) if aimed_at_loader else moments_of(run.board, victim)
        kill = Kill(scenario, learner, moments, run.board.read(child.pid).step)
        stage.killed(kill, between.after_kill())
    between.before_last()
    status = Child(fit, said).result()
    if status != 0:
        stage.judge(scenario, learner, failed(f"ended with status {status}: {_last_words(said)}"))
        return
    folder = run.folder
    if lasting:
        folder = folder.with_name("elsewhere")
        Child(partial(_fetch, folder, lasting), said).result()
    stage.judge(scenario, learner, compare(folder, reference).and_also(between.problems()))


def end_if_alive(child: Child) -> None:
    """Leave nothing behind."""
    if not child.is_over():
        end(child.pid)


def _fit(folder: Path, subject: Subject, url: str = "", **options: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    mirror = None

    def make() -> object:
        learner = subject()
        if mirror is not None:
            mirror.remote.note = learner.note
        return learner

    if url:
        mirror = Mirror(folder, WatchedFolder(url))
    settings = LoopSettings(name="train", run=folder, options=LoopOptions(**options), tensorboard=False)
    run_loop(make, World(), settings, Host(mirror))


def _fit_in_child(folder: Path, subject: Subject) -> None:
    status = Child(partial(_fit, folder, subject, loader_workers=0), folder.with_name("said")).result()
    assert status == 0, f"the undisturbed run failed: {_last_words(folder.with_name('said'))}"


def _fetch(folder: Path, url: str) -> None:
    folder.mkdir()
    Mirror(folder, Folder(url)).fetch_checkpoints(folder / "checkpoints" / "train")


def _is_whole(checkpoint: Path) -> bool:
    return (checkpoint / CHECKSUMS).exists() and CheckpointStore(checkpoint.parent).is_whole(checkpoint)


def _found_damaged(run: Run) -> set[str]:
    return set(re.findall(r"(step-\d+) is damaged", run.folder.with_name("said").read_text()))


def _last_words(said: Path) -> str:
    return said.read_text().strip().splitlines()[-1] if said.exists() else "it said nothing"
