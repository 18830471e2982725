"""Step 2: the classifier learns from crops which muscles are risky."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.learner import Learner, Schedule, Step, SumCount
from medray.nn.sample_dropout import seed_dropout
from medray.systems.shoulder.goutallier_augmentation import CLOSEST_CROP, drawn_turn
from medray.systems.shoulder.goutallier_config import GoutallierConfig
from medray.systems.shoulder.goutallier_images import YViewReader
from medray.systems.shoulder.goutallier_networks import make_grader
from medray.systems.shoulder.goutallier_regions import Region


@dataclass(frozen=True)
class Graded:
    """A case with the region that is looked at, and whether it is risky."""

    case: Case
    region: Region
    risky: bool


@dataclass(frozen=True)
class Crops:
    """Crops (B, 1, S, S), 1 for risky (B,), and a seed for each one's dropout (B,)."""

    image: Tensor
    risky: Tensor
    seed: Tensor


class GraderLearner(Learner):
    """An ImageNet classifier with binary cross entropy.

    With ``balance`` oversample an epoch has, after all training images as they are, copies of the rarer class in turn
    until both have as many; each copy is turned, flipped and center-cropped anew in every epoch.

    Args:
        config: the method's settings.
        train: both classes.
        selection: what decides by its loss which epoch counts.
        cache: keeps decoded images.
    """

    def __init__(
        self,
        config: GoutallierConfig,
        train: Sequence[Graded],
        selection: Sequence[Graded],
        cache: SampleCache | None = None,
    ) -> None:
        super().__init__()
        self.config, self.train, self.selection = config, list(train), list(selection)
        self.reader = YViewReader(config.image_size, cache)
        risky = [sample for sample in self.train if sample.risky]
        others = [sample for sample in self.train if not sample.risky]
        fewer, more = sorted((risky, others), key=len)
        num_copies = len(more) - len(fewer) if config.balance == "oversample" and fewer else 0
        self.copies = [fewer[index % len(fewer)] for index in range(num_copies)]
        weighted = config.balance == "weighted" and risky
        self.risky_weight = len(others) / len(risky) if weighted else 1.0
        self.networks = nn.ModuleDict({"net": make_grader(config)})
        self.schedule = Schedule(
            num_epochs=config.epochs, batch_size=config.batch_size, monitor="loss", mode="min", patience=config.patience
        )

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Adam as it comes, on what is not frozen."""
        learns = [parameter for parameter in self.networks.parameters() if parameter.requires_grad]
        return {"net": Adam(learns, lr=self.config.lr)}

    def num_samples(self) -> int:
        """Training images and copies."""
        return len(self.train) + len(self.copies)

    def _sample(self, index: int) -> Graded:
        return self.train[index] if index < len(self.train) else self.copies[index - len(self.train)]

    def sample_name(self, index: int) -> str:
        """The case's id."""
        return self._sample(index).case.id

    def collate(self, indices: Sequence[int], epoch: int) -> Crops:
        """Crops, those of copies changed."""
        crops, seeds = [], []
        for index in indices:
            sample, generator = self._sample(index), self.sample_generator(index, epoch)
            image = self._crop(sample)
            turn = drawn_turn(generator, self.config.rotation_deg, closest_crop=CLOSEST_CROP)
            crops.append(turn.apply(image) if index >= len(self.train) else image)
            seeds.append(int(torch.randint(2**62, (), generator=generator)))
        risky = torch.tensor([float(self._sample(index).risky) for index in indices])
        return Crops(torch.stack(crops), risky, torch.tensor(seeds))

    def _crop(self, sample: Graded) -> Tensor:
        background = self.config.mask_background
        return torch.from_numpy(self.reader.crop(sample.case, sample.region, mask_background=background))

    def training_step(self, batch: Crops, step: Step) -> Mapping[str, SumCount]:
        """One update."""
        seed_dropout(self.networks, batch.seed)
        with step.autocast():
            logits = self.networks["net"](batch.image)
        each = self._loss(logits.float()[:, 0], batch.risky, self.risky_weight)
        step.backward(step.mean(each.sum(), len(each)))
        step.update("net")
        return {"loss": SumCount(each.detach().sum(), len(each))}

    def num_validation_samples(self) -> int:
        """Crops that decide which epoch counts."""
        return len(self.selection)

    def validation_step(self, index: int) -> Mapping[str, SumCount]:
        """Loss and accuracy on a crop as it is, without weights."""
        sample = self.selection[index]
        device = next(self.networks.parameters()).device
        image = self._crop(sample)[None].to(device)
        logit = self.networks["net"](image).float()[:, 0]
        risky = torch.tensor([float(sample.risky)], device=device)
        right = float(bool(logit >= 0) == sample.risky)
        return {"loss": SumCount(self._loss(logit, risky, 1.0).sum(), 1), "accuracy": SumCount(right, 1)}

    @staticmethod
    def _loss(logits: Tensor, risky: Tensor, weight: float) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            logits, risky, reduction="none", pos_weight=torch.tensor(weight, device=logits.device)
        )
