"""A campaign that waits for people: over restarts and days, on a disk and in object storage, nothing counts twice."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path

import numpy as np
import pytest
from annotating import Annotator, Campaign, films, query, slices, square
from PIL import Image

from medray.active.answers import Answer, with_label
from medray.active.exchange import LocalExchange
from medray.active.oracle import Returned
from medray.active.people.human import HumanOracle
from medray.active.people.rules import LabelRules
from medray.data.modalities import ModalReader
from medray.errors import UserError
from medray.storage import Folder

MASKS = LabelRules("mask", ("lesion",))


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return Campaign(tmp_path, MASKS)


def test_a_person_is_told_what_to_open(campaign: Campaign) -> None:
    assert campaign.restarted().where == campaign.place
    assert campaign.oracle.where == f"{campaign.place}/round-000/index.html"
    assert Path(campaign.oracle.where).is_file()


def test_an_answer_trains_on_what_was_drawn(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, MASKS, slices(["a"]))
    drawn = np.zeros((16, 12), np.uint8)
    drawn[:4, :3] = 255  # the picture's upper left corner is the array's origin
    campaign.annotator.draw("a", drawn)
    (answer,) = campaign.collect().answers
    label = ModalReader(None).label(with_label(campaign.cases["a"], answer, "mask"))
    assert label.shape == (1, 12, 16)
    assert label[0, :3, :4].all()
    assert label.sum() == 12


def test_a_taken_mask_lies_where_nobody_edits_it(campaign: Campaign) -> None:
    drawn = campaign.annotator.draw("site 1/c", square())
    (answer,) = campaign.collect().answers
    kept = Path(answer.file)
    assert kept.parent == Path(campaign.place, "accepted")
    assert kept.stem.endswith(answer.digest[:8])
    campaign.take()
    drawn.unlink()
    with Image.open(kept) as pixels:
        assert np.array_equal(np.asarray(pixels), square())
    assert campaign.collect() == Returned()  # what was taken is in the pool, and is not missed here


def test_the_copy_is_there_before_the_answer(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign.annotator.draw("a", square())

    def full(*_: object) -> None:
        raise UserError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(LocalExchange, "write", full)
        with pytest.raises(UserError, match="no space left"):
            campaign.oracle.collect(campaign.asked, {})
    (answer,) = campaign.collect().answers
    assert Path(answer.file).is_file()


def test_lost_between_the_copy_and_the_pool_the_answer_comes_again(campaign: Campaign) -> None:
    campaign.annotator.draw("a", square())
    first = campaign.collect().answers
    copies = {path: path.stat().st_mtime_ns for path in Path(campaign.place, "accepted").iterdir()}
    assert campaign.restarted().collect(campaign.asked, {}).answers == first
    assert {path: path.stat().st_mtime_ns for path in Path(campaign.place, "accepted").iterdir()} == copies


def test_a_mask_that_is_drawn_again_is_told_and_the_first_stands(campaign: Campaign) -> None:
    campaign.annotator.draw("a", square())
    campaign.take()
    campaign.annotator.draw("a", square(at=5))
    returned = campaign.collect()
    assert returned.answers == ()
    (problem,) = returned.problems
    assert (problem.subject, problem.case) == ("round-000/labels/a.png", "a")
    assert problem.reason == "it does not agree with the label that was taken before, which stands"
    assert len(list(Path(campaign.place, "accepted").iterdir())) == 1
    campaign.annotator.draw("a", square())
    assert campaign.collect() == Returned((campaign.known["a"],))


def test_cannot_label_stands_too(campaign: Campaign) -> None:
    campaign.annotator.fill({"a": {"status": "cannot label"}})
    assert campaign.take() == {"a": Answer("a", "cannot_label")}
    campaign.annotator.draw("a", square())
    assert "which stands" in campaign.problem()


def test_over_restarts_partial_and_late_returns_every_label_counts_once(tmp_path: Path) -> None:
    rounds = (["film 0", "film 1"], ["film 2", "film 3"])
    campaign = Campaign(tmp_path, MASKS, films(tmp_path / "data", [*rounds[0], *rounds[1]]), rounds[0])
    for number, names in enumerate(rounds):
        if number:
            campaign.ask(names)
        Annotator(Path(campaign.place), number).draw(names[0], square(at=number))
        campaign.oracle = campaign.restarted()
        for asked in campaign.asked:
            campaign.oracle.ask(asked)
        campaign.take()
    assert set(campaign.known) == {"film 0", "film 2"}
    Annotator(Path(campaign.place), 0).fill({"film 1": {"label": "none"}}, name="late.csv")
    Annotator(Path(campaign.place), 1).fill({"film 3": {"status": "skip"}})
    campaign.take()
    assert {case: answer.status for case, answer in campaign.known.items()} == {
        "film 0": "labelled",
        "film 1": "labelled",
        "film 2": "labelled",
        "film 3": "cannot_label",
    }
    assert campaign.collect().problems == ()
    assert len(list(Path(campaign.place, "accepted").iterdir())) == 3


def test_memory_does_not_grow_while_people_are_waited_for(campaign: Campaign) -> None:
    campaign.annotator.save("labels/a.png", b"torn")
    campaign.annotator.save("done.csv", b"torn")

    def objects() -> int:
        for _ in range(20):
            campaign.oracle.collect(campaign.asked, {})
        gc.collect()
        return len(gc.get_objects())

    objects()
    assert objects() - objects() == pytest.approx(0, abs=20)  # one a look at most


def test_it_travels_to_another_process(campaign: Campaign) -> None:
    campaign.annotator.draw("a", square())
    before = campaign.collect()
    assert pickle.loads(pickle.dumps(campaign.oracle)).collect(campaign.asked, {}) == before


def test_all_of_it_in_object_storage(bucket: str, tmp_path: Path) -> None:
    cases = films(tmp_path, ["a", "b/1"])
    asked = [query(0, ["a", "b/1"])]

    def oracle() -> HumanOracle:
        return HumanOracle(f"{bucket}/run/annotation", cases, MASKS)

    oracle().ask(asked[0])
    folder = Folder(f"{bucket}/run/annotation/round-000")
    table = folder.read("worklist.csv")
    drawn = tmp_path / "drawn.png"
    Image.fromarray(square()).save(drawn)
    folder.upload(drawn, "labels/a.png")
    folder.write("labels/x.png", b"nothing")
    waiting = oracle()
    returned = waiting.collect(asked, {})
    (answer,) = returned.answers
    assert answer.file.startswith(f"{bucket}/run/annotation/accepted/a-")
    assert [problem.subject for problem in returned.problems] == ["round-000/labels/x.png"]
    assert ModalReader(None).label(with_label(cases["a"], answer, "mask")).sum() == square().sum()
    folder.write("worklist.csv", table.replace(b",-0.875,,,", b",-0.875,none,,"))
    folder.delete("labels/x.png")
    oracle().ask(asked[0])
    known = {"a": answer}
    later = waiting.collect(asked, known)
    assert later == oracle().collect(asked, known)
    assert {one.case: one.status for one in later.answers} == {"a": "labelled", "b/1": "labelled"}
    assert later.problems == ()


def test_rules_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="need the names of the classes"):
        LabelRules("class")
    with pytest.raises(ValueError, match="between 1 and 254"):
        LabelRules("mask", values=(0, 1))
