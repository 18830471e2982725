"""What is learnt from the labels of a campaign: the contract of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from medray.active.answers import LabelKind
from medray.data.case import Case
from medray.system import FitResult, Row, Workbench


@dataclass(frozen=True)
class TaskScores:
    """Scores of a task network.

    Attributes:
        rows: one per case, its id under "case".
        summary: over all cases.
    """

    rows: Sequence[Row]
    summary: Mapping[str, float]


@dataclass(frozen=True)
class Seen:
    """What a task network makes of one case.

    Attributes:
        probabilities: (L, *spatial) for a mask or one class, which sum to 1 over L; (L,) of independent classes.
        features: (F,), of the last layer before the decision, pooled over space.
    """

    probabilities: Tensor
    features: Tensor


class Task(ABC):
    """Trains and judges the network that the labels are for. Picklable and light: it travels to every actor."""

    kind: LabelKind
    classes: tuple[str, ...]
    """Names of what is told apart; for masks, of the foreground."""
    metric: str
    """The number in a summary that the campaign is about, larger is better: dice, mean_ap, accuracy."""

    @abstractmethod
    def train(self, work: Workbench, cases: Sequence[Case], validation: Sequence[Case], *, name: str) -> FitResult:
        """Train from scratch on labelled cases; the best epoch on ``validation`` counts.

        Args:
            work: where to train.
            cases: with labels, see `medray.active.answers.with_label`.
            validation: likewise.
            name: of the loop.
        """

    @abstractmethod
    def score(self, work: Workbench, weights: Path | None, cases: Sequence[Case]) -> TaskScores:
        """Judge weights on labelled cases."""

    @abstractmethod
    def look(self, work: Workbench, weights: Path | None, cases: Sequence[Case]) -> Iterator[Seen]:
        """What the network makes of each case in turn; reads a few at a time."""
