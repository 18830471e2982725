"""Which cases to ask for next: the contract of a sampler. A new one is a class of this."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from medray.active.task import Task
from medray.data.case import Case
from medray.system import FitResult, Workbench

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class SamplingRound:
    """What a sampler sees in a round: images, never labels.

    Attributes:
        number: from 0.
        labelled: cases with a label, in the order they got it.
        unlabelled: cases that may be asked for, in the order of the pool.
        budget: how many to pick.
    """

    number: int
    labelled: tuple[Case, ...]
    unlabelled: tuple[Case, ...]
    budget: int


@dataclass(frozen=True)
class Ranking:
    """What a sampler says.

    Attributes:
        picks: ids, the most wanted first, `budget` of them or as many as there are.
        scores: of every unlabelled case in the order given, float32, smaller is more wanted; None where there are none.
        labelled_scores: likewise of the labelled cases, where the sampler scores those too.
        metrics: what it measured of itself, for the curves.
        warning: a sentence for the person watching where the ranking may mean nothing; empty where all is well.
    """

    picks: tuple[str, ...]
    scores: FloatArray | None = None
    labelled_scores: FloatArray | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    warning: str = ""


class Sampler(ABC):
    """Ranks the unlabelled. Lives in a process of its own that may be lost between calls: it keeps nothing.

    Picklable and light. What it trains goes through ``work.fit``, which resumes by itself.
    """

    asks_learner: ClassVar[bool] = False
    """Whether `rank` needs the task network of this round; `rank` is then called with its weights."""

    def train(self, work: Workbench, view: SamplingRound) -> FitResult | None:
        """Learn from all images of the pool, while the task network is trained beside. Nothing unless overridden.

        Args:
            work: where to train; loops carry ``view.number`` in their names.
            view: this round.
        """
        return None

    @abstractmethod
    def rank(
        self, work: Workbench, view: SamplingRound, *, weights: Path | None, task: Task, task_weights: Path | None
    ) -> Ranking:
        """Say what to ask for. A function of its arguments and ``work.seed``; images are read as they are needed.

        Args:
            work: for its cache and seed.
            view: this round.
            weights: of what `train` trained.
            task: knows how the task network looks at cases.
            task_weights: of the task network of this round, where the sampler asks for it.
        """


def smallest(cases: Sequence[Case], scores: Iterable[float], number: int) -> tuple[tuple[str, ...], FloatArray]:
    """The ids with the smallest scores, equal ones by id, and all scores.

    Holds ``number`` cases and one float per score at a time, however many there are and wherever they come from.
    """
    kept = np.empty(len(cases), dtype=np.float32)

    def pairs() -> Iterator[tuple[float, str]]:
        for index, (case, score) in enumerate(zip(cases, scores, strict=True)):
            kept[index] = score
            yield float(kept[index]), case.id

    picks = tuple(name for _, name in heapq.nsmallest(number, pairs()))
    return picks, kept
