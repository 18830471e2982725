"""Classes of 2D images: ResNet-18 with sigmoids or a softmax (M-VAAL, secs. 2.1 and 3.2).

Shape letters: N cases, B images, L classes.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medray.active.answers import NO_CLASSES, SEPARATOR, class_list
from medray.active.task import TaskScores
from medray.data.case import Case
from medray.data.modalities import ModalReader
from medray.errors import UserError
from medray.learner import SumCount
from medray.metrics.classification import (
    auc_per_label,
    average_precision_per_label,
    confusion_matrix,
    mean_defined,
)
from medray.system import FitResult, Row, Workbench
from medray.systems.active_learning.network_task import NetworkTask
from medray.systems.active_learning.task_networks import TaskNetwork, build_classifier


@dataclass(frozen=True)
class Judged:
    """One image: its probabilities (L,), and the truth: 0 or 1 of each class (L,), or a class index ()."""

    probability: NDArray[np.float64]
    truth: NDArray[Any]


class ClassificationTask(NetworkTask[Judged]):
    """What both classifications share."""

    paper_epochs = 50
    paper_optimizer = "adam"

    @property
    def smallest_px(self) -> int:
        """See `NetworkTask.smallest_px`."""
        return 64 if self.settings.task_network == "resnet18" else 16

    def build(self, mean: float, sd: float, *, start: bool = True) -> TaskNetwork:
        """See `NetworkTask.build`."""
        weights = Path(self.settings.task_weights) if self.settings.task_weights and start else None
        return build_classifier(self.settings.task_network, len(self.classes), mean=mean, sd=sd, weights=weights)

    def train(self, work: Workbench, cases: Sequence[Case], validation: Sequence[Case], *, name: str) -> FitResult:
        """See `Task.train`."""
        if self.settings.task_network == "resnet18" and not self.settings.task_weights:
            work.say(
                "resnet18 starts from random weights, the paper's from ImageNet's: with few labels expect lower scores "
                "and raise task_lr; task_weights takes a file of torchvision's"
            )
        return super().train(work, cases, validation, name=name)

    def outcome(self, logits: Tensor, target: Tensor) -> Judged:
        """Probabilities beside the truth."""
        return Judged(self.probabilities(logits[None])[0].double().numpy(), target.numpy())

    def scores(self, cases: Sequence[Case], outcomes: Sequence[Judged]) -> TaskScores:
        """Rows with the probability of every class, and the summary of the subclass."""
        truth, probability = _stacked(outcomes)
        rows = [self._row(case, one) for case, one in zip(cases, outcomes, strict=True)]
        found = self.summary(truth, probability)
        return TaskScores(rows, {name: value for name, value in found.items() if math.isfinite(value)})

    @abstractmethod
    def summary(self, truth: NDArray[Any], probability: NDArray[np.float64]) -> dict[str, float]:
        """Scores over all cases.

        Args:
            truth: (N, L), 0 or 1, or (N,), class indices.
            probability: (N, L).

        Raises:
            UserError: the metric is undefined on these cases.
        """

    @abstractmethod
    def told(self, one: Judged) -> Row:
        """What is true and what was said of a case, for a table."""

    def _row(self, case: Case, one: Judged) -> Row:
        shown = {f"probability_{name}": float(p) for name, p in zip(self.classes, one.probability, strict=True)}
        return {"case": case.id, **self.told(one), **shown}

    def _known(self, case: Case, names: Sequence[str]) -> list[int]:
        """Positions of names among the classes."""
        for name in names:
            if name not in self.classes:
                raise UserError(f"{case.id} is of the class {name!r}, which is none of {', '.join(self.classes)}")
        return [self.classes.index(name) for name in names]


class MultiLabelTask(ClassificationTask):
    """Any number of classes per image, each by itself. The metric is the mean of the classes' average precision.

    Classes that all or none of the cases have are left out of that mean. Images are standardized by ImageNet's mean and
    standard deviation, averaged over the colors.
    """

    kind = "classes"
    metric = "mean_ap"
    intensities = (0.449, 0.226)
    ranks = True

    def target(self, reader: ModalReader, case: Case) -> Tensor:
        """(L,), 1 for the classes that the case has."""
        text = case.attributes.get("classes")
        if text is None:
            raise UserError(f"{case.id} has no attribute classes; a case with none of them says {NO_CLASSES!r}")
        truth = torch.zeros(len(self.classes))
        truth[self._known(case, class_list(text))] = 1.0
        return truth

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of each class, averaged over classes."""
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, L), independent."""
        return torch.sigmoid(logits)

    def validated(self, outcomes: Sequence[Judged]) -> SumCount:
        """Mean average precision of all validation cases, counted once."""
        value = mean_defined(average_precision_per_label(*_stacked(outcomes)))
        return SumCount(value, 1) if math.isfinite(value) else SumCount(0.0, 0)

    def summary(self, truth: NDArray[Any], probability: NDArray[np.float64]) -> dict[str, float]:
        """Mean average precision, and that of every class."""
        each = average_precision_per_label(truth, probability)
        if not np.isfinite(each).any():
            raise UserError(
                f"average precision needs a class that some of the {len(truth)} cases have and others do not: "
                f"{', '.join(self.classes)}"
            )
        by_class = {f"ap_{name}": float(value) for name, value in zip(self.classes, each, strict=True)}
        return {self.metric: mean_defined(each), **by_class}

    def told(self, one: Judged) -> Row:
        """The classes it has."""
        has = [name for name, true in zip(self.classes, one.truth, strict=True) if true]
        return {"true": SEPARATOR.join(has) or NO_CLASSES}


class MultiClassTask(ClassificationTask):
    """One class per image. The metric is accuracy; images are standardized by (x - 0.5) / 0.5."""

    kind = "class"
    metric = "accuracy"
    intensities = (0.5, 0.5)

    def target(self, reader: ModalReader, case: Case) -> Tensor:
        """(), the position of its class."""
        text = case.attributes.get("class")
        if text is None:
            raise UserError(f"{case.id} has no attribute class; expected one of {', '.join(self.classes)}")
        return torch.tensor(self._known(case, [text])[0])

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy."""
        return F.cross_entropy(logits, targets, reduction="none")

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, L), rows sum to 1."""
        return torch.softmax(logits, dim=1)

    def validated(self, outcomes: Sequence[Judged]) -> SumCount:
        """Images told right."""
        return SumCount(float(sum(_is_right(one) for one in outcomes)), len(outcomes))

    def summary(self, truth: NDArray[Any], probability: NDArray[np.float64]) -> dict[str, float]:
        """Accuracy; recall of every class and their mean; the mean of each class's AUC against the rest."""
        num_classes = len(self.classes)
        counts = confusion_matrix(truth, probability.argmax(axis=1), num_classes)
        known = counts.sum(axis=1)
        recall = np.where(known > 0, counts.diagonal() / np.maximum(known, 1), np.nan)
        return {
            "accuracy": float(counts.trace() / counts.sum()),
            "balanced_accuracy": mean_defined(recall),
            "auc": mean_defined(auc_per_label(np.eye(num_classes)[truth], probability)),
            **{f"recall_{name}": float(value) for name, value in zip(self.classes, recall, strict=True)},
        }

    def told(self, one: Judged) -> Row:
        """The class it has, the one it was given, and whether they agree."""
        found = self.classes[int(one.probability.argmax())]
        return {"true": self.classes[int(one.truth)], "predicted": found, "right": _is_right(one)}


def _is_right(one: Judged) -> bool:
    return bool(one.probability.argmax() == one.truth)


def _stacked(outcomes: Sequence[Judged]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Truth and probability of all cases."""
    return np.stack([one.truth for one in outcomes]), np.stack([one.probability for one in outcomes])
