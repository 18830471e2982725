"""The books of a campaign: nothing lost, nothing counted twice, whoever asks again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_campaigns import toy_campaign

from medray.active.answers import Answer
from medray.active.members import PoolKeeper
from medray.active.pool import Pool
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.storage import ledger
from medray.storage.ledger import Ledger

CASES = [f"c{number}" for number in range(8)]


def label(case: str, value: str = "x") -> Answer:
    return Answer(case, "labelled", value=value)


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


def opened(place: str) -> Pool:
    return Pool(Ledger(place), CASES, [label("c0"), label("c1")])


def test_a_round_by_hand(place: str) -> None:
    pool = opened(place)
    assert pool.begin(0).unlabelled == tuple(CASES[2:])
    pool.query(0, ["c5", "c3"], [-1.0, 2.0])
    assert pool.pending() == ("c5", "c3")
    taken, refused = pool.take([label("c3"), Answer("c5", "cannot_label", note="blurred")])
    assert len(taken) == 2
    assert not refused
    assert pool.counts() == {"labelled": 3, "queried": 0, "unlabelled": 4, "rejected": 1}
    view = pool.begin(1)
    assert [answer.case for answer in view.answers] == ["c0", "c1", "c3"]
    assert view.unlabelled == ("c2", "c4", "c6", "c7")


def test_another_process_sees_the_same(place: str) -> None:
    first = opened(place)
    first.begin(0)
    first.query(0, ["c5"], [])
    first.take([label("c5", "y")])
    second = opened(place)
    assert (second.states, second.answers, second.queries) == (first.states, first.answers, first.queries)


def test_calls_that_are_repeated_change_nothing(place: str) -> None:
    pool = opened(place)
    view, query = pool.begin(0), pool.query(0, ["c2", "c3"], [0.0, 1.0])
    pool.take([label("c2")])
    written = len(Ledger(place).records)
    for again in (pool, opened(place)):
        assert again.begin(0) == view
        assert again.query(0, ["c6", "c7"], [0.0, 0.0]) == query
        assert again.take([label("c2")]) == ((), ())
    assert len(Ledger(place).records) == written


def test_a_round_sees_what_was_labelled_when_it_began(place: str) -> None:
    pool = opened(place)
    pool.begin(0)
    pool.query(0, ["c2", "c3"], [])
    pool.take([label("c2")])
    view = pool.begin(1)
    pool.take([label("c3")])  # came late
    assert opened(place).begin(1) == view
    assert [answer.case for answer in pool.begin(2).answers] == ["c0", "c1", "c2", "c3"]


def test_answers_that_cannot_be_taken_are_told(place: str) -> None:
    pool = opened(place)
    pool.query(0, ["c2"], [])
    taken, refused = pool.take([label("c2"), label("c2", "other"), label("c7"), label("unknown")])
    assert [answer.case for answer in taken] == ["c2"]
    assert [problem.case for problem in refused] == ["c2", "c7", "unknown"]
    assert "differs" in refused[0].reason
    assert "not asked for" in refused[1].reason
    assert pool.answers["c2"].value == "x"


def test_what_could_not_be_written_did_not_happen(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = opened(place)
    pool.query(0, ["c2"], [])

    def full(*_: object) -> bool:
        raise UserError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_create", full)
        for change in (lambda: pool.take([label("c2")]), lambda: pool.query(1, ["c3"], []), lambda: pool.begin(1)):
            with pytest.raises(UserError, match="no space left"):
                change()
    assert (pool.counts(), pool.pending(), len(pool.queries)) == (opened(place).counts(), ("c2",), 1)
    pool.take([label("c2")])
    assert [answer.case for answer in pool.begin(1).answers] == ["c0", "c1", "c2"]


def test_a_case_is_asked_for_once(place: str) -> None:
    pool = opened(place)
    pool.query(0, ["c2"], [])
    for cases in (["c2"], ["c0"], ["nobody"], ["c3", "c3"]):
        with pytest.raises(ValueError, match=r"cannot be asked for|once"):
            pool.query(1, cases, [])


def test_a_ledger_of_other_cases_is_refused(place: str) -> None:
    opened(place)
    for other in (CASES[:3], [*CASES[:7], "another"], CASES[::-1]):
        with pytest.raises(UserError, match=f"of 8 other cases than these {len(other)}"):
            Pool(Ledger(place), other, [])


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_case_is_lost_or_counted_twice(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = str(tmp_path_factory.mktemp("pool"))
    pool = opened(place)
    for number in range(3):
        view = pool.begin(number)
        asked = (
            data.draw(st.lists(st.sampled_from(view.unlabelled), unique=True, max_size=3)) if view.unlabelled else []
        )
        pool.query(number, asked, [])
        names = data.draw(st.lists(st.sampled_from(CASES), max_size=6))
        pool.take([label(name, data.draw(st.sampled_from("xy"))) for name in names])
        if data.draw(st.booleans()):
            pool = opened(place)
        counts = pool.counts()
        assert sum(counts.values()) == len(CASES)
        assert counts["labelled"] + counts["rejected"] == len(pool.answers)
        asked_ever = {name for query in pool.queries for name in query.cases}
        assert set(pool.answers) - {"c0", "c1"} <= asked_ever


def books(place: Path) -> PoolKeeper:
    return PoolKeeper(toy_campaign(), InProcessWorkbench(place, quiet=True, tensorboard=False))


def test_a_keeper_whose_predecessor_still_wrote_reads_again(tmp_path: Path) -> None:
    """The call that was lost with its process may be carried out all the same, after the new process has read."""
    lost, keeper = books(tmp_path), books(tmp_path)
    view = lost.begin(0)
    asked = lost.query(0, view.unlabelled[:2], [])
    assert keeper.begin(0) == view
    assert keeper.query(0, view.unlabelled[:2], []) == asked
    answer = Answer(asked.cases[0], "labelled", value="above")
    lost.take([answer])
    refused, now = keeper.take([answer])
    assert refused == ()
    assert now == keeper.books() == books(tmp_path).books()
    assert now.counts["labelled"] == 7


def test_two_keepers_may_open_the_books_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create, others = ledger._create, [1]

    def late(path: Path, data: bytes) -> bool:
        if others:
            others.pop()
            create(path, data)  # by the other one, between our reading and our writing
        return create(path, data)

    monkeypatch.setattr(ledger, "_create", late)
    assert books(tmp_path).books().counts["labelled"] == 6
