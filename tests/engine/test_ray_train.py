"""The same loops on real Ray Train workers: equal to one process, robust to lost workers, honest about mistakes."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
import urllib.request
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
from medray.engine.rundir import read_json_lines
from medray.engine.world import World
from medray.learner import Step

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "500")
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_leaves_a_checkpoint_and_resume_finishes(tmp_path: Path, number: signal.Signals) -> None:
    # Where the tests run in the background of a shell, interrupts are ignored from the start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        check_interrupt(tmp_path, number)
    finally:
        signal.signal(signal.SIGINT, before)


def check_interrupt(tmp_path: Path, number: signal.Signals) -> None:
    work = RayWorkbench(tmp_path / "run", RunOptions(data="", num_workers=1))
    log = tmp_path / "run" / "metrics.jsonl"

    def interrupt() -> None:
        while not log.exists():
            time.sleep(0.1)
        for _ in range(2):  # as a supervisor does that signals the process and its group
            os.kill(os.getpid(), number)
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


class ReportsItself(Regression):
    """Goes on until the test has seen its metrics."""

    def __init__(self, seen: Path) -> None:
        super().__init__(num_epochs=400)
        self.seen = seen

    def training_step(self, batch: Any, step: Step) -> Any:
        if not self.seen.exists():
            time.sleep(0.1)
        return super().training_step(batch, step)


def test_what_is_logged_is_served_to_prometheus_with_the_split_of_step_time(tmp_path: Path) -> None:
    import ray

    address = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    names = ("train_loss", "train_samples_per_second", "validation_mse", "speed_step_ms", "speed_data_ms",
             "speed_compute_ms", "speed_communication_ms", "speed_checkpoint_ms", "speed_memory_mb",
             "speed_learning_rate_net")  # fmt: skip
    text = ""

    def scrape() -> None:
        nonlocal text
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not all(f"ray_medray_{name}{{" in text for name in names):
            time.sleep(0.5)
            with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
                text = answer.read().decode()
        (tmp_path / "seen").touch()

    scraper = threading.Thread(target=scrape, daemon=True)
    scraper.start()
    RayWorkbench(tmp_path / "a_run", RunOptions(data="")).fit(functools.partial(ReportsItself, tmp_path / "seen"))
    scraper.join(70)
    assert [name for name in names if f"ray_medray_{name}{{" not in text] == []
    assert 'run="a_run"' in text
    speed = [r for r in read_json_lines(tmp_path / "a_run" / "metrics.jsonl") if r["name"] == "speed"]
    parts = ("data_ms", "compute_ms", "communication_ms", "checkpoint_ms")
    for record in speed:
        assert 0 < sum(record[part] for part in parts) <= record["step_ms"] * 1.001


def test_warnings_of_a_worker_reach_the_driver(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work = RayWorkbench(tmp_path / "run", RunOptions(data=""))
    work.fit(functools.partial(Regression, num_epochs=1))
    newest = sorted((tmp_path / "run" / "checkpoints" / "train").glob("step-*"))[-1]
    (newest / "state.pt").write_bytes(b"no longer")
    work.fit(functools.partial(Regression, num_epochs=1))
    assert f"{newest.name} is damaged" in caplog.text
