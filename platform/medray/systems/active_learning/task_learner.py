"""The gradient loop of a task network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer, RMSprop

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.data.modalities import LABEL, MAIN
from medray.learner import Learner, Schedule, Step, SumCount

if TYPE_CHECKING:
    from medray.systems.active_learning.network_task import NetworkTask

ItemT = TypeVar("ItemT")
NETWORK = "net"


@dataclass(frozen=True)
class Batch:
    """Images (B, 1, H, W) in [0, 1] and what they should give, (B, ...)."""

    image: Tensor
    target: Tensor


class TaskLearner(Learner):
    """Trains the network of a task on labelled cases; the epoch with the best validation metric counts.

    What the engine calls a validation sample is a portion of the validation cases here. A mean over images is summed
    over portions of a batch. Average precision is a matter of ranks, which no sums over portions can give: there all
    cases are one portion, so that the metric is exact, and one worker validates.

    Args:
        task: says what is learnt.
        cases: with labels.
        validation: with labels.
        mean: of the intensities that the network sees, see `TaskNetwork`.
        sd: their standard deviation.
        cache: keeps decoded images.
    """

    def __init__(
        self,
        task: NetworkTask[Any],
        cases: Sequence[Case],
        validation: Sequence[Case],
        *,
        mean: float,
        sd: float,
        cache: SampleCache | None = None,
    ) -> None:
        super().__init__()
        self.task, self.cases = task, list(cases)
        self.reader = task.reader(cache)
        self.reader.read_ahead(cases, (MAIN, LABEL) if task.kind == "mask" else (MAIN,))
        self.networks = nn.ModuleDict({NETWORK: task.build(mean, sd)})
        size = task.settings.task_batch_size
        self.portions = [list(validation)] if task.ranks and validation else in_portions(validation, size)
        self.schedule = Schedule(num_epochs=task.num_epochs, batch_size=size, monitor=task.metric, mode="max")

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """RMSprop or Adam on everything."""
        kind = RMSprop if self.task.optimizer == "rmsprop" else Adam
        return {NETWORK: kind(self.networks.parameters(), lr=self.task.settings.task_lr)}

    def num_samples(self) -> int:
        """Labelled cases."""
        return len(self.cases)

    def sample_name(self, index: int) -> str:
        """The case's id."""
        return self.cases[index].id

    def collate(self, indices: Sequence[int], epoch: int) -> Batch:
        """Cases as they are; the paper augments nothing."""
        return self._batch([self.cases[index] for index in indices])

    def training_step(self, batch: Batch, step: Step) -> Mapping[str, SumCount]:
        """One update; the loss is averaged over images."""
        with step.autocast():
            logits = self.networks[NETWORK](batch.image)
        total, count = self.task.losses(logits.float(), batch.target).sum(), len(batch.image)
        step.backward(step.mean(total, count))
        step.update(NETWORK)
        return {"loss": SumCount(total.detach(), count)}

    def num_validation_samples(self) -> int:
        """Portions of the validation cases."""
        return len(self.portions)

    def validation_step(self, index: int) -> Mapping[str, SumCount]:
        """Loss and metric of a portion."""
        device = next(self.networks.parameters()).device
        total, outcomes = torch.zeros((), dtype=torch.float64), list[Any]()
        for cases in in_portions(self.portions[index], self.task.settings.task_batch_size):
            batch = self._batch(cases)
            logits = self.networks[NETWORK](batch.image.to(device)).float().cpu()
            total += self.task.losses(logits, batch.target).sum()
            outcomes += map(self.task.outcome, logits, batch.target)
        return {"loss": SumCount(total, len(outcomes)), self.task.metric: self.task.validated(outcomes)}

    def _batch(self, cases: Sequence[Case]) -> Batch:
        targets = [self.task.target(self.reader, case) for case in cases]
        return Batch(self.task.images(self.reader, cases), torch.stack(targets))


def in_portions(items: Sequence[ItemT], size: int) -> list[list[ItemT]]:
    """Items in their order, at most ``size`` at a time."""
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
