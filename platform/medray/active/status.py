"""Where a campaign stands, as tables for people. The truth is in the ledger."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medray.active.members import Books
from medray.active.oracle import Problem

STATUS, PROBLEMS = "pool.csv", "problems.csv"


def write_status(folder: Path, books: Books, problems: Sequence[Problem]) -> None:
    """Write pool.csv (every case that was ever asked for or labelled) and problems.csv (what could not be used)."""
    asked = {name: query.number for query in books.queries for name in query.cases}
    rows: list[Sequence[Any]] = [("case", "state", "round", "value", "file", "note")]
    for name, answer in books.answers.items():
        state = "labelled" if answer.status == "labelled" else "rejected"
        rows.append((name, state, asked.get(name, ""), answer.value, answer.file, answer.note))
    rows += [(name, "queried", asked[name], "", "", "") for name in books.pending]
    _write(folder / STATUS, rows)
    _write(folder / PROBLEMS, [("subject", "case", "reason"), *((p.subject, p.case, p.reason) for p in problems)])


def _write(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text.getvalue())
    partial.replace(path)
