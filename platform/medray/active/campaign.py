"""What an active-learning campaign is, and what it leaves behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medray.active.answers import Answer
from medray.active.oracle import Oracle, Problem
from medray.active.records import RoundRecord
from medray.active.sampler import Sampler
from medray.active.task import Task
from medray.data.case import Case
from medray.system import Row


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Who asks whom for what. Picklable: it travels to every actor.

    Attributes:
        task: what is learnt from the labels.
        sampler: picks the cases.
        make_oracle: makes whoever answers, in a process of its own.
        pool: everything that may be labelled, in a fixed order.
        initial: ids of those whose label the data gives from the start.
        validation: labelled cases that decide which epoch counts.
        test: labelled cases that the curve is measured on.
        budget: cases asked for in a round.
        rounds: how many times; the task network is trained once more than that.
        answered_share: of a round's cases that must have an answer before the next round begins; those that come later
            count from then on.
        wait_hours: how long to wait for answers before the run stops, to be resumed; 0 waits as long as it takes.
    """

    task: Task
    sampler: Sampler
    make_oracle: Callable[[], Oracle]
    pool: tuple[Case, ...]
    initial: tuple[str, ...]
    validation: tuple[Case, ...]
    test: tuple[Case, ...]
    budget: int
    rounds: int
    answered_share: float = 1.0
    wait_hours: float = 0.0

    def enough(self, asked: int) -> int:
        """How many of a round's cases must be answered."""
        return math.ceil(self.answered_share * asked)


@dataclass(frozen=True)
class CampaignResult:
    """What a campaign leaves.

    Attributes:
        records: its rounds.
        weights: of the last task network.
        rows: its scores by test case.
        answers: everything that was answered, in order.
        problems: what came back and could not be used.
    """

    records: Sequence[RoundRecord]
    weights: Path | None
    rows: Sequence[Row]
    answers: Sequence[Answer]
    problems: Sequence[Problem]
