"""The gradient loop itself: order, shares, steps, validation, checkpoints, resume. Plain PyTorch, on any `World`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medray.engine.checkpoint import CheckpointStore
from medray.engine.metrics_log import MetricsLog
from medray.engine.options import Precision
from medray.engine.step import EngineStep
from medray.engine.world import World
from medray.learner import Learner, SumCount, seed_of

_STOP_POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """What the loop needs to know beside the learner."""

    name: str
    run: Path
    seed: int = 0
    precision: Precision = "fp32"
    checkpoint_every_steps: int = 0
    stop_file: Path | None = None
    tensorboard: bool = True


@dataclass(frozen=True)
class LoopResult:
    """How a loop ended."""

    finished: bool
    step: int
    metrics: Mapping[str, float]
    weights: str | None
    seconds: float
    samples_per_second: float


@dataclass
class _Position:
    """Where a run is; saved in every checkpoint."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None


def run_loop(make_learner: Callable[[], Learner], world: World, settings: LoopSettings) -> LoopResult:
    """Train to the end of the learner's schedule, from the newest whole checkpoint if there is one."""
    started = time.perf_counter()
    seed_everything(settings.seed, "init")
    learner = make_learner()
    loop = _Loop(learner, world, settings)
    loop.restore()
    finished, samples, busy_s = loop.run()
    return LoopResult(
        finished=finished,
        step=loop.position.step,
        metrics=loop.last_metrics,
        weights=str(loop.store.best()) if loop.store.best() else None,
        seconds=time.perf_counter() - started,
        samples_per_second=samples / busy_s if busy_s > 0 else 0.0,
    )


class _Loop:
    def __init__(self, learner: Learner, world: World, settings: LoopSettings) -> None:
        self.learner, self.world, self.settings = learner, world, settings
        learner.networks.to(world.device)
        world.share_weights(learner.networks)
        self.optimizers = learner.configure_optimizers()
        self.schedulers = learner.configure_schedulers(self.optimizers)
        self.step = EngineStep(self.optimizers, world=world, precision=settings.precision, seed=settings.seed)
        self.store = CheckpointStore(settings.run / "checkpoints" / settings.name)
        self.log = MetricsLog(settings.run, tensorboard=settings.tensorboard) if world.rank == 0 else None
        self.position = _Position()
        self.last_metrics: dict[str, float] = {}
        self._next_stop_poll = 0.0

    def restore(self) -> None:
        """Go back to the newest whole checkpoint."""
        found = self.store.latest()
        if found is None:
            return
        weights, state = found
        self.learner.networks.load_state_dict(weights)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        for name, scheduler in self.schedulers.items():
            scheduler.load_state_dict(state["schedulers"][name])
        self.step.scaler.load_state_dict(state["scaler"])
        self.learner.sample_state.update(state["sample_state"])
        self.learner.load_extra_state(state["extra"])
        self.last_metrics = dict(state["metrics"])
        self.position = _Position(**state["position"])
        if self.log is not None:
            self.log.rewind(self.settings.name, self.position.step)

    def run(self) -> tuple[bool, int, float]:
        """All remaining epochs. Returns whether it got to the end, the samples seen and the seconds spent on them."""
        schedule, position = self.learner.schedule, self.position
        samples, busy_s = 0, 0.0
        finished = True
        while finished and position.epoch < schedule.num_epochs:
            began = time.perf_counter()
            finished, seen = self._epoch()
            samples += seen
            busy_s += time.perf_counter() - began
        if self.log is not None:
            self.log.close()
        return finished, samples, busy_s

    def _epoch(self) -> tuple[bool, int]:
        schedule, position = self.learner.schedule, self.position
        order = self.learner.order(position.epoch, self.settings.seed)
        batches = [order[i : i + schedule.batch_size] for i in range(0, len(order), schedule.batch_size)]
        total_steps = position.step + (schedule.num_epochs - position.epoch) * len(batches) - position.batch
        log_every = max(1, len(batches) // 20)
        self.learner.begin_epoch(position.epoch)
        window: dict[str, SumCount] = {}
        seen, seen_at_log, log_time = 0, 0, time.perf_counter()
        while position.batch < len(batches):
            batch = batches[position.batch]
            self._train(batch, window)
            position.batch += 1
            position.step += 1
            seen += len(batch)
            if position.batch % log_every == 0 or position.batch == len(batches):
                now = time.perf_counter()
                rate = (seen - seen_at_log) / max(now - log_time, 1e-9)
                self._log("train", window, total_steps=total_steps, samples_per_second=round(rate, 3))
                window, seen_at_log, log_time = {}, seen, now
            stop = self._stop_requested()
            every = self.settings.checkpoint_every_steps
            if position.batch < len(batches) and (stop or (every and position.step % every == 0)):
                self._checkpoint()
            if stop and position.batch < len(batches):
                return False, seen
        self._end_epoch()
        return not (stop and position.epoch < schedule.num_epochs) if batches else True, seen

    def _train(self, batch: Sequence[int], window: dict[str, SumCount]) -> None:
        world, learner, position = self.world, self.learner, self.position
        share = batch[world.rank :: world.size]
        self.step.idle = not share
        self.step.epoch, self.step.index = position.epoch, position.step
        seed_everything(self.settings.seed, position.epoch, position.step, world.rank)
        learner.sample_state.touched.clear()
        learner.networks.train()
        metrics = learner.training_step(
            _to(learner.collate(share or batch[:1], position.epoch), world.device), self.step
        )
        if self.step.scaler.is_enabled():
            self.step.scaler.update()
        if not self.step.idle:
            for name, value in metrics.items():
                window[name] = window[name] + value if name in window else value
        self._share_sample_state()

    def _share_sample_state(self) -> None:
        state = self.learner.sample_state
        if self.world.size > 1:
            mine = {} if self.step.idle else {index: state[index] for index in state.touched}
            for theirs in self.world.gather(mine):
                state.update(theirs)

    def _end_epoch(self) -> None:
        position, schedule = self.position, self.learner.schedule
        for scheduler in self.schedulers.values():
            scheduler.step()
        position.epoch, position.batch = position.epoch + 1, 0
        is_best = False
        every = schedule.validate_every_epochs
        if (
            every
            and self.learner.num_validation_samples()
            and (position.epoch % every == 0 or position.epoch == schedule.num_epochs)
        ):
            is_best = self._validate()
        self._checkpoint(best=is_best)

    def _validate(self) -> bool:
        learner, world, position = self.learner, self.world, self.position
        seed_everything(self.settings.seed, "validation", position.step)
        learner.networks.eval()
        sums: dict[str, SumCount] = {}
        with torch.no_grad():
            for index in range(world.rank, learner.num_validation_samples(), world.size):
                for name, value in learner.validation_step(index).items():
                    sums[name] = sums[name] + value if name in sums else value
        means = self._log("validation", sums)
        monitor = learner.schedule.monitor
        if monitor is None or monitor not in means:
            return False
        score = means[monitor]
        better = position.best is None or (
            score > position.best if learner.schedule.mode == "max" else score < position.best
        )
        if better:
            position.best = score
        return better

    def _log(self, name: str, sums: Mapping[str, SumCount], **more: Any) -> dict[str, float]:
        added: dict[str, list[float]] = {}
        for theirs in self.world.gather({k: (float(v.total), float(v.count)) for k, v in sums.items()}):
            for key, (total, count) in theirs.items():
                entry = added.setdefault(key, [0.0, 0.0])
                entry[0] += total
                entry[1] += count
        means = {key: total / count for key, (total, count) in sorted(added.items()) if count}
        prefix = "" if name == "train" else f"{name}_"
        self.last_metrics.update({prefix + key: value for key, value in means.items()})
        if self.log is not None:
            self.log.write(
                name, loop=self.settings.name, step=self.position.step, epoch=self.position.epoch, metrics=means, **more
            )
        return means

    def _checkpoint(self, *, best: bool = False) -> None:
        if self.world.rank == 0:
            state = {
                "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
                "schedulers": {name: scheduler.state_dict() for name, scheduler in self.schedulers.items()},
                "scaler": self.step.scaler.state_dict(),
                "sample_state": dict(self.learner.sample_state),
                "extra": self.learner.extra_state(),
                "metrics": self.last_metrics,
                "position": vars(self.position),
            }
            self.store.save(self.position.step, self.learner.networks.state_dict(), state, best=best)
        self.world.agree(False)  # nobody runs ahead of a checkpoint that is not yet on disk

    def _stop_requested(self) -> bool:
        """Whether someone asked for a clean stop; all workers agree at the same step."""
        stop_file = self.settings.stop_file
        if stop_file is None:
            return False
        now = time.monotonic()
        asked = False
        if self.world.rank == 0 and now >= self._next_stop_poll:
            self._next_stop_poll = now + _STOP_POLL_S
            asked = stop_file.exists()
        return self.world.agree(asked)


def seed_everything(*key: int | str) -> None:
    """Seed torch, NumPy and random from a key, so that draws depend on it and not on what ran before."""
    word = seed_of(*key)
    torch.manual_seed(word)
    np.random.seed(word % (1 << 32))  # noqa: NPY002  libraries that draw from the global state
    random.seed(word)


def _to(value: Any, device: torch.device) -> Any:
    """Move every tensor of a nested batch to the device."""
    if device.type == "cpu":
        return value
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: _to(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to(item, device) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _to(getattr(value, f.name), device) for f in fields(value)})
    return value
