"""One gradient loop: networks, optimizers, samples and a step. `engine.fit` drives it; so does a plain loop.

A learner knows nothing of Ray, devices, files or how many workers there are. What it may ask of whoever drives it is
the `Step`; the class here is the whole truth on one device and is what a notebook uses:

    learner = SutsLearner(config, cases)
    optimizers = learner.configure_optimizers()
    for epoch in range(learner.schedule.num_epochs):
        learner.begin_epoch(epoch)
        for indices in batches(learner.order(epoch, seed=0), learner.schedule.batch_size):
            learner.training_step(learner.collate(indices, epoch), Step(optimizers))

Several networks with an optimizer each (GANs, a VAE with its critic) are the normal case: the step does its own
backward passes and says when which optimizer moves. Gradients of different workers are added when an optimizer moves,
and `Step.mean` divides by the count over all workers, so the same code gives the same update on any number of them,
also when a batch does not divide evenly.
"""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


@dataclass(frozen=True)
class SumCount:
    """A metric that can be added over batches and workers before it is divided."""

    total: Tensor | float
    count: Tensor | float

    def __add__(self, other: SumCount) -> SumCount:
        return SumCount(self.total + other.total, self.count + other.count)

    @property
    def mean(self) -> float:
        """Total / count; nan when nothing was counted."""
        count = float(self.count)
        return float(self.total) / count if count else float("nan")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long to train and in what portions.

    Attributes:
        num_epochs: passes over `Learner.order`; 0 for a method with nothing to learn.
        batch_size: samples per update over all workers together. It does not change with the number of workers.
        validate_every_epochs: 0 never validates.
        monitor: the validation metric that decides which checkpoint is best; None keeps the last.
        mode: whether more or less of it is better.
        patience: validations in a row without a better ``monitor`` after which training ends; None goes on to the last
            epoch.
    """

    num_epochs: int
    batch_size: int
    validate_every_epochs: int = 1
    monitor: str | None = None
    mode: Literal["max", "min"] = "max"
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.num_epochs < 0 or self.batch_size < 1:
            raise ValueError(
                f"num_epochs must be 0 or more and batch_size at least 1, got {self.num_epochs} and {self.batch_size}"
            )
        if self.patience is not None and (self.patience < 1 or self.monitor is None):
            raise ValueError(f"patience is 1 or more and needs a monitor, got {self.patience} with {self.monitor}")


def seed_of(*key: int | str) -> int:
    """A 63-bit seed from a key: the same on every machine, unrelated for keys that differ anywhere."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Step:
    """What a training step may ask of the loop around it. This one is a single process without mixed precision."""

    def __init__(self, optimizers: Mapping[str, Optimizer], *, seed: int = 0, epoch: int = 0, index: int = 0) -> None:
        self.optimizers = dict(optimizers)
        self.seed = seed
        self.epoch = epoch
        self.index = index

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Put the forward passes of the networks in this; geometry and losses stay outside, in float32."""
        return contextlib.nullcontext()

    def mean(self, total: Tensor, count: Tensor | float) -> Tensor:
        """Total / count, both summed over all workers first: a loss whose gradient is right on any number of them.

        To accumulate gradients over parts of a batch, give each part's total the count of the whole batch, and take the
        same number of parts on every worker (``tensor_split``; some may be empty): workers wait for each other here.

        Args:
            total: sum of this worker's errors, a scalar with gradient.
            count: how many it summed; may be 0 on some workers, and then everywhere gives 0.
        """
        return total / torch.as_tensor(count, dtype=total.dtype, device=total.device).clamp_min(1e-12)

    def backward(self, loss: Tensor) -> None:
        """Like ``loss.backward()``, scaled where the precision asks for it."""
        loss.backward()

    def update(self, name: str, *, max_norm: float | None = None) -> None:
        """Add the gradients of all workers, clip them to ``max_norm``, move optimizer ``name`` and zero its gradients.

        Raises:
            KeyError: no optimizer of that name.
        """
        optimizer = self.optimizers[name]
        if max_norm is not None:
            nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], max_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def generator(self, *key: int | str) -> torch.Generator:
        """A random generator that depends on the seed, the epoch, the step and ``key`` alone, never on the worker."""
        return torch.Generator().manual_seed(seed_of(self.seed, self.epoch, self.index, *key))


class SampleState(dict[int, dict[str, Tensor]]):
    """Tensors that belong to a training sample and live as long as the run: sample index -> name -> tensor on CPU.

    The engine copies what a step has set to every worker and saves all of it in each checkpoint. SUTS keeps the control
    grid of each image pair and its optimizer's moments here.

    Attributes:
        before: what the samples set since the last `settle` held before; None where there was nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[int, dict[str, Tensor] | None] = {}

    def __setitem__(self, index: int, value: dict[str, Tensor]) -> None:
        self.before.setdefault(index, self.get(index))
        super().__setitem__(index, value)

    def settle(self) -> None:
        """Forget what was before."""
        self.before.clear()

    def undo(self) -> None:
        """Put back what the samples held at the last `settle`."""
        for index, value in self.before.items():
            if value is None:
                del self[index]
            else:
                super().__setitem__(index, value)
        self.before.clear()


class Learner(ABC):
    """Networks, optimizers, samples and steps of one gradient loop.

    A subclass sets ``networks`` and ``schedule`` in its constructor. It is built once per worker from picklable
    arguments, so the constructor may load data but must not start anything.

    Attributes:
        networks: everything with weights, by name. Saved in the checkpoint, moved to the device by the engine.
        schedule: how long and in what portions.
        sample_state: see `SampleState`; stays empty for most systems.
        seed: the run's, set by whoever drives the learner before it asks for anything.
    """

    networks: nn.ModuleDict
    schedule: Schedule
    seed: int = 0

    def __init__(self) -> None:
        self.sample_state = SampleState()

    @abstractmethod
    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Optimizers by name, made after the networks are where they will train."""

    def configure_schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, LRScheduler]:
        """Learning-rate schedulers by name, each stepped once per epoch. None unless overridden.

        A ``ReduceLROnPlateau`` is stepped after each validation instead, with the metric ``schedule.monitor`` names.
        """
        return {}

    @abstractmethod
    def num_samples(self) -> int:
        """How many training samples there are."""

    def order(self, epoch: int, seed: int) -> Sequence[int]:
        """Which samples an epoch visits, in order: a function of seed and epoch alone. A permutation by default."""
        generator = torch.Generator().manual_seed(seed_of("order", seed, epoch))
        order: list[int] = torch.randperm(self.num_samples(), generator=generator).tolist()
        return order

    @abstractmethod
    def collate(self, indices: Sequence[int], epoch: int) -> Any:
        """The batch of these samples: nested tensors, dicts, lists or dataclasses, on CPU.

        May run ahead of the training steps, in a process of its own that was forked from this one. So it uses what the
        constructor and `begin_epoch` have set, never weights or `sample_state`, and draws each sample's augmentation
        from `sample_generator`: the batch is then the same wherever, whenever and beside whichever others it is made.

        Raises:
            UserError: a sample cannot be read.
        """

    def sample_generator(self, index: int, epoch: int) -> torch.Generator:
        """Where the random draws of a sample's augmentation come from: the run's seed, the sample and the epoch."""
        return torch.Generator().manual_seed(seed_of("sample", self.seed, index, epoch))

    def sample_name(self, index: int) -> str:
        """What a person knows the sample by, for messages: the case's id."""
        return f"sample {index}"

    @abstractmethod
    def training_step(self, batch: Any, step: Step) -> Mapping[str, SumCount]:
        """Forward, backward and update for one batch. What it returns is logged."""

    def begin_epoch(self, epoch: int) -> None:  # noqa: B027  optional hook
        """Called before an epoch's first batch, also when resuming in the middle of it.

        With batches prepared ahead it is also called in the processes that prepare them, sooner.
        """

    def num_validation_samples(self) -> int:
        """0 unless the learner validates."""
        return 0

    def validation_step(self, index: int) -> Mapping[str, SumCount]:
        """Score one validation sample; workers share the samples and the engine adds the sums."""
        return {}

    def shard_units(self) -> Sequence[nn.Module]:
        """Parts whose weights are brought together one at a time with ``--shard``: the blocks of a large network.

        Each top-level network is a unit by itself anyway.
        """
        return ()

    def extra_state(self) -> dict[str, Any]:
        """Anything else a resumed run needs: tensors, numbers, strings and containers of them."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027  optional hook
        """Take back what `extra_state` gave."""
