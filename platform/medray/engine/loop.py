"""The gradient loop itself: order, shares, steps, validation, checkpoints, resume. Plain PyTorch, on any `World`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from medray.engine.checkpoint import CheckpointStore, disk_error, improves
from medray.engine.clock import StepClock
from medray.engine.divergence import Diverged, find_culprits, sentence
from medray.engine.host import Host
from medray.engine.loader import Loader, Share
from medray.engine.metrics_log import MetricsLog
from medray.engine.nested import to_device
from medray.engine.options import LoopOptions
from medray.engine.prepare import arithmetic, prepare_networks
from medray.engine.seeding import seed_everything
from medray.engine.snapshot import NormStatistics, copied, load_optimizer, load_scheduler, note_rates
from medray.engine.step import EngineStep, NonFinite
from medray.engine.world import World
from medray.engine.writer import CheckpointWriter
from medray.learner import Learner, SumCount

_LOGS_PER_EPOCH = 20
_STEPS_PER_LOG = 5
"""At least; writing a record costs as much as a small step."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Which loop of which run this is, and how it is to compute.

    Attributes:
        name: of the loop in its run; stages of a chain have different ones.
        run: local folder of the run.
        options: see `LoopOptions`.
        tensorboard: whether to write event files.
    """

    name: str
    run: Path
    options: LoopOptions = field(default_factory=LoopOptions)
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
    """Where a run is; saved in every checkpoint.

    Attributes:
        epoch: of the next batch.
        batch: number of the next batch in it.
        step: updates behind us.
        best: monitored metric of the best validation so far.
        best_step: updates behind us then.
        stale: validations since then.
        skipped: updates left out because something was not finite.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    best_step: int | None = None
    stale: int = 0
    skipped: int = 0


def run_loop(
    make_learner: Callable[[], Learner], world: World, settings: LoopSettings, host: Host | None = None
) -> LoopResult:
    """Train to the end of the learner's schedule, from the newest whole checkpoint if there is one.

    Raises:
        Diverged: a loss or gradient is not finite, more often than the options allow.
        UserError: a sample cannot be read, the disk is full.
    """
    started = time.perf_counter()
    try:
        with arithmetic(settings.options):
            seed_everything(settings.options.seed, "init")
            loop = _Loop(make_learner(), world, settings, host or Host())
            finished, samples, busy_s = loop.run()
    except OSError as error:
        raise disk_error(error, settings.run) from error
    best = loop.store.best() if loop.first else None
    return LoopResult(
        finished=finished,
        step=loop.position.step,
        metrics=loop.last_metrics,
        weights=str(best) if best else None,
        seconds=time.perf_counter() - started,
        samples_per_second=samples / busy_s if busy_s > 0 else 0.0,
    )


class _Loop:
    def __init__(self, learner: Learner, world: World, settings: LoopSettings, host: Host) -> None:
        self.learner, self.world, self.settings, self.host = learner, world, settings, host
        self.options = settings.options
        learner.seed = self.options.seed
        self.first = world.rank == 0
        self.store = CheckpointStore(settings.run / "checkpoints" / settings.name, keep=self.options.keep_checkpoints)
        self.log = MetricsLog(settings.run, tensorboard=settings.tensorboard) if self.first else None
        self.position = _Position()
        self.bad: set[int] = set()
        self.window: dict[str, SumCount] = {}
        self.last_metrics: dict[str, float] = {}
        saved = self._read()
        self.resumed = saved is not None
        if saved is not None:
            learner.networks.load_state_dict(saved[0])
        else:
            world.share_weights(learner.networks)
        prepare_networks(learner, world, self.options)
        self.optimizers = learner.configure_optimizers()
        for optimizer in self.optimizers.values():
            note_rates(optimizer)
        self.schedulers = learner.configure_schedulers(self.optimizers)
        self.step = EngineStep(self.optimizers, world=world, precision=self.options.precision, seed=self.options.seed)
        if saved is not None:
            self._restore(saved[1])
        if self.log is not None:
            self.log.rewind(settings.name, self.position.step)
        self.norms = NormStatistics(learner.networks)
        self.clock = StepClock(world)
        self.loader = Loader(learner, world, self.options)
        self.writer = CheckpointWriter(self.store, host.saved)
        self._saved_at = time.monotonic()

    def _read(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The newest whole checkpoint, read by the first worker: all must go on from the same."""
        found = None
        if self.first:
            self.host.fetch_checkpoints(self.store.folder)
            self.store.take_over()
            found = self.store.latest()
        return self.world.share(found)

    def _restore(self, state: Mapping[str, Any]) -> None:
        for name, optimizer in self.optimizers.items():
            load_optimizer(optimizer, state["optimizers"][name])
        for name, scheduler in self.schedulers.items():
            load_scheduler(scheduler, state["schedulers"][name])
        self.step.scaler.load_state_dict(state["scaler"])
        self.learner.sample_state.update(state["sample_state"])
        self.learner.load_extra_state(state["extra"])
        self.last_metrics = dict(state["metrics"])
        self.position = _Position(**state["position"])
        if self.first and self.position.best_step is not None:
            self.store.mark_best(self.position.best_step)  # it may have been killed between saving and marking
        windows = state["windows"]
        if len(windows) == self.world.size:
            self.window = _window(windows[self.world.rank])
        elif self.first:  # another number of workers: the sums go on in one place
            for window in windows:
                _add(self.window, _window(window))

    def run(self) -> tuple[bool, int, float]:
        """All remaining epochs. Returns whether it got to the end, the samples seen and the seconds spent on them."""
        schedule, position = self.learner.schedule, self.position
        samples, busy_s, finished = 0, 0.0, True
        try:
            if not self.resumed and schedule.num_epochs:
                self._checkpoint()  # whatever happens to the first epoch, there is something from before it
            self.loader.start(position.epoch, position.batch, position.step)
            while finished and not self._at_end():
                began = time.perf_counter()
                finished, seen = self._epoch()
                samples += seen
                busy_s += time.perf_counter() - began
            self.writer.wait()
        except Exception:
            # What there is must last, and the error that ended the loop is the one to tell.
            with contextlib.suppress(Exception):
                self.writer.wait()
            self._close(quietly=True)
            raise
        self._close()
        return finished, samples, busy_s

    def _close(self, *, quietly: bool = False) -> None:
        if self.log is not None:
            self.log.close()
        if self.first:
            with contextlib.suppress(Exception) if quietly else contextlib.nullcontext():
                self.host.finish()

    def _at_end(self) -> bool:
        """Whether the last epoch is behind us, or so many validations brought nothing that training ends."""
        schedule, position = self.learner.schedule, self.position
        exhausted = schedule.patience is not None and position.stale >= schedule.patience
        return exhausted or position.epoch >= schedule.num_epochs

    def _epoch(self) -> tuple[bool, int]:
        schedule, position, options = self.learner.schedule, self.position, self.options
        plan = self.loader.batches(position.epoch)
        total_steps = position.step + (schedule.num_epochs - position.epoch) * len(plan) - position.batch
        log_every = max(_STEPS_PER_LOG, len(plan) // _LOGS_PER_EPOCH)
        seed_everything(options.seed, position.epoch, "epoch")
        self.learner.begin_epoch(position.epoch)
        seen, seen_at_log, log_time, stop = 0, 0, time.perf_counter(), False
        while position.batch < len(plan):
            with self.clock.part("data"):
                share = self.loader.next()
            with self.clock.part("compute"):
                self._train(share, plan[position.batch])
            seen += len(plan[position.batch])
            position.batch += 1
            position.step += 1
            stop, due, bad, touched = self.world.agree(
                *self._wishes(), bool(share.bad), bool(self.learner.sample_state.before)
            )
            if touched:
                self._share_sample_state(bool(share.indices))
            if bad:
                self._note_bad(share)
            self.clock.step()
            if position.batch % log_every == 0 or position.batch == len(plan):
                now = time.perf_counter()
                rate = round((seen - seen_at_log) / max(now - log_time, 1e-9), 3)
                self._log("train", self.window, total_steps=total_steps, samples_per_second=rate)
                self._log("speed", self.clock.read(), **self._learning_rates())
                self.window, seen_at_log, log_time = {}, seen, now
            inside = position.batch < len(plan)
            every = options.checkpoint_every_steps
            if inside and (stop or due or (every and position.step % every == 0)):
                self._checkpoint()
            if stop and inside:
                return False, seen
        self._end_epoch(stop=stop)
        return not stop or self._at_end(), seen

    def _wishes(self) -> tuple[bool, bool]:
        """Whether the first worker was asked to stop, and whether by its clock a checkpoint is due."""
        if not self.first:
            return False, False
        self.writer.check()
        minutes = self.options.checkpoint_every_minutes
        due = bool(minutes) and time.monotonic() - self._saved_at > 60 * minutes and not self.writer.busy
        return self.host.stop_requested(), due

    def _train(self, share: Share, batch: Any) -> None:
        learner, position, step = self.learner, self.position, self.step
        self.norms.keep()
        learner.sample_state.settle()
        learner.networks.train()
        step.begin(
            position.epoch,
            position.step,
            idle=not share.indices,
            tolerant=position.skipped < self.options.skip_nonfinite,
        )
        seed_everything(self.options.seed, position.epoch, position.step, self.world.rank)
        ready = to_device(share.batch, self.world.device, channels_last=self.options.channels_last)
        try:
            metrics = learner.training_step(ready, step)
            step.end()
        except NonFinite as error:
            raise self._diverged(error, share, batch) from None
        if step.left_out:
            self._skip(share, batch)
            return
        if share.indices:
            _add(self.window, metrics)

    def _note_bad(self, share: Share) -> None:
        """Samples that could not be read while training were left out of their batch; each is told once."""
        for index, reason in [bad for theirs in self.world.gather(share.bad) for bad in theirs]:
            if self.log is not None and index not in self.bad:
                self.bad.add(index)
                record = {"case": self.learner.sample_name(index), "reason": reason, "step": self.position.step}
                self.log.note("quarantine.jsonl", f"set aside {record['case']}: {reason}", record)

    def _share_sample_state(self, mine: bool) -> None:
        """Give every worker what the step left with its samples; an idle worker's is nobody's."""
        state = self.learner.sample_state
        for theirs in self.world.gather({index: state[index] for index in state.before} if mine else {}):
            state.update(theirs)

    def _blame(self, what: str, share: Share, batch: Any) -> str:
        """Undo what the step left behind, and say which samples it failed on."""
        self.learner.sample_state.undo()
        self.norms.put_back()
        culprits = []
        if not self.options.shard:  # sharded weights come together for all workers at once, so none can ask alone
            culprits = find_culprits(self.learner, self.step, share.indices)
            self.norms.put_back()
        everyone = [culprit for theirs in self.world.gather(culprits) for culprit in theirs]
        names = [self.learner.sample_name(index) for index in batch]
        return sentence(what, self.position.step, self.position.epoch, everyone, names)

    def _diverged(self, error: NonFinite, share: Share, batch: Any) -> Diverged:
        said = self._blame(str(error), share, batch)
        if not self.step.moved:  # the state is still that from before the step
            self._checkpoint()
        self.writer.wait()
        newest = self.world.share(self.store.newest())
        return Diverged(
            f"{said}; the newest checkpoint, {newest}, is from before it. Lower the learning rate or take the cases "
            f"out; --skip-nonfinite N leaves out up to N such updates"
        )

    def _skip(self, share: Share, batch: Any) -> None:
        self.position.skipped += 1
        said = self._blame(f"the update of {' and '.join(self.step.left_out)} was left out: its loss or gradient",
                           share, batch)  # fmt: skip
        if self.log is not None:
            record = {"reason": said, "step": self.position.step, "skipped": self.position.skipped}
            self.log.note("skipped.jsonl", said, record)

    def _end_epoch(self, *, stop: bool) -> None:
        position, schedule = self.position, self.learner.schedule
        for scheduler in self.schedulers.values():
            if not isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step()
        position.epoch, position.batch = position.epoch + 1, 0
        last = position.epoch == schedule.num_epochs
        is_best = False
        every = schedule.validate_every_epochs
        if every and self.learner.num_validation_samples() and (position.epoch % every == 0 or last):
            is_best = self._validate()
        # Where epochs are shorter than writing a checkpoint takes, not every one needs its own.
        (busy,) = self.world.agree(self.first and self.writer.busy)
        if is_best or self._at_end() or stop or not busy:
            self._checkpoint(best=is_best)

    def _validate(self) -> bool:
        learner, world, position = self.learner, self.world, self.position
        seed_everything(self.options.seed, "validation", position.step)
        world.share_buffers(learner.networks)
        learner.networks.eval()
        sums: dict[str, SumCount] = {}
        together = self.options.shard and world.size > 1  # sharded weights come together for all workers at once
        first, every = (0, 1) if together else (world.rank, world.size)
        with torch.no_grad():
            for index in range(first, learner.num_validation_samples(), every):
                found = learner.validation_step(index)
                if self.first or not together:
                    _add(sums, found)
        means = self._log("validation", sums)
        monitor = learner.schedule.monitor
        if monitor is None or monitor not in means:
            return False
        score = means[monitor]
        for scheduler in self.schedulers.values():
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(score)
        better = improves(score, position.best, learner.schedule.mode)
        position.stale += 1
        if better:
            position.best, position.best_step, position.stale = score, position.step, 0
        return better

    def _log(self, name: str, sums: Mapping[str, SumCount], **more: Any) -> dict[str, float]:
        added: dict[str, list[float]] = {}
        for theirs in self.world.gather({k: (float(v.total), float(v.count)) for k, v in sums.items()}):
            for key, (total, count) in theirs.items():
                entry = added.setdefault(key, [0.0, 0.0])
                entry[0] += total
                entry[1] += count
        means = {key: total / count for key, (total, count) in sorted(added.items()) if count}
        if name != "speed":
            prefix = "" if name == "train" else f"{name}_"
            self.last_metrics.update({prefix + key: value for key, value in means.items()})
        if self.log is not None:
            position = self.position
            self.log.write(
                name, loop=self.settings.name, step=position.step, epoch=position.epoch, metrics=means, **more
            )
            self.host.observe(name, {**means, **more, "step": position.step, "epoch": position.epoch})
        return means

    def _learning_rates(self) -> dict[str, float]:
        return {
            f"learning_rate_{name}": float(optimizer.param_groups[0]["lr"])
            for name, optimizer in self.optimizers.items()
        }

    def _checkpoint(self, *, best: bool = False) -> None:
        """Copy the state and let it be written; training goes on at once."""
        with self.clock.part("checkpoint"):
            windows = self.world.gather({k: (v.total, v.count) for k, v in self.window.items()})
            sharded = self.options.shard and self.world.size > 1
            if self.first or sharded:
                weights = copied(self.learner.networks.state_dict())
                optimizers = copied({name: optimizer.state_dict() for name, optimizer in self.optimizers.items()})
            if self.first:
                state = {
                    "optimizers": optimizers,
                    "schedulers": {name: scheduler.state_dict() for name, scheduler in self.schedulers.items()},
                    "scaler": self.step.scaler.state_dict(),
                    "sample_state": copied(dict(self.learner.sample_state)),
                    "extra": copied(self.learner.extra_state()),
                    "metrics": dict(self.last_metrics),
                    "position": dict(vars(self.position)),
                    "windows": copied(windows),
                }
                self.writer.save(self.position.step, weights, state, best=best)
            self._saved_at = time.monotonic()


def _add(sums: dict[str, SumCount], more: Mapping[str, SumCount]) -> None:
    """Add up in double precision, on the device: what is logged must not depend on where a run was interrupted."""
    for name, value in more.items():
        exact = SumCount(_double(value.total), _double(value.count))
        sums[name] = sums[name] + exact if name in sums else exact


def _double(value: torch.Tensor | float) -> torch.Tensor | float:
    return value.detach().double() if isinstance(value, torch.Tensor) else float(value)


def _window(saved: Mapping[str, tuple[Any, Any]]) -> dict[str, SumCount]:
    return {name: SumCount(total, count) for name, (total, count) in saved.items()}
