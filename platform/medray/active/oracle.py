"""Who answers a query: the labels that the data holds back, or people (`medray.active.people.human`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from medray.active.answers import NO_CLASSES, SEPARATOR, Answer, LabelKind, class_list
from medray.data.case import Case


@dataclass(frozen=True)
class Query:
    """Cases that were chosen in a round.

    Attributes:
        number: of the round.
        cases: ids, the most wanted first.
        scores: what the sampler said of each, smaller is more wanted; empty where it says nothing.
    """

    number: int
    cases: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Problem:
    """Something that came back and cannot be used.

    Attributes:
        subject: file or row, as a person would look for it.
        reason: one sentence: what is wrong, and what was expected.
        case: id, where it is known.
    """

    subject: str
    reason: str
    case: str = ""


@dataclass(frozen=True)
class Returned:
    """What has come back by now: answers, the same ones again at every call, and what cannot be used."""

    answers: tuple[Answer, ...] = ()
    problems: tuple[Problem, ...] = ()


class Oracle(ABC):
    """Turns a query into labels. Its process may be lost at any time: it keeps nothing in memory alone.

    Attributes:
        where: what a person who waits for it should look at; empty where nobody has to.
    """

    where: str = ""

    @abstractmethod
    def ask(self, query: Query) -> None:
        """Put a query to whoever answers. The same query may be put again; that changes nothing."""

    @abstractmethod
    def collect(self, asked: Sequence[Query], known: Mapping[str, Answer]) -> Returned:
        """What has come back so far, at once.

        Args:
            asked: every query so far.
            known: answers that are in the pool already, by case.
        """


class SimulatedOracle(Oracle):
    """Answers at once with the label that the data holds.

    Args:
        cases: with their labels, by id.
        kind: what is labelled.
        unlabellable: ids of cases it says it cannot label, to see how a campaign takes that.
    """

    def __init__(self, cases: Mapping[str, Case], kind: LabelKind, unlabellable: Collection[str] = ()) -> None:
        self._cases, self._kind, self._unlabellable = cases, kind, frozenset(unlabellable)

    def ask(self, query: Query) -> None:
        """See `Oracle.ask`: nobody has to be told."""

    def collect(self, asked: Sequence[Query], known: Mapping[str, Answer]) -> Returned:
        """See `Oracle.collect`."""
        wanted = [name for query in asked for name in query.cases if name not in known]
        return Returned(tuple(self._answer(name) for name in wanted))

    def _answer(self, name: str) -> Answer:
        if name in self._unlabellable:
            return Answer(name, "cannot_label")
        return held_back(self._cases[name], self._kind)


def held_back(case: Case, kind: LabelKind) -> Answer:
    """The answer that the data itself gives."""
    if kind == "mask":
        return Answer(case.id, "labelled")
    text = case.attributes.get(kind, "")
    value = text if kind == "class" else SEPARATOR.join(class_list(text)) or NO_CLASSES
    return Answer(case.id, "labelled", value=value)
