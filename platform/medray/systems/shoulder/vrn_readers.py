"""What people said of the test cases, beside the network: the paper's table 3.

Readers are rows of a CSV file with the columns reader, group, case and class. Groups are compared by Kruskal and Wallis
with Bonferroni's correction of the pairs; the network's values are its repetitions with dropout, as the paper compares
60 repetitions with 17 people. Those repetitions are no independent readers, so p says little about new networks.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medray.errors import UserError
from medray.metrics.intervals import kruskal_bonferroni
from medray.metrics.ordered import flat, median_quartiles, ordered_scores, repeated_scores
from medray.system import Row
from medray.systems.shoulder.vrn_evaluation import REPEATED, repeats_of, truth_of
from medray.systems.shoulder.vrn_labels import CLASSES, class_of

COLUMNS = ("reader", "group", "case", "class")
NETWORK = "network"


@dataclass(frozen=True)
class Reader:
    """One person's classes.

    Attributes:
        name: of the person.
        group: for example specialist or general.
        classes: case id -> position in `CLASSES`.
    """

    name: str
    group: str
    classes: Mapping[str, int]


def read_readers(path: Path) -> list[Reader]:
    """Read the table.

    Raises:
        UserError: it cannot be read, lacks a column, holds an unknown class, has a group named as the network, or a
            person is in two groups.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the readers' table {path} cannot be read: {error}") from None
    rows = list(csv.DictReader(lines))
    missing = [name for name in COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise UserError(f"the readers' table {path} has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}")
    groups: dict[str, str] = {}
    classes: dict[str, dict[str, int]] = {}
    for number, row in enumerate(rows, start=1):
        reader, group, case, said = ((row[name] or "").strip() for name in COLUMNS)
        known = class_of(said)
        if known is None:
            raise UserError(f"{path}, row {number}: the class {said!r} is none of {', '.join(CLASSES)}")
        if group == NETWORK:
            raise UserError(f"{path}, row {number}: the group {group!r} is the network's own; use another name")
        if groups.setdefault(reader, group) != group:
            raise UserError(f"{path}, row {number}: reader {reader!r} is in {groups[reader]!r} and in {group!r}")
        classes.setdefault(reader, {})[case] = known
    return [Reader(name, group, classes[name]) for name, group in groups.items()]


def reader_scores(readers: Sequence[Reader], rows: Sequence[Row]) -> dict[str, dict[str, list[float]]]:
    """Scores of every reader on those test cases that they read: group -> score -> a value for each reader.

    Raises:
        UserError: a reader has read no test case.
    """
    truth = {str(row["case"]): int(t) for row, t in zip(rows, truth_of(rows), strict=True)}
    found: dict[str, dict[str, list[float]]] = {}
    for reader in readers:
        both = [case for case in reader.classes if case in truth]
        if not both:
            raise UserError(f"reader {reader.name!r} has read none of the {len(truth)} test cases; check their names")
        scores = ordered_scores([truth[case] for case in both], [reader.classes[case] for case in both])
        group = found.setdefault(reader.group, {name: [] for name in scores})
        for name, value in scores.items():
            group[name].append(value)
    return found


def group_scores(rows: Sequence[Row], readers: Sequence[Reader] = ()) -> dict[str, dict[str, list[float]]]:
    """The network's repetitions, and the readers': group -> score -> values."""
    found = {NETWORK: repeated_scores(truth_of(rows), repeats_of(rows))} if "repeats" in rows[0] else {}
    return found | reader_scores(readers, rows)


def compare_groups(groups: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Table 3 as flat names.

    Args:
        groups: group -> score -> values.

    Returns:
        Median and quartiles of each score and group, and where there are two groups or more p of Kruskal and Wallis and
        the corrected p of every pair. A score that a group lacks everywhere is left out.
    """
    told: dict[str, float] = {}
    for name in REPEATED:
        values = {group: scores[name] for group, scores in groups.items() if np.isfinite(scores[name]).any()}
        for group, own in values.items():
            told |= flat({f"{group}_median_{name}": median_quartiles(own)}, ("q1", "q3"))
        if len(values) > 1:
            compared = kruskal_bonferroni(values)
            told[f"kruskal_p_{name}"] = compared.p_value
            told |= {f"bonferroni_p_{name}_{a}_{b}": p for (a, b), p in compared.pairwise.items()}
    return told
