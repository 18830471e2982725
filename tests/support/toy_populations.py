"""A system that climbs: its learning rate is how fast, and an untrained weight says which trial began the climb."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from toy_sweeps import Toy, registered

from medray.data.case import Case, Splits
from medray.engine.checkpoint import load_weights
from medray.learner import Learner, Schedule, Step, SumCount
from medray.system import Evaluation, Trained, Workbench


@dataclass(frozen=True, kw_only=True)
class ClimberConfig:
    speed: float = 0.5
    """Learning rate: height gained in an epoch."""
    decay: float = 1.0
    """What the learning rate is multiplied by after each epoch."""
    num_epochs: int = 6
    pause_s: float = 0.0
    """How long an epoch takes."""


class Climb(Learner):
    """One weight that grows by the learning rate in each epoch; the bias stays what it was at first: the speed."""

    def __init__(self, config: ClimberConfig) -> None:
        super().__init__()
        self.config = config
        layer = nn.Linear(1, 1)
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias.fill_(config.speed)
        layer.bias.requires_grad_(False)
        self.networks = nn.ModuleDict({"net": layer})
        self.schedule = Schedule(num_epochs=config.num_epochs, batch_size=2, monitor=None)

    def configure_optimizers(self) -> dict[str, Optimizer]:
        return {"net": SGD([self.networks["net"].weight], lr=self.config.speed)}

    def configure_schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, Any]:
        return {"net": torch.optim.lr_scheduler.LambdaLR(optimizers["net"], lambda epoch: self.config.decay**epoch)}

    def num_samples(self) -> int:
        return 2

    def collate(self, indices: Sequence[int], epoch: int) -> dict[str, Tensor]:
        time.sleep(self.config.pause_s)
        return {"x": torch.ones(len(indices), 1)}

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, SumCount]:
        loss = -self.networks["net"](batch["x"]).mean()
        step.backward(loss)
        step.update("net")
        return {"loss": SumCount(loss.detach(), 1)}

    def num_validation_samples(self) -> int:
        return 1

    def validation_step(self, index: int) -> dict[str, SumCount]:
        return {"height": SumCount(self.networks["net"].weight.detach().sum(), 1)}


class Climber(Toy[ClimberConfig]):
    """See the module."""

    slug = "climber"
    config_class = ClimberConfig

    def train(self, work: Workbench, splits: Splits) -> Trained:
        fit = work.fit(lambda: Climb(self.config))
        return Trained(weights=fit.weights, metrics={})

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        assert trained.weights is not None
        weights = load_weights(trained.weights)
        height, began = float(weights["net.weight"]), float(weights["net.bias"])
        return Evaluation([{"case": case.id, "height": height} for case in cases], {"height": height, "began": began})


def climbing() -> AbstractContextManager[None]:
    """The system under its slug, in this process."""
    return registered(Climber)
