"""Where a campaign stands, as tables for people. The truth is in the ledger."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from medray.active.exchange import Exchange
from medray.active.members import Books
from medray.active.oracle import Problem
from medray.active.people.tables import cell, read_rows
from medray.errors import UserError

STATUS, PROBLEMS = "pool.csv", "problems.csv"


def write_status(exchange: Exchange, books: Books, problems: Sequence[Problem]) -> None:
    """Write pool.csv (every case that was ever asked for or labelled) and problems.csv (what could not be used).

    Args:
        exchange: the run's folder where it lasts: people look there while a campaign waits, for weeks maybe.
        books: of the pool.
        problems: all so far.
    """
    asked = {name: query.number for query in books.queries for name in query.cases}
    rows: list[Sequence[Any]] = [("case", "state", "round", "value", "file", "note")]
    for name, answer in books.answers.items():
        state = "labelled" if answer.status == "labelled" else "rejected"
        rows.append((name, state, asked.get(name, ""), answer.value, answer.file, answer.note))
    rows += [(name, "queried", asked[name], "", "", "") for name in books.pending]
    exchange.write(STATUS, _table(rows))
    told = [(problem.subject, problem.case, problem.reason) for problem in problems]
    exchange.write(PROBLEMS, _table([("subject", "case", "reason"), *told]))


def read_problems(exchange: Exchange) -> list[Problem]:
    """What `write_status` wrote of problems, by an earlier process too; none where a person has spoiled the table."""
    try:
        data = exchange.read(PROBLEMS)
    except FileNotFoundError:
        return []
    try:
        rows = read_rows(data, "reason")
    except UserError:
        return []
    return [Problem(row.cells.get("subject", ""), row.cells["reason"], row.cells["case"]) for row in rows]


def _table(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([cell(str(one)) for one in row] for row in rows)
    return text.getvalue().encode()
