"""Training on several nodes: one of them dies by SIGKILL, is replaced or is not, and the result is the same."""

from __future__ import annotations

import functools
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from clusters import Beside, Nodes, nodes
from toy_learners import Diary

from medray.engine.checkpoint import CheckpointStore
from medray.engine.elastic import prompt_resizing
from medray.engine.loop import LoopSettings, run_loop
from medray.engine.options import RunOptions
from medray.engine.ray_train import RayWorkbench
from medray.engine.rundir import read_json_lines
from medray.engine.world import World
from medray.errors import UserError
from medray.learner import Step
from medray.system import FitResult

pytestmark = pytest.mark.ray

BATCHES = 3  # of 11 samples, 4 to a batch: the last has 3


class Watched(Diary):
    """Notes which samples each worker sees at each step, and takes its time until the test says otherwise."""

    def __init__(self, folder: Path, num_epochs: int) -> None:
        super().__init__(num_epochs=num_epochs)
        self.folder = folder
        self.last_slow_step = num_epochs * BATCHES - 2

    def training_step(self, batch: dict[str, Any], step: Step) -> Any:
        hurry = self.folder / "hurry"
        if not hurry.exists():
            time.sleep(0.1)
        while step.index >= self.last_slow_step and not hurry.exists():
            time.sleep(0.05)
        metrics = super().training_step(batch, step)
        world = step.world  # type: ignore[attr-defined]  # what a learner must not ask, a test may
        note = {"step": step.index, "rank": world.rank, "size": world.size, "samples": batch["index"].tolist()}
        with (self.folder / f"{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps({**note, "time": time.time()}) + "\n")
        return metrics


class Run:
    """One training run on the cluster, beside the main thread."""

    def __init__(self, folder: Path, *, num_epochs: int, **options: Any) -> None:
        folder.mkdir()
        self.folder, self.num_epochs = folder, num_epochs
        work = RayWorkbench(folder / "run", RunOptions(data="", max_failures=-1, **options))
        self.fit: Beside[FitResult] = Beside(
            functools.partial(work.fit, functools.partial(Watched, folder, num_epochs))
        )

    def notes(self) -> list[dict[str, Any]]:
        """What the workers noted, in the order of time."""
        found = [note for path in self.folder.glob("*.jsonl") for note in read_json_lines(path)]
        return sorted(found, key=lambda note: note["time"])

    def sizes(self) -> list[int]:
        """How many workers there were, one entry per change."""
        return [size for size, _ in groupby(self.notes(), key=lambda note: note["size"])]

    def wait_for_sizes(self, *sizes: int) -> None:
        self.fit.wait_until(lambda: self.sizes() == list(sizes))
        done = len(self.notes())
        self.fit.wait_until(lambda: len(self.notes()) >= done + 3 * sizes[-1])  # some steps at that size

    def hurry(self) -> None:
        (self.folder / "hurry").touch()

    def finish(self) -> dict[str, torch.Tensor]:
        """Wait for the end, check what holds for every run, and return the weights."""
        assert self.fit.result().num_steps == self.num_epochs * BATCHES
        weights, state = saved(self.folder / "run")
        visits = {index: entry["visits"].item() for index, entry in state["sample_state"].items()}
        assert visits == dict.fromkeys(range(11), float(self.num_epochs))
        self._check_order()
        return weights

    def _check_order(self) -> None:
        learner = Diary()
        ranks: dict[tuple[int, int], dict[int, set[int]]] = defaultdict(dict)
        for note in self.notes():
            ranks[note["step"], note["size"]][note["rank"]] = set(note["samples"])
        whole = set()
        for (step, size), samples in ranks.items():
            if len(samples) == size:  # the others were killed within that step
                epoch, batch = divmod(step, BATCHES)
                expected = learner.order(epoch, seed=0)[batch * 4 : batch * 4 + 4]
                assert set().union(*samples.values()) == set(expected)
                whole.add(step)
        assert whole == set(range(self.num_epochs * BATCHES))


def saved(run: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    found = CheckpointStore(run / "checkpoints" / "train").latest()
    assert found is not None
    return found


def losses(run: Path) -> dict[int, float]:
    return {r["step"]: r["loss"] for r in read_json_lines(run / "metrics.jsonl") if r["name"] == "train"}


def in_one_process(folder: Path, num_epochs: int) -> Path:
    settings = LoopSettings(name="train", run=folder, tensorboard=False)
    run_loop(functools.partial(Diary, num_epochs=num_epochs), World(), settings)
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(2) as cluster:
        yield cluster


def test_a_killed_node_is_replaced_and_the_weights_are_bit_identical(cluster: Nodes, tmp_path: Path) -> None:
    undisturbed = Run(tmp_path / "undisturbed", num_epochs=20, num_workers=2)
    undisturbed.hurry()
    expected = undisturbed.finish()

    run = Run(tmp_path / "disturbed", num_epochs=20, num_workers=2, checkpoint_every_steps=2)
    run.wait_for_sizes(2)
    at_the_kill = run.notes()[-1]["step"]
    cluster.kill(cluster.alive[-1])
    cluster.add()
    run.hurry()
    weights = run.finish()
    assert at_the_kill < 50
    assert len(list(run.folder.glob("*.jsonl"))) == 4  # two workers, and two more after them
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_batches_of_four_on_three_nodes(cluster: Nodes, tmp_path: Path) -> None:
    third = cluster.add()
    run = Run(tmp_path / "three", num_epochs=4, num_workers=3)
    run.hurry()
    weights = run.finish()
    cluster.kill(third)
    assert run.sizes() == [3]
    expected, _ = saved(in_one_process(tmp_path / "one", 4))
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5)


def test_elastic_run_shrinks_when_a_node_is_lost_and_grows_when_one_joins(cluster: Nodes, tmp_path: Path) -> None:
    run = Run(tmp_path / "elastic", num_epochs=100, num_workers=2, min_workers=1, checkpoint_every_steps=2)
    run.wait_for_sizes(2)
    cluster.kill(cluster.alive[-1])
    run.wait_for_sizes(2, 1)
    cluster.add()
    run.wait_for_sizes(2, 1, 2)
    run.hurry()
    weights = run.finish()

    reference = in_one_process(tmp_path / "one", 100)
    expected = losses(reference)
    found = losses(run.folder / "run")
    assert found.keys() == expected.keys()
    torch.testing.assert_close(
        torch.tensor(list(found.values())), torch.tensor(list(expected.values())), rtol=1e-3, atol=1e-5
    )
    for name, value in saved(reference)[0].items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)


def test_ray_still_renews_its_table_of_nodes_when_asked(cluster: Nodes) -> None:
    # Not a public interface. When this fails on a new Ray, shrinking takes up to 20 s longer: see elastic.py.
    import ray
    from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator as internal

    internal.get_or_create_autoscaling_coordinator()  # as each run of Ray Train does
    table = ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator")
    bundle = [{"CPU": 1.0}] * 8
    ray.get(table.request_resources.remote(requester_id="test", resources=bundle, expire_after_s=60))
    node = cluster.add()
    try:
        reserved = ray.get(table.get_reserved_resources.remote("test", recompute=True))
        assert node.node_id in reserved
    finally:
        ray.get(table.cancel_request.remote("test"))
        cluster.kill(node)


def test_only_an_elastic_run_changes_the_environment_and_not_what_the_user_set(monkeypatch: pytest.MonkeyPatch) -> None:
    timeout, interval = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
    monkeypatch.setenv(timeout, "7")
    monkeypatch.delenv(interval, raising=False)
    with prompt_resizing(RunOptions(data="", num_workers=2)):
        assert interval not in os.environ
    with prompt_resizing(RunOptions(data="", num_workers=2, min_workers=1)):
        assert (os.environ[timeout], os.environ[interval]) == ("7", "1")
    assert interval not in os.environ


@pytest.mark.parametrize("min_workers", [-1, 3])
def test_min_workers_out_of_range_is_refused(min_workers: int) -> None:
    with pytest.raises(UserError, match=rf"--min-workers is between 0 .* 2, got {min_workers}"):
        RunOptions(data="", num_workers=2, min_workers=min_workers)
