"""Whole lesions in 2D images: a U-Net trained with cross entropy and Dice (M-VAAL, secs. 2.1 and 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.losses.dice import DiceLoss
from torch import Tensor
from torch.nn import functional as F

from medray.active.task import TaskScores
from medray.data.case import Case
from medray.data.modalities import LABEL, ModalReader
from medray.errors import UserError
from medray.learner import SumCount
from medray.metrics.segmentation import Confusion, confusion, pooled
from medray.system import Row
from medray.systems.active_learning.network_task import NetworkTask
from medray.systems.active_learning.task_networks import TaskNetwork, build_unet
from medray.systems.active_learning.task_settings import TaskSettings


class SegmentationTask(NetworkTask[Confusion]):
    """Everything that a label map names against the background; images are standardized by the training images.

    Dice is that of each image, averaged over images. An image without a lesion in which none is found counts 1, one in
    which something is found 0, so that models are compared over the same images.

    Args:
        settings: of the network.
        classes: name of the lesion.

    Raises:
        ValueError: settings that a U-Net cannot have.
    """

    kind = "mask"
    metric = "dice"
    paper_epochs = 30
    paper_optimizer = "rmsprop"

    def __init__(self, settings: TaskSettings, classes: Sequence[str] = ("lesion",)) -> None:
        super().__init__(settings, classes)
        if settings.task_weights:
            raise ValueError("weights are those of a classifier; the U-Net starts from random ones")

    @property
    def smallest_px(self) -> int:
        """See `NetworkTask.smallest_px`: two pixels after four halvings."""
        return 32

    def build(self, mean: float, sd: float, *, start: bool = True) -> TaskNetwork:
        """See `NetworkTask.build`."""
        return build_unet(self.settings.unet_channels, mean=mean, sd=sd)

    def target(self, reader: ModalReader, case: Case) -> Tensor:
        """(1, H, W), 1 where the label map is not 0."""
        if LABEL not in case.fields:
            raise UserError(f"{case.id} has no label map, which a labelled case has, of zeros if nothing is there")
        return torch.from_numpy((reader.label(case) > 0).astype("float32"))

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy, averaged over pixels, plus Dice loss of each image: (B,) from (B, 1, H, W)."""
        entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        overlap = DiceLoss(sigmoid=True, reduction="none")(logits, targets)
        return entropy.flatten(1).mean(1) + overlap.flatten(1).mean(1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Background and lesion, (B, 2, H, W)."""
        lesion = torch.sigmoid(logits)
        return torch.cat([1 - lesion, lesion], dim=1)

    def outcome(self, logits: Tensor, target: Tensor) -> Confusion:
        """Pixels by what was found at probability 0.5 and what is true."""
        return confusion((logits > 0).numpy(), target.numpy())

    def validated(self, outcomes: Sequence[Confusion]) -> SumCount:
        """Dice, summed over images."""
        return SumCount(sum(map(_dice, outcomes)), len(outcomes))

    def scores(self, cases: Sequence[Case], outcomes: Sequence[Confusion]) -> TaskScores:
        """Dice of the images; over the pixels of all of them Dice, sensitivity and precision."""
        rows = [_row(case, counts) for case, counts in zip(cases, outcomes, strict=True)]
        together = pooled(outcomes)
        summary = {
            "dice": self.validated(outcomes).mean,
            "dice_pooled": together["dice"],
            "sensitivity": together["sensitivity"],
            "precision": together["precision"],
        }
        return TaskScores(rows, {name: value for name, value in summary.items() if math.isfinite(value)})


def _dice(counts: Confusion) -> float:
    return counts.rates()["dice"] if counts.tp + counts.fp + counts.fn else 1.0


def _row(case: Case, counts: Confusion) -> Row:
    return {
        "case": case.id,
        "dice": _dice(counts),
        "lesion_px": counts.tp + counts.fn,
        "missed_px": counts.fn,
        "false_px": counts.fp,
    }
