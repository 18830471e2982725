"""Put the variants of an evaluation side by side: one table per family of metrics, with what separates them.

A row of the tables is a variant, a column a metric (an organ, a label). The large number is the variant's summary,
which systems aggregate over sums and counts; spread and paired differences come from its per-case rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from medray.metrics.statistics import paired_bootstrap
from medray.report.measures import NO_VALUE, Direction, Family, Measure, decimals, families, number
from medray.report.run_files import as_number, mapping, objects

Verdict = Literal["better", "worse", ""]
INITIAL = "initial"
_INITIAL_PREFIX = "initial_"
# Numbers that say which row it is, not how good it was.
IDENTITY = frozenset(
    {"case", "patient", "pair", "id", "variant", "site", "seed", "fold", "repeat", "index", "slice", "step", "epoch"}
)
_MIN_CASES_FOR_INTERVAL = 3  # resampling two cases says nothing about a third
_NUM_RESAMPLES = 2000
_CASE_KEYS = ("case", "pair", "id")


@dataclass(frozen=True)
class Scores:
    """Per-case rows and summary of one variant.

    Attributes:
        name: the variant's name.
        rows: as the system wrote them, one per case.
        summary: aggregated numbers by metric.
        problem: why there are no numbers, if the run says.
    """

    name: str
    rows: Sequence[Mapping[str, Any]]
    summary: Mapping[str, float]
    problem: str = ""

    def values(self, key: str) -> list[float]:
        """Finite per-case values of a metric, in row order."""
        numbers = (as_number(row[key]) for row in self.rows if key in row)
        return [value for value in numbers if value is not None and math.isfinite(value)]

    def overall(self, key: str) -> float:
        """The summary's value, or else the mean over cases; NaN when there is neither."""
        if key in self.summary:
            return self.summary[key]
        values = self.values(key)
        return float(np.mean(values)) if values else math.nan

    def by_case(self, key: str) -> dict[str, float]:
        """A metric's value per case id; the mean where a case has several rows (seeds, folds), its unit of sampling."""
        found: dict[str, list[float]] = {}
        for row in self.rows:
            case = next((str(row[name]) for name in _CASE_KEYS if name in row), None)
            value = as_number(row[key]) if key in row else None
            if case is not None and value is not None and math.isfinite(value):
                found.setdefault(case, []).append(value)
        return {case: float(np.mean(values)) for case, values in found.items()}


@dataclass(frozen=True)
class Cell:
    """One variant's value of one metric, ready to print.

    Attributes:
        value: the number, an en dash when there is none.
        spread: standard deviation between cases, empty below two cases.
        count: cases behind the spread.
        best: whether no variant is better.
        difference: paired difference to the reference variant, empty without common cases.
        interval: its 95 % interval.
        verdict: "better" or "worse" than the reference if the interval leaves out zero and the direction is known.
    """

    value: str
    spread: str = ""
    count: int = 0
    best: bool = False
    difference: str = ""
    interval: str = ""
    verdict: Verdict = ""


@dataclass(frozen=True)
class Row:
    """One variant's line in a table."""

    name: str
    note: str
    count: int
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Column:
    """Heading of a metric: label, unit and which way is better."""

    label: str
    unit: str
    better: Direction
    key: str


@dataclass(frozen=True)
class Table:
    """A family of metrics over all variants."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]


def read_scores(evaluation: Mapping[str, Any]) -> list[Scores]:
    """The variants of evaluation.json, before them the state they started from if it was measured.

    ``initial_<metric>`` in a summary or a row is that metric before the method did anything.
    """
    variants = []
    initial: Scores | None = None
    for name, content in mapping(evaluation, "variants").items():
        body = content if isinstance(content, Mapping) else {}
        rows, summary = objects(body, "rows"), _numbers(mapping(body, "summary"))
        before = Scores(INITIAL, [_initial_part(row) for row in rows], _only_initial(summary))
        if initial is None and (before.summary or metric_keys([before])):
            initial = before
        variants.append(
            Scores(
                str(name),
                [{key: value for key, value in row.items() if not key.startswith(_INITIAL_PREFIX)} for row in rows],
                {key: value for key, value in summary.items() if not key.startswith(_INITIAL_PREFIX)},
                str(body.get("error") or ""),
            )
        )
    return [initial, *variants] if initial else variants


def split_initial(metrics: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Numbers among ``metrics``: those of the method, and those before it under the same names."""
    numbers = _numbers(metrics)
    after = {key: value for key, value in numbers.items() if not key.startswith(_INITIAL_PREFIX)}
    return after, _only_initial(numbers)


def metric_keys(scores: Sequence[Scores]) -> list[str]:
    """Names of all metrics, in the order in which summaries and then rows bring them up."""
    keys: dict[str, None] = {}
    for one in scores:
        keys.update(dict.fromkeys(one.summary))
    for one in scores:
        for row in one.rows:
            keys.update(dict.fromkeys(k for k, v in row.items() if k not in IDENTITY and as_number(v) is not None))
    return list(keys)


def compare(scores: Sequence[Scores], *, reference: str | None, seed: int = 0) -> list[Table]:
    """One table for each family of two or more metrics, one for all the others together.

    Args:
        scores: variants, in the order of the tables' rows.
        reference: the variant that the others are compared with, case by case; None compares none.
        seed: of the bootstrap.
    """
    tables, single = [], []
    for family in families(metric_keys(scores)):
        if len(family.members) > 1:
            tables.append(_table(family.label, _columns(family), scores, reference, seed))
        else:
            single += _columns(family)
    if single:
        tables.append(_table("Other measures" if tables else "Measures", single, scores, reference, seed))
    return tables


def _columns(family: Family) -> list[Column]:
    def column(label: str, measure: Measure) -> Column:
        return Column(label, family.unit, measure.better, measure.key)

    return [column(label, measure) for label, measure in family.members]


def _table(title: str, columns: list[Column], scores: Sequence[Scores], reference: str | None, seed: int) -> Table:
    anchor = next((one for one in scores if one.name == reference), None)
    cells = [_column_cells(column, scores, anchor, seed) for column in columns]
    rows = []
    for index, one in enumerate(scores):
        line = [column[index] for column in cells]
        note = "before the method" if one.name == INITIAL else "reference" if one is anchor and len(scores) > 1 else ""
        if one.name != INITIAL or any(cell.value != NO_VALUE for cell in line):
            rows.append(Row(one.name, one.problem or note, max((cell.count for cell in line), default=0), line))
    return Table(title, columns, rows)


def _column_cells(column: Column, scores: Sequence[Scores], anchor: Scores | None, seed: int) -> list[Cell]:
    means = [one.overall(column.key) for one in scores]
    digits = decimals(means)
    best = _best(means, column.better)
    cells: list[Cell] = []
    for one, mean in zip(scores, means, strict=True):
        values = one.values(column.key)
        spread = number(float(np.std(values, ddof=1)), digits) if len(values) > 1 else ""
        difference, interval, verdict = _difference(one, anchor, column, digits, seed)
        # Equal as printed is equal: a reader cannot see why one of two identical numbers would win.
        is_best = best is not None and number(mean, digits) == number(best, digits)
        cells.append(Cell(number(mean, digits), spread, len(values), is_best, difference, interval, verdict))
    return cells


def _best(means: Sequence[float], better: str) -> float | None:
    finite = [mean for mean in means if math.isfinite(mean)]
    if not better or len(finite) < 2 or min(finite) == max(finite):
        return None
    return max(finite) if better == "higher" else min(finite)


def _difference(one: Scores, anchor: Scores | None, column: Column, digits: int, seed: int) -> tuple[str, str, Verdict]:
    if anchor is None or one is anchor:
        return "", "", ""
    theirs, ours = one.by_case(column.key), anchor.by_case(column.key)
    shared = [theirs[case] - ours[case] for case in ours if case in theirs]
    if not shared:
        return "", "", ""
    if len(shared) < _MIN_CASES_FOR_INTERVAL:
        return number(float(np.mean(shared)), digits, sign=True), "", ""
    mean, low, high = paired_bootstrap(shared, num_resamples=_NUM_RESAMPLES, seed=seed)
    verdict: Verdict = ""
    if column.better and (low > 0 or high < 0):
        verdict = "better" if (low > 0) == (column.better == "higher") else "worse"
    text = f"{number(low, digits, sign=True)}, {number(high, digits, sign=True)}"
    return number(mean, digits, sign=True), text, verdict


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    numbers = {str(key): as_number(value) for key, value in values.items()}
    return {key: value for key, value in numbers.items() if value is not None}


def _only_initial(summary: Mapping[str, float]) -> dict[str, float]:
    return {key.removeprefix(_INITIAL_PREFIX): v for key, v in summary.items() if key.startswith(_INITIAL_PREFIX)}


def _initial_part(row: Mapping[str, Any]) -> dict[str, Any]:
    part = {key.removeprefix(_INITIAL_PREFIX): v for key, v in row.items() if key.startswith(_INITIAL_PREFIX)}
    return {**{key: row[key] for key in row if key in IDENTITY}, **part}
