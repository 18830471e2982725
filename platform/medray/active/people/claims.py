"""What files and rows say about cases, settled: one answer per case, and a sentence on each contradiction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medray.active.answers import NO_CLASSES, Answer
from medray.active.oracle import Problem
from medray.active.people.masks import Mask


@dataclass(frozen=True)
class Claim:
    """What one file or row says about a case.

    Attributes:
        subject: the file or row.
        answer: a mask's without the place where it is kept.
        mask: of the answer, where it has one.
        is_certain: false for an empty mask, which may be a drawing that was not saved.
    """

    subject: str
    answer: Answer
    mask: Mask | None = None
    is_certain: bool = True


def settle(claims: Sequence[Claim], known: Mapping[str, Answer]) -> tuple[list[Claim], list[Problem]]:
    """The claim that stands for each case, and what contradicts it.

    Args:
        claims: in the order of the files' names.
        known: answers that were taken before; they stand.

    Returns:
        One claim per case: the first that says what is known, or the first of all. None for a case of which only
        something else is known. Problems in the order of the claims.
    """
    by_case: dict[str, list[Claim]] = {}
    for claim in claims:
        by_case.setdefault(claim.answer.case, []).append(claim)
    kept: list[Claim] = []
    problems: list[Problem] = []
    for case, group in by_case.items():
        usable, unsure = _confirmed(group, known.get(case))
        first = _first(usable, known.get(case))
        holder = first.subject if first is not None else "the label that was taken before"
        problems += unsure
        problems += [
            Problem(claim.subject, f"it does not agree with {holder}, which stands", case)
            for claim in usable
            if first is None or not claim.answer.same_as(first.answer)
        ]
        kept += [first] if first is not None else []
    return kept, problems


def _first(claims: Sequence[Claim], known: Answer | None) -> Claim | None:
    return next((claim for claim in claims if known is None or claim.answer.same_as(known)), None)


def _confirmed(group: Sequence[Claim], known: Answer | None) -> tuple[list[Claim], list[Problem]]:
    """Claims that count: empty masks only where someone says that there is nothing."""
    certain = [claim.answer for claim in group if claim.is_certain] + ([known] if known is not None else [])
    usable, problems = [], []
    for claim in group:
        if claim.is_certain or any(claim.answer.same_as(answer) for answer in certain):
            usable.append(claim)
        else:
            reason = f'it is empty; if nothing is there, write "{NO_CLASSES}" into the column label as well'
            problems.append(Problem(claim.subject, reason, claim.answer.case))
    return usable, problems
