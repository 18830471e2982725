"""The tables of where a campaign stands, which people open and may save again."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from medray.active.answers import Answer
from medray.active.exchange import Exchange, open_exchange
from medray.active.members import Books
from medray.active.oracle import Problem, Query
from medray.active.status import read_problems, write_status

TOLD = [Problem("=x.csv, row 2", "'7' is no class; expected für", "a"), Problem("-1", 'it holds "3"', "-1")]
BOOKS = Books(
    {"labelled": 2, "queried": 1, "unlabelled": 0, "rejected": 1},
    ("c",),
    (Query(3, ("-1", "b", "c"), ()),),
    {
        "a": Answer("a", "labelled", value="x"),
        "-1": Answer("-1", "labelled", value="y", note='=HYPERLINK("//evil")'),
        "b": Answer("b", "cannot_label", note="torn"),
    },
)


@pytest.fixture
def exchange(tmp_path: Path) -> Exchange:
    return open_exchange(str(tmp_path))


def test_every_case_that_was_asked_for_or_labelled_has_a_row(exchange: Exchange) -> None:
    write_status(exchange, BOOKS, [])
    rows = list(csv.reader(io.StringIO(exchange.read("pool.csv").decode())))[1:]
    assert rows == [
        ["a", "labelled", "", "x", "", ""],
        ["'-1", "labelled", "3", "y", "", '\'=HYPERLINK("//evil")'],  # text to a spreadsheet, no formula
        ["b", "rejected", "3", "", "", "torn"],
        ["c", "queried", "3", "", "", ""],
    ]


def test_problems_are_read_back_from_what_excel_makes_of_them(exchange: Exchange) -> None:
    assert read_problems(exchange) == []
    write_status(exchange, BOOKS, TOLD)
    assert read_problems(exchange) == TOLD
    rows = csv.reader(io.StringIO(exchange.read("problems.csv").decode()))
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=";").writerows(rows)
    exchange.write("problems.csv", text.getvalue().encode("cp1252"))
    assert read_problems(exchange) == TOLD


@pytest.mark.parametrize("spoilt", [b"", b"\0\0", b"notes\nmine\n", b"case\na\n", b'case\n"a'])
def test_a_spoilt_table_of_problems_stops_nobody(exchange: Exchange, spoilt: bytes) -> None:
    exchange.write("problems.csv", spoilt)
    assert read_problems(exchange) == []
