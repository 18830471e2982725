"""The four that carry a campaign. Each lives in an actor of its own where there is Ray, and may be lost at any time.

None of them keeps anything in memory that is not on the run's storage as well, and each call can be repeated: what was
finished is read back, what was interrupted goes on where it was. So a lost process costs time and nothing else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from medray.active.answers import Answer, with_label, without_label
from medray.active.campaign import Campaign
from medray.active.oracle import Problem, Query, Returned, held_back
from medray.active.pool import Pool, PoolView, State
from medray.active.records import Span
from medray.active.sampler import Ranking, SamplingRound
from medray.data.case import Case
from medray.storage.ledger import Ledger, LedgerTaken
from medray.system import Row, Workbench

T = TypeVar("T")
LEDGER = "ledger"


@dataclass(frozen=True)
class Books:
    """Where the pool stands."""

    counts: Mapping[State, int]
    pending: tuple[str, ...]
    queries: tuple[Query, ...]
    answers: Mapping[str, Answer]


@dataclass(frozen=True)
class Learnt:
    """What the learner leaves of a round."""

    weights: Path | None
    scores: Mapping[str, float]
    rows: Sequence[Row]
    span: Span


@dataclass(frozen=True)
class SamplerTrained:
    """What the sampler's training leaves of a round."""

    weights: Path | None
    span: Span


@dataclass(frozen=True)
class Ranked:
    """A ranking and when it was made."""

    ranking: Ranking
    span: Span


class PoolKeeper:
    """The pool, behind one door. Another process of it may still be writing when this one was made: it reads again."""

    def __init__(self, campaign: Campaign, work: Workbench) -> None:
        self._campaign, self._place = campaign, f"{work.place}/{LEDGER}"
        self._pool = self._open()

    def begin(self, number: int) -> PoolView:
        """See `Pool.begin`."""
        return self._do(lambda pool: pool.begin(number))

    def query(self, number: int, cases: Sequence[str], scores: Sequence[float]) -> Query:
        """See `Pool.query`."""
        return self._do(lambda pool: pool.query(number, cases, scores))

    def take(self, answers: Sequence[Answer]) -> tuple[tuple[Problem, ...], Books]:
        """See `Pool.take`; returns what was refused, and where the pool stands then."""
        _, refused = self._do(lambda pool: pool.take(answers))
        return refused, self.books()

    def books(self) -> Books:
        """Where the pool stands."""
        pool = self._pool
        return Books(pool.counts(), pool.pending(), pool.queries, dict(pool.answers))

    def _open(self) -> Pool:
        campaign = self._campaign
        by_id = {case.id: case for case in campaign.pool}
        known = [held_back(by_id[name], campaign.task.kind) for name in campaign.initial]
        try:
            return Pool(Ledger(self._place), list(by_id), known)
        except LedgerTaken:  # opened by another process a moment ago
            return Pool(Ledger(self._place), list(by_id), known)

    def _do(self, change: Callable[[Pool], T]) -> T:
        try:
            return change(self._pool)
        except LedgerTaken:
            self._pool = self._open()
            return change(self._pool)


class OracleDesk:
    """The oracle: see `medray.active.oracle.Oracle`."""

    def __init__(self, campaign: Campaign, _: Workbench) -> None:
        self._oracle = campaign.make_oracle()

    def ask(self, query: Query) -> str:
        """Put a query; returns where a person should look, if one has to."""
        self._oracle.ask(query)
        return self._oracle.where

    def collect(self, asked: Sequence[Query], known: Mapping[str, Answer]) -> Returned:
        """What has come back by now."""
        return self._oracle.collect(asked, known)


class LearnerSeat:
    """Trains the task network from scratch each round and scores it."""

    def __init__(self, campaign: Campaign, work: Workbench) -> None:
        self._campaign, self._work = campaign, work
        self._cases = {case.id: case for case in campaign.pool}

    def train(self, number: int, answers: Sequence[Answer]) -> Learnt:
        """Train on what is labelled."""
        folder = self._work.stage(f"learner-{number:03d}", lambda out: self._train(number, answers, out))
        if number:
            self._work.forget(_loop("learner", number - 1))  # its ranking is over
        kept = json.loads((folder / "learnt.json").read_text())
        return Learnt(_path(kept["weights"]), kept["scores"], kept["rows"], Span(*kept["span"]))

    def _train(self, number: int, answers: Sequence[Answer], out: Path) -> None:
        campaign, began = self._campaign, time.time()
        cases = [with_label(self._cases[answer.case], answer, campaign.task.kind) for answer in answers]
        fit = campaign.task.train(self._work, cases, campaign.validation, name=_loop("learner", number))
        found = campaign.task.score(self._work, fit.weights, campaign.test)
        kept = {"weights": _text(fit.weights), "scores": dict(found.summary), "rows": list(found.rows)}
        (out / "learnt.json").write_text(json.dumps({**kept, "span": (began, time.time())}))


class SamplerSeat:
    """Trains the sampler each round, beside the learner, and ranks what is unlabelled."""

    def __init__(self, campaign: Campaign, work: Workbench) -> None:
        self._campaign, self._work = campaign, work
        self._cases = {case.id: without_label(case) for case in campaign.pool}

    def train(self, number: int, labelled: Sequence[str], unlabelled: Sequence[str]) -> SamplerTrained:
        """Train on all images; nothing, for samplers that do not learn."""

        def make(out: Path) -> None:
            began = time.time()
            fit = self._campaign.sampler.train(self._work, self._view(number, labelled, unlabelled))
            weights = _text(fit.weights if fit else None)
            (out / "trained.json").write_text(json.dumps({"weights": weights, "span": (began, time.time())}))

        folder = self._work.stage(f"sampler-{number:03d}", make)
        kept = json.loads((folder / "trained.json").read_text())
        return SamplerTrained(_path(kept["weights"]), Span(*kept["span"]))

    def rank(
        self,
        number: int,
        labelled: Sequence[str],
        unlabelled: Sequence[str],
        weights: Path | None,
        task_weights: Path | None,
    ) -> Ranked:
        """Say what to ask for; see `medray.active.sampler.Sampler.rank`."""

        def make(out: Path) -> None:
            began, campaign = time.time(), self._campaign
            view = self._view(number, labelled, unlabelled)
            found = campaign.sampler.rank(
                self._work, view, weights=weights, task=campaign.task, task_weights=task_weights
            )
            _write(found, Span(began, time.time()), out)

        folder = self._work.stage(f"ranking-{number:03d}", make)
        self._work.forget(_loop("sampler", number))
        return _read(folder)

    def _view(self, number: int, labelled: Sequence[str], unlabelled: Sequence[str]) -> SamplingRound:
        budget = self._campaign.budget
        return SamplingRound(number, self._named(labelled), self._named(unlabelled), budget)

    def _named(self, names: Sequence[str]) -> tuple[Case, ...]:
        return tuple(self._cases[name] for name in names)


def _loop(who: str, number: int) -> str:
    return f"{who}-{number:03d}"


def _write(ranking: Ranking, span: Span, folder: Path) -> None:
    told = {"picks": ranking.picks, "metrics": dict(ranking.metrics), "warning": ranking.warning}
    (folder / "ranking.json").write_text(json.dumps({**told, "span": (span.began, span.ended)}))
    scores = {"scores": ranking.scores, "labelled_scores": ranking.labelled_scores}
    kept = {name: array for name, array in scores.items() if array is not None}
    np.savez(folder / "scores.npz", allow_pickle=False, **kept)  # type: ignore[arg-type]


def _read(folder: Path) -> Ranked:
    kept = json.loads((folder / "ranking.json").read_text())
    with np.load(folder / "scores.npz") as scores:
        arrays = {name: scores[name] for name in scores.files}
    ranking = Ranking(
        tuple(kept["picks"]), arrays.get("scores"), arrays.get("labelled_scores"), kept["metrics"], kept["warning"]
    )
    return Ranked(ranking, Span(*kept["span"]))


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _text(path: Path | None) -> str:
    return str(path) if path else ""
