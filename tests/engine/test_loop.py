"""The gradient loop: the same weights however it is interrupted and on however many workers it runs."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.testing import assert_close
from toy_learners import Autoencoder, Diary, Regression, Rivals, Segmenter, Unreadable, disc_learner

from medray.engine.checkpoint import CheckpointStore
from medray.engine.host import Host
from medray.engine.loop import LoopSettings, run_loop
from medray.engine.options import LoopOptions
from medray.engine.rundir import read_json_lines
from medray.engine.world import World
from medray.learner import Learner, Schedule, Step, SumCount


def settings(run: Path, **more: Any) -> LoopSettings:
    return LoopSettings(name="train", run=run, options=LoopOptions(**more), tensorboard=False)


def final_state(run: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    found = CheckpointStore(run / "checkpoints" / "train").latest()
    assert found is not None
    return found


class StopsAt(Host):
    """Asks to stop after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def stop_requested(self) -> bool:
        self.left -= 1
        return self.left <= 0


def train(run: Path, make: Callable[[], Learner], **more: Any) -> dict[str, torch.Tensor]:
    result = run_loop(make, World(), settings(run, **more))
    assert result.finished
    return final_state(run)[0]


def worker(rank: int, size: int, root: str, makes: dict[str, Callable[[], Learner]], port: int) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    torch.set_num_threads(1)
    for name, make in makes.items():
        run_loop(make, World(rank, size), settings(Path(root) / name, bad_samples="quarantine"))
    dist.barrier()
    os._exit(0)  # gloo's threads may abort an ordinary interpreter exit, and everything is on disk by now


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_loss_falls_and_every_sample_is_seen_once_an_epoch(tmp_path: Path) -> None:
    learners: list[Regression] = []

    def make() -> Regression:
        learners.append(Regression(num_epochs=20))
        return learners[-1]

    train(tmp_path, make)
    visited = learners[0].visited
    assert sorted(i for batch in visited[:3] for i in batch) == list(range(11))
    records = [r for r in read_json_lines(tmp_path / "metrics.jsonl") if r["name"] == "train"]
    assert records[-1]["loss"] < records[0]["loss"] / 4
    assert records[-1]["step"] == 60 == records[-1]["total_steps"]


def test_matches_the_plain_loop_of_the_docstring(tmp_path: Path) -> None:
    trained = train(tmp_path, Regression)
    from medray.engine.seeding import seed_everything

    seed_everything(0, "init")
    learner = Regression()
    optimizers = learner.configure_optimizers()
    schedulers = learner.configure_schedulers(optimizers)
    for epoch in range(learner.schedule.num_epochs):
        order = list(learner.order(epoch, 0))
        for start in range(0, len(order), 4):
            learner.training_step(learner.collate(order[start : start + 4], epoch), Step(optimizers))
        schedulers["net"].step()
    for name, value in learner.networks.state_dict().items():
        assert torch.equal(trained[name], value), name


@pytest.mark.parametrize("stop_after", [1, 4, 5])
def test_stopped_anywhere_and_resumed_is_bit_identical(tmp_path: Path, stop_after: int) -> None:
    make = functools.partial(Diary, dropout=0.3)
    whole = train(tmp_path / "whole", make)
    reference_state = final_state(tmp_path / "whole")[1]

    run = tmp_path / "stopped"
    host = StopsAt(stop_after)
    first = run_loop(make, World(), settings(run), host)
    assert not first.finished
    assert first.step == stop_after
    resumed = train(run, make)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    state = final_state(run)[1]
    for index, kept in reference_state["sample_state"].items():
        assert all(torch.equal(kept[key], state["sample_state"][index][key]) for key in kept)
    losses = [
        [(r["step"], r["loss"]) for r in read_json_lines(folder / "metrics.jsonl") if r["name"] == "train"]
        for folder in (tmp_path / "whole", run)
    ]
    assert {step for step, _ in losses[1]} >= {9, 6, 3}
    assert dict(losses[0])[9] == dict(losses[1])[9]


def test_suts_killed_inside_a_scale_and_resumed_is_bit_identical(tmp_path: Path) -> None:
    """Control grids and their moments come back with the weights, and the learning rate depends on the step alone."""
    whole = train(tmp_path / "whole", disc_learner)
    run = tmp_path / "killed"

    def dies() -> Learner:
        learner = disc_learner()
        step = learner.training_step

        def training_step(batch: Any, at: Step) -> Any:
            if at.index == 7:
                raise ConnectionError("gone")
            return step(batch, at)

        learner.training_step = training_step  # type: ignore[method-assign]
        return learner

    with pytest.raises(ConnectionError):
        run_loop(dies, World(), settings(run, checkpoint_every_steps=3))
    resumed = train(run, disc_learner, checkpoint_every_steps=3)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_killed_try_leaves_no_trace_in_the_log(tmp_path: Path) -> None:
    train(tmp_path, Regression)
    log = tmp_path / "metrics.jsonl"
    before = list(read_json_lines(log))
    extra = {"name": "train", "loop": "train", "step": 99, "epoch": 9, "wall_s": 1.0, "loss": 0.0}
    log.write_text(log.read_text() + json.dumps(extra) + "\n" + '{"name": "tra')
    run_loop(Regression, World(), settings(tmp_path))
    assert list(read_json_lines(log)) == before


@pytest.mark.parametrize("size", [2, 3])
def test_workers_agree_with_one(tmp_path: Path, size: int, free_port: int) -> None:
    """Also where a batch does not divide, leaves a worker idle, ends in a smaller one, or has samples that one of the
    workers cannot read, which all of them then do without."""
    makes: dict[str, Callable[[], Learner]] = {
        "regression": Regression,
        "rivals": Rivals,
        "diary": Diary,
        "suts": disc_learner,
        "autoencoder": Autoencoder,
        "segmentation": Segmenter,
        "batch norm, frozen": functools.partial(Segmenter, "batch", frozen_statistics=True),
        "unreadable samples": functools.partial(Unreadable, bad=(2, 3, 9)),
        "idle": functools.partial(Regression, num_samples=5, batch_size=2, num_epochs=2),
    }
    # One group of processes for all: starting them costs far more than training.
    mp.spawn(worker, args=(size, str(tmp_path / "many"), makes, free_port), nprocs=size)
    for name, make in makes.items():
        one = train(tmp_path / "one" / name, make, bad_samples="quarantine")
        many, state = final_state(tmp_path / "many" / name)
        for key, value in one.items():
            assert_close(many[key], value, rtol=1e-4, atol=1e-5, msg=f"{name} {key}")
        kept = final_state(tmp_path / "one" / name)[1]["sample_state"]
        assert kept.keys() == state["sample_state"].keys()
        for index, entries in kept.items():
            for key, value in entries.items():
                assert_close(state["sample_state"][index][key], value, rtol=1e-4, atol=1e-5)
        logs = [list(read_json_lines(tmp_path / side / name / "metrics.jsonl")) for side in ("one", "many")]
        assert [r["step"] for r in logs[0]] == [r["step"] for r in logs[1]]
        for first, second in zip(*logs, strict=True):
            for key in {"loss", "mse", "gap", "dice"} & first.keys():
                assert second[key] == pytest.approx(first[key], rel=1e-3, abs=1e-4)


def test_best_checkpoint_is_the_one_with_the_lowest_error(tmp_path: Path) -> None:
    result = run_loop(functools.partial(Regression, num_epochs=6), World(), settings(tmp_path))
    validations = [r for r in read_json_lines(tmp_path / "metrics.jsonl") if r["name"] == "validation"]
    best = min(validations, key=lambda r: r["mse"])
    assert result.weights is not None
    assert f"step-{best['step']:08d}" in result.weights


def test_bf16_is_used_in_the_forward_pass_only(tmp_path: Path) -> None:
    exact = train(tmp_path / "fp32", Regression)
    rounded = train(tmp_path / "bf16", Regression, precision="bf16")
    assert all(value.dtype == torch.float32 for value in rounded.values())
    assert any(not torch.equal(exact[name], rounded[name]) for name in exact)
    for name in exact:
        assert_close(rounded[name], exact[name], rtol=0.2, atol=0.1, msg=name)


class _Stuck(Regression):
    """Its validation metric never improves, and its learning rate waits for one epoch."""

    def __init__(self) -> None:
        super().__init__(num_epochs=6)

    def configure_schedulers(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Any]:
        return {"net": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizers["net"], factor=0.5, patience=1)}

    def validation_step(self, index: int) -> dict[str, SumCount]:
        return {"mse": SumCount(1.0, 1.0)}


def test_a_plateau_of_the_monitored_metric_lowers_the_learning_rate_also_across_a_restart(tmp_path: Path) -> None:
    """By hand: epoch 1 is the best, 3 and 5 are the second without improvement, so 0.05 is halved twice."""
    train(tmp_path / "whole", _Stuck)
    run_loop(_Stuck, World(), settings(tmp_path / "parts"), StopsAt(7))
    train(tmp_path / "parts", _Stuck)
    for name in ("whole", "parts"):
        weights, state = final_state(tmp_path / name)
        assert state["optimizers"]["net"]["param_groups"][0]["lr"] == 0.05 / 4
        assert_close(weights, final_state(tmp_path / "whole")[0], rtol=0, atol=0)


class _GivesUp(Regression):
    """The metric of its validations is best in the second epoch and only worse after that."""

    def __init__(self, patience: int | None = 3) -> None:
        super().__init__(num_epochs=9)
        self.schedule = replace(self.schedule, patience=patience)
        self.epoch = 0

    def begin_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def validation_step(self, index: int) -> dict[str, SumCount]:
        return {"mse": SumCount(float(abs(self.epoch - 1)), 1.0)}


def test_training_ends_after_so_many_validations_without_a_better_one(tmp_path: Path) -> None:
    """By hand: 3 updates an epoch, the best after 2 epochs, then 3 without improvement."""
    result = run_loop(_GivesUp, World(), settings(tmp_path))
    assert result.finished
    assert result.step == 3 * (2 + 3)
    assert Path(result.weights or "").parent.name == "step-00000006"
    assert run_loop(functools.partial(_GivesUp, None), World(), settings(tmp_path / "whole")).step == 3 * 9


def test_a_restart_counts_the_validations_before_it(tmp_path: Path) -> None:
    """Interrupted in its third epoch it stops where the undisturbed run does; begun anew at its end it does nothing."""
    run_loop(_GivesUp, World(), settings(tmp_path / "parts"), StopsAt(8))
    assert_close(train(tmp_path / "parts", _GivesUp), train(tmp_path / "whole", _GivesUp), rtol=0, atol=0)
    assert run_loop(_GivesUp, World(), settings(tmp_path / "parts")).step == 15


def test_patience_needs_something_to_wait_for() -> None:
    with pytest.raises(ValueError, match="patience is 1 or more and needs a monitor, got 3 with None"):
        Schedule(num_epochs=1, batch_size=1, patience=3)
