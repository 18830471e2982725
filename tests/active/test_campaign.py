"""The rounds of a campaign, in this process: what is asked, what is trained on, and stops at any place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from toy_campaigns import CriticSampler, UncertainSampler, points, simulated, toy_campaign

from medray.active.answers import Answer
from medray.active.campaign import Campaign, CampaignResult
from medray.active.lead import run_campaign
from medray.active.oracle import Oracle, Problem, Query, Returned
from medray.engine.options import LoopOptions
from medray.engine.rundir import read_json_lines
from medray.engine.workbench import InProcessWorkbench
from medray.storage.ledger import Ledger


def run(folder: Path, campaign: Campaign, seed: int = 0) -> CampaignResult:
    return run_campaign(InProcessWorkbench(folder, LoopOptions(seed=seed), quiet=True, tensorboard=False), campaign)


def course(result: CampaignResult) -> list[Any]:
    """What must not depend on how often a campaign was stopped."""
    return [(r.number, r.num_labelled, r.picks, r.pick_scores, r.scores, r.histogram) for r in result.records]


def test_labels_grow_by_the_budget(tmp_path: Path) -> None:
    result = run(tmp_path, toy_campaign())
    assert [record.num_labelled for record in result.records] == [6, 11, 16, 21]
    assert [len(record.picks) for record in result.records] == [5, 5, 5, 0]
    picked = [name for record in result.records for name in record.picks]
    assert len(set(picked)) == 15
    assert {answer.case for answer in result.answers} == {*picked, *(f"case{i:03d}" for i in range(6))}
    assert result.weights is not None
    assert len(result.rows) == 40


def test_the_picks_have_the_smallest_scores(tmp_path: Path) -> None:
    record = run(tmp_path, toy_campaign()).records[0]
    assert list(record.pick_scores) == sorted(record.pick_scores)
    assert record.histogram is not None
    assert record.histogram.cut == record.pick_scores[-1]
    assert sum(record.histogram.unlabelled) == 54
    assert sum(record.histogram.labelled) == 6


def test_a_sampler_may_ask_the_task_network(tmp_path: Path) -> None:
    result = run(tmp_path, toy_campaign(sampler=UncertainSampler()))
    assert [record.num_labelled for record in result.records] == [6, 11, 16, 21]


def test_a_pool_that_runs_out_ends_the_campaign(tmp_path: Path) -> None:
    result = run(tmp_path, toy_campaign(budget=40, rounds=5))
    assert [record.num_labelled for record in result.records] == [6, 46, 60]


def test_what_nobody_can_label_is_set_aside(tmp_path: Path) -> None:
    pool = points(60)
    first = run(tmp_path / "first", toy_campaign()).records[0].picks
    result = run(tmp_path / "second", toy_campaign(make_oracle=partial(simulated, pool, first[:2])))
    assert [record.num_labelled for record in result.records] == [6, 9, 14, 19]
    assert result.records[1].num_rejected == 2
    assert not set(first[:2]) & {name for record in result.records[1:] for name in record.picks}


def test_rounds_are_logged_for_the_curves(tmp_path: Path) -> None:
    run(tmp_path, toy_campaign())
    records = [record for record in read_json_lines(tmp_path / "metrics.jsonl") if record["name"] == "rounds"]
    assert [record["num_labelled"] for record in records] == [6, 11, 16, 21]
    assert all(record["orchestration_s"] >= 0 for record in records)


def test_a_finished_campaign_is_read_back(tmp_path: Path) -> None:
    first = run(tmp_path, toy_campaign())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "campaign").rglob("*") if path.is_file()}
    again = run(tmp_path, toy_campaign())
    assert course(again) == course(first)
    assert [r.seconds for r in again.records] == [r.seconds for r in first.records]
    assert {p: p.stat().st_mtime_ns for p in before if p.exists()} == before


class Stop(Exception):
    """Somebody pulled the plug."""


class Unplugged(InProcessWorkbench):
    """Stops when so many things have been begun."""

    left = 0

    def stage(self, name: str, make: Any) -> Path:
        self._count()
        return super().stage(name, make)

    def fit(self, make_learner: Any, *, name: str = "train") -> Any:
        self._count()
        return super().fit(make_learner, name=name)

    def nested(self, name: str) -> Unplugged:
        return type(self)(self.out / name, self.options, quiet=True, tensorboard=False)

    @classmethod
    def _count(cls) -> None:
        cls.left -= 1
        if cls.left == 0:
            raise Stop


def test_stopped_anywhere_it_asks_for_the_same(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", toy_campaign())
    stops = 0
    for left in range(1, 40):
        Unplugged.left = left
        work = Unplugged(tmp_path / "parts", quiet=True, tensorboard=False)
        try:
            result = run_campaign(work, toy_campaign())
        except Stop:
            stops += 1
            continue
        break
    assert stops >= 10
    assert course(result) == course(whole)


class Lossy(InProcessWorkbench):
    """Each member is lost after it has carried out a call and before it could say so; then the call is repeated."""

    @contextmanager
    def team(
        self, make_member: Any, items: Mapping[str, Any], *, name: str, hosting: Any = "", patient: bool = False
    ) -> Iterator[Any]:
        makes = {key: partial(make_member, self.nested(f"{name}/{key}"), item) for key, item in items.items()}
        yield LossyTeam(makes, tries=2 if patient else 0)


@dataclass
class LossyTeam:
    makes: Mapping[str, Any]
    tries: int

    def call(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: getattr(self.makes[name](), method)(*given)
            for _ in range(self.tries)
            for name, given in arguments.items()
        }


def test_every_call_may_be_lost_after_it_was_carried_out(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", toy_campaign())
    lossy = run_campaign(Lossy(tmp_path / "lossy", quiet=True, tensorboard=False), toy_campaign())
    assert course(lossy) == course(whole)
    assert lossy.answers == whole.answers
    kinds = [record["kind"] for record in Ledger(str(tmp_path / "lossy/campaign/pool/ledger")).records]
    assert kinds == ["open", *["begin", "query", "answers"] * 3, "begin"]


class Slow(Oracle):
    """A person who answers one more case at each look, some of them badly."""

    where = "the desk"

    def __init__(self, book: Path) -> None:
        self._cases = {case.id: case for case in points(60)}
        self._book = book

    def ask(self, query: Query) -> None:
        pass

    def collect(self, asked: Any, known: Any) -> Returned:
        looks = int(self._book.read_text()) if self._book.exists() else 0
        self._book.write_text(str(looks + 1))
        names = [name for query in asked for name in query.cases][:looks]
        answers = [Answer(name, "labelled", value=self._cases[name].attributes["class"]) for name in names]
        return Returned((*answers, *answers, Answer("case059x", "labelled", "above")), (Problem("a.png", "is torn"),))


def test_a_round_waits_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medray.active.lead._POLL_S", 0.0)
    result = run(tmp_path, toy_campaign(make_oracle=partial(Slow, tmp_path / "looks"), rounds=2))
    assert [record.num_labelled for record in result.records] == [6, 11, 16]
    assert [(p.subject, p.reason) for p in result.problems] == [
        ("a.png", "is torn"),
        ("case059x", "case case059x was not asked for"),
    ]
    assert "is torn" in (tmp_path / "problems.csv").read_text()
    assert len((tmp_path / "pool.csv").read_text().splitlines()) == 17


def test_part_of_the_answers_may_be_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medray.active.lead._POLL_S", 0.0)
    result = run(tmp_path, toy_campaign(make_oracle=partial(Slow, tmp_path / "looks"), rounds=2, answered_share=0.6))
    assert [record.num_labelled for record in result.records][:2] == [6, 9]
    assert result.records[2].num_labelled > 9


def test_waiting_ends_with_the_patience_and_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medray.active.lead._POLL_S", 0.01)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, toy_campaign(make_oracle=Never, rounds=1, wait_hours=1e-5))
    result = run(tmp_path, toy_campaign(rounds=1))
    assert course(result) == course(run(tmp_path / "whole", toy_campaign(rounds=1)))


class Never(Oracle):
    def ask(self, query: Query) -> None:
        pass

    def collect(self, asked: Any, known: Any) -> Returned:
        return Returned()


def test_seeds_differ(tmp_path: Path) -> None:
    one, two = (run(tmp_path / str(seed), toy_campaign(sampler=CriticSampler(epochs=2)), seed) for seed in (0, 1))
    assert json.dumps(course(one)[0][3]) != json.dumps(course(two)[0][3])
