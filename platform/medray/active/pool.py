"""Which cases are labelled, asked for, unlabelled or set aside. Every change lasts before it is acknowledged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medray.active.answers import Answer, as_record, from_record
from medray.active.oracle import Problem, Query
from medray.errors import UserError
from medray.storage.ledger import Ledger

State = Literal["unlabelled", "queried", "labelled", "rejected"]


@dataclass(frozen=True)
class PoolView:
    """The pool as it was when a round began.

    Attributes:
        number: of the round.
        answers: of the labelled cases, in the order they came.
        unlabelled: cases that may be asked for, in the order of the pool.
    """

    number: int
    answers: tuple[Answer, ...]
    unlabelled: tuple[str, ...]


class Pool:
    """The books of a campaign, kept in a `Ledger`.

    Each kind of change has a name of its own in the ledger (the initial set, the beginning of a round, its query, an
    answer), so a call that is repeated, because the process was lost before it could acknowledge, changes nothing.

    Args:
        ledger: of the run.
        cases: ids of everything that may be labelled, in a fixed order.
        known: answers that the data gives before anybody is asked.

    Raises:
        UserError: the ledger is of other cases.
    """

    def __init__(self, ledger: Ledger, cases: Sequence[str], known: Sequence[Answer]) -> None:
        self._ledger = ledger
        self._cases = tuple(cases)
        self.states: dict[str, State] = dict.fromkeys(cases, "unlabelled")
        self._answers: dict[str, Answer] = {}
        self._queries: dict[int, Query] = {}
        self._views: dict[int, PoolView] = {}
        for record in ledger.records:
            self._replay(record)
        digest = hashlib.blake2b(json.dumps(self._cases).encode(), digest_size=16).hexdigest()
        if not ledger.records:
            opened = {"kind": "open", "size": len(self._cases), "cases": digest}
            self._write({**opened, "known": [as_record(answer) for answer in known]})
        elif ledger.records[0]["cases"] != digest:
            size, here = ledger.records[0]["size"], len(self._cases)
            raise UserError(f"{ledger.place} is of {size} other cases than these {here}, or in another order")

    @property
    def answers(self) -> Mapping[str, Answer]:
        """What is known, by case, in the order it came."""
        return self._answers

    @property
    def queries(self) -> tuple[Query, ...]:
        """All so far, by round."""
        return tuple(self._queries[number] for number in sorted(self._queries))

    def pending(self) -> tuple[str, ...]:
        """Cases that were asked for and have no answer."""
        return tuple(name for query in self.queries for name in query.cases if self.states[name] == "queried")

    def counts(self) -> dict[State, int]:
        """Cases by state."""
        found: dict[State, int] = {"labelled": 0, "queried": 0, "unlabelled": 0, "rejected": 0}
        for state in self.states.values():
            found[state] += 1
        return found

    def begin(self, number: int) -> PoolView:
        """The pool at the beginning of a round; the same at every call, whatever has come in since."""
        if number not in self._views:
            self._write({"kind": "begin", "round": number})
        return self._views[number]

    def query(self, number: int, cases: Sequence[str], scores: Sequence[float]) -> Query:
        """Ask for cases, once per round: a later call returns what was asked then.

        Raises:
            ValueError: a case is not unlabelled.
        """
        if number not in self._queries:
            for name in cases:
                if self.states.get(name) != "unlabelled":
                    raise ValueError(
                        f"case {name!r} cannot be asked for: it is {self.states.get(name, 'not in the pool')}"
                    )
            if len(set(cases)) != len(cases):
                raise ValueError("a case can be asked for once")
            self._write({"kind": "query", "round": number, "cases": list(cases), "scores": list(map(float, scores))})
        return self._queries[number]

    def take(self, answers: Iterable[Answer]) -> tuple[tuple[Answer, ...], tuple[Problem, ...]]:
        """Take answers in. The first one to a case counts, and each counts once.

        Returns:
            the answers that were new, and what was refused: cases that nobody asked for, and answers that differ from
            the one that was taken.
        """
        taken: list[Answer] = []
        refused: list[Problem] = []
        first: dict[str, Answer] = {}
        for answer in answers:
            before = self._answers.get(answer.case) or first.get(answer.case)
            if before is not None:
                if not before.same_as(answer):
                    reason = f"case {answer.case} has an answer already, and this one differs; the first one stands"
                    refused.append(Problem(answer.case, reason, answer.case))
            elif self.states.get(answer.case) != "queried":
                refused.append(Problem(answer.case, f"case {answer.case} was not asked for", answer.case))
            else:
                first[answer.case] = answer
                taken.append(answer)
        if taken:
            self._write({"kind": "answers", "answers": [as_record(answer) for answer in taken]})
        return tuple(taken), tuple(refused)

    def _write(self, record: Mapping[str, Any]) -> None:
        self._ledger.append(record)
        self._replay(self._ledger.records[-1])

    def _replay(self, record: Mapping[str, Any]) -> None:
        kind = record["kind"]
        if kind == "open":
            self._settle(map(from_record, record["known"]))
        elif kind == "begin":
            number = int(record["round"])
            labelled = tuple(answer for answer in self._answers.values() if answer.status == "labelled")
            free = tuple(name for name in self._cases if self.states[name] == "unlabelled")
            self._views[number] = PoolView(number, labelled, free)
        elif kind == "query":
            query = Query(int(record["round"]), tuple(record["cases"]), tuple(record["scores"]))
            self._queries[query.number] = query
            self.states.update(dict.fromkeys(query.cases, "queried"))
        elif kind == "answers":
            self._settle(map(from_record, record["answers"]))

    def _settle(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            self._answers[answer.case] = answer
            self.states[answer.case] = "labelled" if answer.status == "labelled" else "rejected"
