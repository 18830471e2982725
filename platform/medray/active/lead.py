"""The rounds of a campaign: train, rank, ask, wait, and again.

The task network and the sampler of a round are trained at the same time, each by a member of a team. Whatever is
finished is kept by the members (`medray.active.members`), so this loop may be started again at any time and comes, over
what is there already, to the place where it was.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medray.active.campaign import Campaign, CampaignResult
from medray.active.exchange import open_exchange
from medray.active.members import (
    Books,
    LearnerSeat,
    Learnt,
    OracleDesk,
    PoolKeeper,
    Ranked,
    SamplerSeat,
    SamplerTrained,
)
from medray.active.oracle import Problem, Query, Returned
from medray.active.pool import PoolView
from medray.active.records import RoundRecord, histogram, pick_scores, read_record, seconds_of
from medray.active.status import read_problems, write_status
from medray.system import Team, Workbench

_POLL_S = 2.0


def run_campaign(work: Workbench, campaign: Campaign) -> CampaignResult:
    """Run all rounds, or those that are left.

    Raises:
        KeyboardInterrupt: the answers did not come within ``wait_hours``; the run can be resumed.
    """
    with work.team(_sit, _seats(campaign, pool=PoolKeeper, oracle=OracleDesk), name="campaign", hosting="books",
                   patient=True) as books:  # fmt: skip
        return _Lead(work, campaign, books).run()


def _sit(work: Workbench, make: Callable[[Workbench], Any]) -> Any:
    return make(work)


def _seats(campaign: Campaign, **kinds: Callable[[Campaign, Workbench], Any]) -> dict[str, Callable[[Workbench], Any]]:
    return {name: functools.partial(kind, campaign) for name, kind in kinds.items()}


class _Trainers:
    """The learner and the sampler, whose actors hold cores: they are there from `come`, or a call, until `leave`."""

    def __init__(self, work: Workbench, campaign: Campaign) -> None:
        self._work, self._campaign = work, campaign
        self._stack = ExitStack()
        self._team: Team | None = None

    def call(self, method: str, **arguments: tuple[Any, ...]) -> dict[str, Any]:
        """See `Team.call`."""
        return self.come().call(method, arguments)

    def come(self) -> Team:
        """Start their processes, unless they are there."""
        if self._team is None:
            seats = _seats(self._campaign, learner=LearnerSeat, sampler=SamplerSeat)
            self._team = self._stack.enter_context(
                self._work.team(_sit, seats, name="campaign", hosting="workers", patient=True)
            )
        return self._team

    def leave(self) -> None:
        """Give the cores back, for as long as people take to answer."""
        self._stack.close()
        self._team = None


class _Lead:
    def __init__(self, work: Workbench, campaign: Campaign, books: Team) -> None:
        self.work, self.campaign = work, campaign
        self._books = books
        self._trainers = _Trainers(work, campaign)
        self._exchange = open_exchange(work.place)
        self._problems = {(problem.subject, problem.reason): problem for problem in read_problems(self._exchange)}
        self._written: Any = None

    def run(self) -> CampaignResult:
        records = []
        learnt: Learnt | None = None
        try:
            self._trainers.come()  # while the pool is opened: a process takes seconds to start
            for number in range(self.campaign.rounds + 1):
                record, learnt = self._round(number)
                records.append(record)
                if not record.picks:
                    break
        finally:
            self._trainers.leave()
        assert learnt is not None
        answers = list(self._state().answers.values())
        return CampaignResult(records, learnt.weights, learnt.rows, answers, list(self._problems.values()))

    def _round(self, number: int) -> tuple[RoundRecord, Learnt]:
        began = time.time()
        view: PoolView = self._ask_pool("begin", number)
        learnt, trained, ranked = self._train(number, view)
        query, waited_s = None, 0.0
        if ranked is not None:
            if ranked.ranking.warning:
                self.work.say(f"round {number}: {ranked.ranking.warning}")
            query = self._ask_pool("query", number, ranked.ranking.picks, pick_scores(ranked.ranking, view.unlabelled))
            waited_s = self._answered(query)
        done = {"learner": learnt, "sampler": trained, "ranking": ranked}
        spans = {name: part.span for name, part in done.items() if part is not None}
        record = RoundRecord(
            number=number,
            num_labelled=len(view.answers),
            scores=learnt.scores,
            picks=query.cases if query else (),
            pick_scores=query.scores if query else (),
            num_rejected=self._state().counts["rejected"],
            sampler=ranked.ranking.metrics if ranked else {},
            seconds=seconds_of(began, time.time(), spans, waited_s),
            histogram=histogram(ranked.ranking, view.unlabelled) if ranked else None,
        )
        return self._kept(record), learnt

    def _train(self, number: int, view: PoolView) -> tuple[Learnt, SamplerTrained | None, Ranked | None]:
        """Both at the same time; then the ranking, unless this is the last round."""
        labelled = tuple(answer.case for answer in view.answers)
        sampling = number < self.campaign.rounds and bool(view.unlabelled)
        self.work.say(
            f"round {number} of {self.campaign.rounds}: {len(labelled)} labelled, {len(view.unlabelled)} unlabelled; "
            f"training {'the task network and the sampler' if sampling else 'the task network'}"
        )
        asked: dict[str, tuple[Any, ...]] = {"learner": (number, view.answers)}
        if sampling:
            asked["sampler"] = (number, labelled, view.unlabelled)
        found = self._trainers.call("train", **asked)
        learnt: Learnt = found["learner"]
        if not sampling:
            return learnt, None, None
        trained: SamplerTrained = found["sampler"]
        task_weights = learnt.weights if self.campaign.sampler.asks_learner else None
        ranking = self._trainers.call(
            "rank", sampler=(number, labelled, view.unlabelled, trained.weights, task_weights)
        )
        return learnt, trained, ranking["sampler"]

    def _answered(self, query: Query) -> float:
        """Have a query answered. Returns the seconds waited for people."""
        where = self._books.call("ask", {"oracle": (query,)})["oracle"]
        began = time.time()
        waiting = False
        left = None
        while True:
            state = self._take()
            open_cases = set(state.pending) & set(query.cases)
            if len(query.cases) - len(open_cases) >= self.campaign.enough(len(query.cases)):
                return time.time() - began if waiting else 0.0
            if len(open_cases) != left:
                left = len(open_cases)
                self.work.say(f"round {query.number}: waiting for {left} of {len(query.cases)} labels; see {where}")
            if not waiting:
                waiting = True
                self._trainers.leave()
            if self.campaign.wait_hours and time.time() - began > 3600 * self.campaign.wait_hours:
                self.work.say(f"round {query.number}: not enough labels within {self.campaign.wait_hours:g} h")
                raise KeyboardInterrupt
            time.sleep(_POLL_S)

    def _take(self) -> Books:
        """Bring what has come back to the pool, and tell what cannot be used; once."""
        state = self._state()
        returned: Returned = self._books.call("collect", {"oracle": (state.queries, state.answers)})["oracle"]
        news = [answer for answer in returned.answers if answer != state.answers.get(answer.case)]
        refused: tuple[Problem, ...] = ()
        if news:
            refused, state = self._ask_pool("take", news)
        found = {(problem.subject, problem.reason): problem for problem in (*returned.problems, *refused)}
        unheard = {key: problem for key, problem in found.items() if key not in self._problems}
        for problem in unheard.values():
            self.work.say(f"not used: {problem.subject}: {problem.reason}")
        self._problems |= unheard
        if self._written != (state.counts, len(self._problems)):
            write_status(self._exchange, state, list(self._problems.values()))
            self._written = state.counts, len(self._problems)
        return state

    def _kept(self, record: RoundRecord) -> RoundRecord:
        """The record as it was when the round was first finished."""

        def make(folder: Path) -> None:
            (folder / "round.json").write_text(json.dumps(asdict(record)))
            self._tell(record)

        folder = self.work.stage(f"round-{record.number:03d}", make)
        return read_record(json.loads((folder / "round.json").read_text()))

    def _tell(self, record: RoundRecord) -> None:
        metric = self.campaign.task.metric
        parts = {name: round(seconds, 2) for name, seconds in record.seconds.items()}
        self.work.say(
            f"round {record.number}: {metric} {record.scores[metric]:.4f} with {record.num_labelled} labels "
            f"({', '.join(f'{name} {value:g} s' for name, value in parts.items())})"
        )
        numbers = {**record.scores, **{f"sampler_{k}": v for k, v in record.sampler.items()}, **{
            f"{name}_s": value for name, value in parts.items()}}  # fmt: skip
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        self.work.log({"step": record.number, "num_labelled": record.num_labelled, **finite}, name="rounds")

    def _state(self) -> Books:
        state: Books = self._ask_pool("books")
        return state

    def _ask_pool(self, method: str, *arguments: Any) -> Any:
        return self._books.call(method, {"pool": arguments})["pool"]
