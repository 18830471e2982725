"""Step 1: the U-Net learns the supraspinatus."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.losses.dice import DiceLoss
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.learner import Learner, Schedule, Step, SumCount
from medray.systems.shoulder.goutallier_augmentation import drawn_turn
from medray.systems.shoulder.goutallier_config import GoutallierConfig
from medray.systems.shoulder.goutallier_images import YViewReader
from medray.systems.shoulder.goutallier_networks import make_segmenter
from medray.systems.shoulder.goutallier_regions import FloatArray


@dataclass(frozen=True)
class Outlined:
    """Images and masks, (B, 1, S, S) each."""

    image: Tensor
    mask: Tensor


@functools.cache
def _dice_loss() -> DiceLoss:
    return DiceLoss(sigmoid=True, reduction="none", smooth_nr=0.0, smooth_dr=1e-6)


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - 2 sum(p t) / (sum p + sum t), eq. 1, for each image.

    Args:
        logits: (B, 1, S, S).
        masks: 0 and 1, same shape.

    Returns:
        (B,).
    """
    loss: Tensor = _dice_loss()(logits, masks).flatten()
    return loss


class SegmenterLearner(Learner):
    """A U-Net with the Dice loss.

    Args:
        config: the method's settings.
        train: cases with ``image`` and ``label``.
        selection: cases whose loss decides which epoch counts.
        cache: keeps decoded images.
    """

    def __init__(
        self,
        config: GoutallierConfig,
        train: Sequence[Case],
        selection: Sequence[Case],
        cache: SampleCache | None = None,
    ) -> None:
        super().__init__()
        self.config, self.train, self.selection = config, list(train), list(selection)
        self.reader = YViewReader(config.image_size, cache)
        self.networks = nn.ModuleDict({"net": make_segmenter(config)})
        self.schedule = Schedule(num_epochs=config.seg_epochs, batch_size=config.batch_size, monitor="loss", mode="min")

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Adam as it comes."""
        return {"net": Adam(self.networks.parameters(), lr=self.config.seg_lr)}

    def num_samples(self) -> int:
        """Training images."""
        return len(self.train)

    def sample_name(self, index: int) -> str:
        """The case's id."""
        return self.train[index].id

    def collate(self, indices: Sequence[int], epoch: int) -> Outlined:
        """Images and masks, each turned and maybe flipped."""
        drawn = [self._sample(index, epoch) for index in indices]
        return Outlined(torch.stack([image for image, _ in drawn]), torch.stack([mask for _, mask in drawn]))

    def _sample(self, index: int, epoch: int) -> tuple[Tensor, Tensor]:
        image, mask = self._pair(self.train[index])
        turn = drawn_turn(self.sample_generator(index, epoch), self.config.rotation_deg)
        both = turn.apply(torch.from_numpy(np.concatenate([image, mask])))
        return both[:1], (both[1:] >= 0.5).float()

    def _pair(self, case: Case) -> tuple[FloatArray, FloatArray]:
        return self.reader.network_image(case), self.reader.network_mask(case)

    def training_step(self, batch: Outlined, step: Step) -> Mapping[str, SumCount]:
        """One update."""
        with step.autocast():
            logits = self.networks["net"](batch.image)
        each = dice_loss(logits.float(), batch.mask)
        step.backward(step.mean(each.sum(), len(each)))
        step.update("net")
        return {"loss": SumCount(each.detach().sum(), len(each))}

    def num_validation_samples(self) -> int:
        """Images that decide which epoch counts."""
        return len(self.selection)

    def validation_step(self, index: int) -> Mapping[str, SumCount]:
        """Loss, and Dice and accuracy of the thresholded output, of an image."""
        pair = self._pair(self.selection[index])
        device = next(self.networks.parameters()).device
        image, mask = (torch.from_numpy(one)[None].to(device) for one in pair)
        logits = self.networks["net"](image).float()
        found = logits >= 0
        dice = 2 * (found * mask).sum() / (found.sum() + mask.sum()).clamp_min(1)
        right = (found == mask.bool()).float()
        return {
            "loss": SumCount(dice_loss(logits, mask).sum(), 1),
            "dice": SumCount(dice, 1),
            "pixel_accuracy": SumCount(right.mean(), 1),
        }
