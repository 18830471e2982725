"""Each worker's share of every batch, prepared between steps or ahead of them; the samples are the same either way.

Preparing ahead uses PyTorch's `DataLoader` with forked processes: they see the learner's data without a copy, and a
batch made there has its own random state, so neither their number nor their timing can change a result.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from medray.engine.nested import map_tensors
from medray.engine.options import LoopOptions
from medray.engine.seeding import seed_everything
from medray.engine.world import World
from medray.errors import UserError
from medray.learner import Learner
from medray.storage import StorageError

_PATIENCE_S = 2.0
"""Seconds of steps after which it is decided whether preparing ahead is worth its processes."""
_WORTH_IT = 0.05
"""Share of that time spent waiting for data from which it is."""
_ALL = -1
"""In place of an index: no sample is at fault alone."""
_MOST = 4
"""Processes that are started without being asked for."""


@dataclass(frozen=True)
class Share:
    """One worker's part of a global batch.

    Attributes:
        indices: the samples in it; none where the worker is idle in this step.
        batch: what the learner made of them; where idle, of one sample that only goes through the motions.
        bad: samples that could not be read, with the sentence that says why.
        place: epoch, number of the batch in it, number of the update in the run.
    """

    indices: tuple[int, ...]
    batch: Any
    bad: tuple[tuple[int, str], ...]
    place: tuple[int, int, int]

    def pin_memory(self) -> Share:
        """Page-locked, so that the copy to the GPU runs beside the computation."""
        return replace(self, batch=map_tensors(Tensor.pin_memory, self.batch))


@dataclass(frozen=True)
class _Task:
    place: tuple[int, int, int]
    mine: tuple[int, ...]
    others: tuple[int, ...]


class Loader:
    """The shares of one worker from a position to the end of training.

    Attributes:
        processes: how many prepare batches ahead at present.
    """

    def __init__(self, learner: Learner, world: World, options: LoopOptions) -> None:
        self.processes = max(options.loader_workers, 0)
        self._automatic = options.loader_workers < 0
        self._plan = _Plan(learner, world, options.seed)
        self._shares = _Shares(learner, world.rank, options)
        self._fail = options.bad_samples == "fail"
        self._pin_memory = world.device.type == "cuda"
        self._iterator: Iterator[Share] = iter(())
        self._waited_s = self._since = 0.0

    def start(self, epoch: int, batch: int, step: int) -> None:
        """Go to a position: the next share is of batch number ``batch`` in ``epoch``, update number ``step``."""
        self._plan.start = (epoch, batch, step)
        self._restart()

    def batches(self, epoch: int) -> list[Sequence[int]]:
        """The global batches of an epoch, in order."""
        return self._plan.batches(epoch)

    def next(self) -> Share:
        """The next share.

        Raises:
            UserError: a sample cannot be read, under the policy to fail; or none can.
        """
        began = time.perf_counter()
        share = next(self._iterator)
        now = time.perf_counter()
        self._waited_s += now - began
        if share.bad and (self._fail or share.batch is None):
            raise UserError(share.bad[0][1])
        epoch, batch, step = share.place
        self._plan.start = (epoch, batch + 1, step + 1)
        if self._automatic and not self.processes and now - self._since > _PATIENCE_S:
            self._decide(now - self._since)
        return share

    def _decide(self, passed_s: float) -> None:
        busy_s = max(passed_s - self._waited_s, 1e-6)
        if self._waited_s > _WORTH_IT * passed_s:
            spare = len(os.sched_getaffinity(0)) - 1
            self.processes = max(1, min(round(self._waited_s / busy_s + 0.5), spare, _MOST))
            self._restart()
        self._waited_s, self._since = 0.0, time.perf_counter()

    def _restart(self) -> None:
        self._waited_s, self._since = 0.0, time.perf_counter()
        if self.processes:
            loader: DataLoader[Share] = DataLoader(
                self._shares,
                sampler=self._plan,
                batch_size=None,
                num_workers=self.processes,
                multiprocessing_context="fork",  # the learner with its loaded data, without pickling or copying it
                pin_memory=self._pin_memory,
            )
            self._iterator = iter(loader)
        else:
            self._iterator = map(self._shares.__getitem__, self._plan)


class _Plan:
    """What each step from ``start`` on takes; a sampler in PyTorch's terms."""

    def __init__(self, learner: Learner, world: World, seed: int) -> None:
        self.learner, self.world, self.seed = learner, world, seed
        self.start = (0, 0, 0)
        self._batches: dict[int, list[Sequence[int]]] = {}

    def batches(self, epoch: int) -> list[Sequence[int]]:
        if epoch not in self._batches:
            order, size = self.learner.order(epoch, self.seed), self.learner.schedule.batch_size
            self._batches = {epoch: [order[i : i + size] for i in range(0, len(order), size)]}
        return self._batches[epoch]

    def __iter__(self) -> Iterator[_Task]:
        first_epoch, first_batch, step = self.start
        for epoch in range(first_epoch, self.learner.schedule.num_epochs):
            for number, batch in enumerate(self.batches(epoch)):
                if epoch == first_epoch and number < first_batch:
                    continue
                mine = tuple(batch[self.world.rank :: self.world.size])
                yield _Task((epoch, number, step), mine, tuple(i for i in batch if i not in mine))
                step += 1


class _Shares(Dataset[Share]):
    """Turns a task into a share; a dataset in PyTorch's terms."""

    def __init__(self, learner: Learner, rank: int, options: LoopOptions) -> None:
        self.learner, self.rank = learner, rank
        self.seed = options.seed
        self._epoch = -1

    def __getitem__(self, task: _Task) -> Share:
        epoch, _, step = task.place
        if get_worker_info() is not None and epoch != self._epoch:  # in line, the loop has told the learner already
            self._epoch = epoch
            seed_everything(self.seed, epoch, "epoch")
            self.learner.begin_epoch(epoch)
        seed_everything(self.seed, epoch, step, self.rank, "collate")
        good, bad = task.mine, tuple[tuple[int, str], ...]()
        try:
            try:
                batch = self.learner.collate(good, epoch) if good else self._any(task.others, epoch)
            except UserError as error:
                if isinstance(error, StorageError):  # no fault of the sample
                    raise
                good, bad = self._sort_out(good, epoch, error)
                batch = self.learner.collate(good, epoch) if good else self._any(task.others, epoch)
        except UserError as error:  # carried as a value: PyTorch would bury the sentence in a traceback
            return Share((), None, ((_ALL, str(error)),), task.place)
        return Share(good, batch, bad, task.place)

    def _sort_out(
        self, indices: Sequence[int], epoch: int, error: UserError
    ) -> tuple[tuple[int, ...], tuple[tuple[int, str], ...]]:
        good, bad = [], []
        for index in indices:
            try:
                self.learner.collate((index,), epoch)
                good.append(index)
            except StorageError:
                raise
            except UserError as reason:
                bad.append((index, str(reason)))
        if not bad:  # each can be read, but not all together
            raise error
        return tuple(good), tuple(bad)

    def _any(self, preferred: Sequence[int], epoch: int) -> Any:
        """A batch of one sample that can be read, for a worker that only goes through the motions."""
        reason: UserError | None = None
        for index in (*preferred, *range(self.learner.num_samples())):
            try:
                return self.learner.collate((index,), epoch)
            except UserError as error:
                reason = error
        raise UserError(f"none of the {self.learner.num_samples()} training samples can be read: {reason}")
