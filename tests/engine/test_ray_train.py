"""The same loops on real Ray Train workers: equal to one process, robust to lost workers, honest about mistakes."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from clusters import Beside, local_ray
from toy_learners import Breaks, Regression

from medray.engine.checkpoint import CheckpointStore
from medray.engine.loop import LoopSettings, run_loop
from medray.engine.options import RunOptions
from medray.engine.ray_train import RayWorkbench
from medray.engine.world import World
from medray.learner import Step

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with local_ray():
        yield


class ShootsItself(Regression):
    """The worker that is at step 4 for the first time kills its own process."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.marker = marker

    def training_step(self, batch: Any, step: Step) -> Any:
        if step.index == 4 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch, step)


def reference(run: Path) -> dict[str, torch.Tensor]:
    run_loop(Regression, World(), LoopSettings(name="train", run=run, tensorboard=False))
    found = CheckpointStore(run / "checkpoints" / "train").latest()
    assert found is not None
    return found[0]


def test_killed_worker_is_replaced_and_the_result_is_bit_identical(tmp_path: Path) -> None:
    work = RayWorkbench(tmp_path / "run", RunOptions(data="", num_workers=1))
    result = work.fit(functools.partial(ShootsItself, tmp_path / "shot"))
    assert (tmp_path / "shot").exists()
    assert result.num_steps == 9
    found = CheckpointStore(tmp_path / "run" / "checkpoints" / "train").latest()
    assert found is not None
    expected = reference(tmp_path / "reference")
    assert all(torch.equal(found[0][name], expected[name]) for name in expected)


def test_two_workers_give_the_result_of_one(tmp_path: Path) -> None:
    work = RayWorkbench(tmp_path / "run", RunOptions(data="", num_workers=2))
    result = work.fit(Regression)
    assert result.weights is not None
    found = CheckpointStore(tmp_path / "run" / "checkpoints" / "train").latest()
    assert found is not None
    for name, value in reference(tmp_path / "reference").items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-4, atol=1e-5)


def test_a_mistake_in_the_learner_ends_the_run_with_its_traceback(tmp_path: Path) -> None:
    work = RayWorkbench(tmp_path / "run", RunOptions(data="", num_workers=1))
    with pytest.raises(RuntimeError, match="the learner's own mistake"):
        work.fit(Breaks)


class Slow(Regression):
    def training_step(self, batch: Any, step: Step) -> Any:
        time.sleep(0.2)
        return super().training_step(batch, step)


def test_a_run_outlives_its_desk(tmp_path: Path) -> None:
    work = RayWorkbench(tmp_path / "run", RunOptions(data="", num_workers=1))
    fit = Beside(lambda: work.fit(functools.partial(Slow, num_epochs=8)))
    fit.wait_until((tmp_path / "run" / "metrics.jsonl").exists)
    desks = [p for p in psutil.Process().children(recursive=True) if p.name().startswith("ray::Desk")]
    assert len(desks) == 1
    desks[0].kill()
    assert fit.result().num_steps == 24


def test_interrupt_leaves_a_checkpoint_and_resume_finishes(tmp_path: Path) -> None:
    # Where the tests run in the background of a shell, interrupts are ignored from the start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        check_interrupt(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)


def check_interrupt(tmp_path: Path) -> None:
    work = RayWorkbench(tmp_path / "run", RunOptions(data="", num_workers=1))
    log = tmp_path / "run" / "metrics.jsonl"

    def interrupt() -> None:
        while not log.exists():
            time.sleep(0.1)
        for _ in range(2):  # as a supervisor does that signals the process and its group
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        work.fit(functools.partial(Slow, num_epochs=30))
    found = CheckpointStore(tmp_path / "run" / "checkpoints" / "train").latest()
    assert found is not None
    stopped_at = found[1]["position"]["step"]
    assert 0 < stopped_at < 90
    result = work.fit(functools.partial(Regression, num_epochs=30))
    assert result.num_steps == 90


def test_map_runs_side_by_side_and_raises_what_was_raised(tmp_path: Path) -> None:
    work = RayWorkbench(tmp_path, RunOptions(data="", num_workers=2))
    assert work.map(abs, [-1, 2, -3], name="abs") == [1, 2, 3]
    outs = work.map_runs(lambda bench, item: (bench.out.name, item), "ab", name="parts")
    assert outs == [("0", "a"), ("1", "b")]
    with pytest.raises(ZeroDivisionError):
        work.map(lambda x: 1 / x, [1, 0], name="divide")
