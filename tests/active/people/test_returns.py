"""Tables that annotators put back, played through files: what is right is taken, each mistake is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotating import Campaign, films

from medray.active.answers import Answer
from medray.active.oracle import Returned
from medray.active.people.rules import LabelRules

GRADES = LabelRules("class", ("normal", "covid", "other pneumonia"))
PARTS = LabelRules("classes", ("ET", "ED", "NCR"))


@pytest.fixture
def grades(tmp_path: Path) -> Campaign:
    return Campaign(tmp_path, GRADES)


@pytest.fixture
def parts(tmp_path: Path) -> Campaign:
    return Campaign(tmp_path, PARTS)


def test_nothing_came_back_yet(grades: Campaign) -> None:
    assert grades.collect() == Returned()


def test_a_filled_table_is_taken_in_part(grades: Campaign) -> None:
    grades.annotator.fill({"a": {"label": "covid", "note": "left lung"}})
    assert grades.collect().answers == (Answer("a", "labelled", value="covid", note="left lung"),)
    grades.annotator.fill({"a": {"label": "covid"}, "site 1/c": {"label": " Other Pneumonia "}})
    assert grades.labels() == {"a": "covid", "site 1/c": "other pneumonia"}
    assert grades.collect().problems == ()


EXCEL = '﻿NOTE;Label;extra;Case\r\n;COVID;1;a\r\n\r\n"semi;colon\r\nand a line";normal;2;site 1/c\r\n'


@pytest.mark.parametrize(
    "data",
    [
        EXCEL.encode(),
        EXCEL.encode("utf-16-le"),
        ("sep=;\r\n" + EXCEL[1:]).encode("cp1252"),
        EXCEL.replace('"semi;colon\r\nand a line"', "").replace(";", "\t").encode(),
        EXCEL.replace('"semi;colon\r\nand a line"', "").replace(";", ",").replace("\r\n", "\n").encode(),
    ],
    ids=["semicolons", "utf-16", "sep", "tabs", "commas"],
)
def test_tables_that_other_programs_saved_say_the_same(grades: Campaign, data: bytes) -> None:
    grades.annotator.save("Worklist ANNA.CSV", data)
    assert grades.labels() == {"a": "covid", "site 1/c": "normal"}
    assert grades.collect().problems == ()


def test_a_spreadsheet_may_drop_the_zeros_of_a_number(tmp_path: Path) -> None:
    numbered = Campaign(tmp_path, GRADES, films(tmp_path / "data", ["007", "012", "0012"]))
    numbered.annotator.save("done.csv", b"case,label\n7,covid\n")
    assert numbered.labels() == {"007": "covid"}
    numbered.annotator.save("done.csv", b"case,label\n12,covid\n")  # two cases may be meant
    assert "no case that was asked for is called '12'" in numbered.problem()


def test_ids_that_look_like_formulas_are_no_formulas_and_come_back(tmp_path: Path) -> None:
    names = ['=HYPERLINK("//x")', "-1", "'=1", "@a/b", "+2"]
    spiked = Campaign(tmp_path, GRADES, films(tmp_path / "data", names))
    rows = spiked.annotator.rows()
    assert not [text for row in rows for name, text in row.items() if text[:1] in "=+-@" and text and name != "score"]
    spiked.annotator.fill({row["case"]: {"label": "covid", "note": "'- left"} for row in rows})
    assert spiked.labels() == dict.fromkeys(names, "covid")
    assert {answer.note for answer in spiked.collect().answers} == {"- left"}


def test_umlauts_in_an_old_encoding_do_no_harm(grades: Campaign) -> None:
    grades.annotator.save("done.csv", "case;label;note\na;covid;Lungenentzündung\n".encode("cp1252"))
    (answer,) = grades.collect().answers
    assert answer.note == "Lungenentzündung"


def test_several_classes_are_put_in_one_order(parts: Campaign) -> None:
    said = {"a": "ed; et", "b": "NONE", "site 1/c": "NCR, ED,ncr"}
    parts.annotator.fill({case: {"label": label} for case, label in said.items()})
    assert parts.labels() == {"a": "ET;ED", "b": "none", "site 1/c": "ED;NCR"}


@pytest.mark.parametrize("word", ["cannot label", "cannot_label", "Cannot  Label", "SKIP"])
def test_cannot_label(grades: Campaign, word: str) -> None:
    grades.annotator.fill({"b": {"status": word, "note": "rotated"}})
    assert grades.collect().answers == (Answer("b", "cannot_label", note="rotated"),)


ROW = "round-000/worklist.csv, row 2: "


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"label": "covd"}, "'covd' is no class (did you mean 'covid'?); expected normal or covid or other pneumonia"),
        ({"label": "7"}, "'7' is no class; expected normal or covid or other pneumonia"),
        ({"label": "covid;normal"}, "'covid;normal' is no class"),
        ({"label": "covid", "status": "skip"}, "it has the label 'covid' and the status 'skip'; leave one of them"),
        ({"status": "later"}, "the status 'later' is not known; leave it empty or write 'cannot label'"),
        ({"case": "A", "label": "covid"}, "no case that was asked for is called 'A' (did you mean 'a'?)"),
        ({"case": "never asked", "label": "covid"}, "case 'never asked' was not asked for"),
    ],
)
def test_mistakes_in_a_row_cost_that_row(grades: Campaign, said: dict[str, str], sentence: str) -> None:
    grades.annotator.fill({"a": said, "b": {"label": "normal"}})
    assert grades.problem().startswith(ROW + sentence)
    assert grades.labels() == {"b": "normal"}


def test_several_classes_and_none_at_once_are_no_answer(parts: Campaign) -> None:
    parts.annotator.fill({"a": {"label": "ET;none"}})
    assert "'none' is no class" in parts.problem()


def test_the_same_row_twice_counts_once_and_another_one_is_told(grades: Campaign) -> None:
    grades.annotator.save("1.csv", b"case,label\na,covid\nb,normal\n")
    grades.annotator.save("2.csv", b"case,label\na,covid\nb,covid\n")
    assert grades.problem() == ("round-000/2.csv, row 3: it does not agree with round-000/1.csv, row 3, which stands")
    assert grades.labels() == {"a": "covid", "b": "normal"}


def test_what_was_taken_stands_whatever_comes_later(grades: Campaign) -> None:
    grades.annotator.save("2.csv", b"case,label\na,covid\n")
    before = dict(grades.take())
    grades.annotator.save("1.csv", b"case,label\na,normal\n")  # comes first by name
    assert grades.take() == before
    assert grades.problem().startswith("round-000/1.csv, row 2: it does not agree with round-000/2.csv, row 2")
    (grades.annotator.round / "2.csv").unlink()
    assert grades.collect().answers == ()
    assert "does not agree with the label that was taken before" in grades.problem()


def test_a_contradiction_is_told_in_the_same_words_before_and_after_the_first_was_taken(grades: Campaign) -> None:
    grades.annotator.save("1.csv", b"case,label\na,covid\na,normal\n")
    before = grades.collect()
    grades.take()
    assert grades.collect() == before


def test_a_table_in_the_middle_of_being_copied_gives_no_half_labels(parts: Campaign) -> None:
    whole = b'case,label\na,NCR\nb,"ET;ED"\n'
    seen = {}
    for length in range(len(whole) + 1):
        parts.annotator.save("done.csv", whole[:length])
        seen[length] = parts.labels()
    assert seen.pop(len(whole)) == {"a": "NCR", "b": "ET;ED"}
    assert all(labels in ({}, {"a": "NCR"}) for labels in seen.values())


def test_a_last_row_without_a_line_break_is_taken_where_it_is_whole(grades: Campaign) -> None:
    grades.annotator.save("sheet.csv", b"case,label,note\na,covid,")
    assert grades.labels() == {"a": "covid"}
    grades.annotator.save("sheet.csv", b"case,note,label\na,,covid")
    assert "ends in the middle of it" in grades.problem()


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("x.csv", b"patient,label\n1,covid\n", 'it has no column "case" in its first line'),
        ("x.csv", b"case,diagnosis,status\na,covid,\n", "it has no column 'label'"),
        ("x.csv", b"", 'it has no column "case" in its first line'),
        ("x.csv", b'case,label\na,"covid\n', "it is damaged near line"),
        ("x.csv", bytes(500), "it is no text, or damaged"),
        ("x.xlsx", b"PK\3\4", "it is a spreadsheet; save it as CSV"),
    ],
)
def test_files_that_are_no_tables_are_told(grades: Campaign, name: str, data: bytes, sentence: str) -> None:
    grades.annotator.save(name, data)
    assert grades.problem().startswith(f"round-000/{name}: {sentence}")
