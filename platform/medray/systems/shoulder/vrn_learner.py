"""The tear classifier's gradient loop: cross-entropy, SGD with Nesterov momentum, one drop of the learning rate.

No class weights and no augmentation, as in the text; the last epoch's weights are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.learner import Learner, Schedule, Step, SumCount
from medray.nn.sample_dropout import seed_dropout
from medray.systems.shoulder.vrn_config import VrnConfig
from medray.systems.shoulder.vrn_labels import CLASSES, classes_of
from medray.systems.shoulder.vrn_networks import CamClassifier, make_network
from medray.systems.shoulder.vrn_volumes import CubeReader

_DROP = 0.1


@dataclass(frozen=True)
class Batch:
    """Cubes (B, 1, S, S, S), classes (B,), and the seeds of each volume's dropout (B,)."""

    cube: Tensor
    label: Tensor
    seed: Tensor


def network_of(config: VrnConfig) -> CamClassifier:
    """The config's network, with random weights."""
    return make_network(
        config.arch,
        width=config.width,
        blocks=config.blocks,
        activation=config.activation,
        dropout=config.dropout,
        num_classes=len(CLASSES),
    )


class VrnLearner(Learner):
    """One network on labelled volumes.

    Args:
        config: the method's settings.
        train: cases with the field ``image`` and a class.
        validation: cases whose scores are logged after each epoch; they choose nothing.
        cache: keeps resampled cubes.
    """

    def __init__(
        self, config: VrnConfig, train: Sequence[Case], validation: Sequence[Case], cache: SampleCache | None = None
    ) -> None:
        super().__init__()
        self.config, self.train, self.validation = config, list(train), list(validation)
        self.labels = torch.from_numpy(classes_of(self.train))
        self.validation_labels = classes_of(self.validation) if self.validation else ()
        self.reader = CubeReader(config.cropper, cache)
        self.networks = nn.ModuleDict({"net": network_of(config)})
        self.schedule = Schedule(num_epochs=config.num_epochs, batch_size=config.batch_size)

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """SGD; the L2 term is of weights alone, not of biases and of batch normalization."""
        config, parameters = self.config, list(self.networks.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        return {"net": SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=True)}

    def configure_schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, LRScheduler]:
        """A tenth of the learning rate after ``lr_drop_epoch``."""
        return {"net": MultiStepLR(optimizers["net"], [self.config.lr_drop_epoch], gamma=_DROP)}

    def num_samples(self) -> int:
        """Training volumes."""
        return len(self.train)

    def sample_name(self, index: int) -> str:
        """The case's id."""
        return self.train[index].id

    def collate(self, indices: Sequence[int], epoch: int) -> Batch:
        """Cubes as they are, with a seed for each one's dropout."""
        cubes = [torch.from_numpy(self.reader.read(self.train[index]).network_input()) for index in indices]
        seeds = [int(torch.randint(2**62, (), generator=self.sample_generator(index, epoch))) for index in indices]
        return Batch(torch.stack(cubes), self.labels[list(indices)], torch.tensor(seeds))

    def training_step(self, batch: Batch, step: Step) -> Mapping[str, SumCount]:
        """One update."""
        net = self.networks["net"]
        seed_dropout(net, batch.seed)
        with step.autocast():
            logits = net(batch.cube)
        losses = F.cross_entropy(logits.float(), batch.label, reduction="none")
        step.backward(step.mean(losses.sum(), len(losses)))
        step.update("net")
        return {"loss": SumCount(losses.detach().sum(), float(len(losses))), **_counted(logits.detach(), batch.label)}

    def num_validation_samples(self) -> int:
        """Validation volumes."""
        return len(self.validation)

    def validation_step(self, index: int) -> Mapping[str, SumCount]:
        """The loss and the share of right classes on a volume held out."""
        net = self.networks["net"]
        device = next(net.parameters()).device
        cube = torch.from_numpy(self.reader.read(self.validation[index]).network_input())[None].to(device)
        label = torch.tensor([int(self.validation_labels[index])], device=device)
        logits = net(cube).float()
        loss = F.cross_entropy(logits, label, reduction="sum")
        return {"loss": SumCount(loss, 1.0), **_counted(logits, label)}


def _counted(logits: Tensor, label: Tensor) -> dict[str, SumCount]:
    right = (logits.argmax(dim=1) == label).float()
    return {"top1": SumCount(right.sum(), float(len(right)))}
