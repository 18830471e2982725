"""The parts of a report that are text and tables: who ran it and how, how it ended, headlines, settings, raw values."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medray import registry
from medray.errors import UserError
from medray.report import charts, comparison
from medray.report.measures import NO_VALUE, decimals, duration, families, number
from medray.report.run_files import RunFiles, as_number, mapping, objects

MAX_TABLE_CELLS = 40_000
_MAX_TILES = 6
_MAX_STRIPS = 6


@dataclass(frozen=True)
class Status:
    """How the run ended: "good", "bad" or "open", in words, and sentences about what is missing."""

    kind: str
    text: str
    details: Sequence[str] = ()


@dataclass(frozen=True)
class Tile:
    """A headline number with its unit, and what it was before, empty if unknown."""

    label: str
    value: str
    unit: str
    before: str


@dataclass(frozen=True)
class Setting:
    """A field of the config, the paper's default for it, and whether the two differ: None where that is unknown."""

    name: str
    value: str
    default: str
    differs: bool | None


@dataclass(frozen=True)
class PlainTable:
    """Printed rows under their column names; how many rows were left out for size."""

    columns: Sequence[str]
    numeric: Sequence[bool]
    rows: Sequence[Sequence[str]]
    num_left_out: int


@dataclass(frozen=True)
class CheckLine:
    """One inequality of a claim, printed."""

    name: str
    statement: str
    value: str
    threshold: str
    interval: str
    held: bool
    bar: charts.IntervalBar | None


def plain(value: object) -> str:
    """A JSON value as short text: lists with commas, truth as yes and no, null as an en dash."""
    if value is None:
        return NO_VALUE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value) if not math.isfinite(value) else f"{value:.12g}".replace("-", "−")
    if isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
        return ", ".join(plain(item) for item in value) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def texts(value: object) -> list[str]:
    """The items of a JSON list as text; nothing for anything else."""
    return [plain(item) for item in value] if isinstance(value, list) else []


def facts(run: RunFiles) -> list[tuple[str, str]]:
    """Variant, preset, seed, start, duration and speed, as far as the run tells."""
    source = {**(run.result or {}), **run.config}
    found = [(name, plain(source[name])) for name in ("variant", "preset") if source.get(name)]
    seed = source.get("seed", mapping(run.config, "options").get("seed"))
    if seed is not None:
        found.append(("seed", plain(seed)))
    if source.get("started"):
        found.append(("started", str(source["started"])[:19].replace("T", " ")))
    seconds = _seconds(run)
    if seconds is not None:
        found.append(("took" if run.result else "logged for", duration(seconds)))
    rate = as_number((run.result or {}).get("samples_per_second"))
    if rate is not None and math.isfinite(rate) and rate > 0:
        found.append(("speed", f"{number(rate)} samples/s"))
    return found


def status(run: RunFiles) -> Status:
    """Whether the run is complete or its claim holds, and what is missing if not."""
    if run.claim is not None:
        parts = objects(run.claim, "checks")
        num_held = sum(part.get("held") is True for part in parts)
        if parts and num_held == len(parts):
            return Status("good", "claim holds")
        told = f"{num_held} of {len(parts)} parts of the claim hold." if parts else "No part of the claim was tested."
        return Status("bad", "claim does not hold", [told])
    if run.result is not None:
        return Status("good", "finished")
    details = ["This run has not finished: it was stopped, it failed, or it is still going."]
    if run.log:
        last = run.log[-1]
        place = ", ".join(f"{axis} {plain(last[axis])}" for axis in ("epoch", "step") if axis in last)
        details.append(f"The last thing it logged is {last.get('name', 'a record')} at {place or 'no known step'}.")
    else:
        details.append("It logged nothing.")
    if run.evaluation is None:
        details.append("It was not evaluated, so there are no test results.")
    return Status("open", "not finished", details)


def tiles(run: RunFiles, scores: Sequence[comparison.Scores], reference: str | None) -> list[Tile]:
    """The test metrics of the reference variant, one for each family; what training measured if there are none."""
    if run.claim is not None:
        return []  # what counts there is in the table of checks
    metrics, before = comparison.split_initial(mapping(run.result, "metrics"))
    anchor = next((one for one in scores if one.name == reference), None)
    if anchor is not None and (tested := comparison.metric_keys([anchor])):
        metrics = {key: anchor.overall(key) for key in tested}
    initial = next((one for one in scores if one.name == comparison.INITIAL), None)
    found = []
    for family in families(metrics):
        member, measure = family.members[0]
        value = metrics[measure.key]
        earlier = before.get(measure.key, initial.overall(measure.key) if initial else math.nan)
        shown = number(earlier, decimals([value])) if math.isfinite(earlier) else ""
        found.append(
            Tile(family.label if family.whole else f"{family.label} {member}", number(value), family.unit, shown)
        )
    found.sort(key=lambda tile: not tile.before)  # what the method set out to change comes first
    return found[:_MAX_TILES]


def strips(scores: Sequence[comparison.Scores]) -> list[charts.StripChart]:
    """Every case of every variant as a dot, for each metric that is not a part of another."""
    found = []
    for family in families(comparison.metric_keys(scores)):
        measure = family.whole
        if measure is None:
            continue
        variants = [(one.name, one.by_case(measure.key), one.overall(measure.key)) for one in scores]
        chart = charts.strip_chart(family.label, family.unit, variants)
        if chart is not None and max(len(cases) for _, cases, _ in variants) > 1:
            found.append(chart)
    return found[:_MAX_STRIPS]


def case_table(scores: Sequence[comparison.Scores]) -> PlainTable | None:
    """All rows of all variants, what was measured before the method as a variant of its own; None without any."""
    scored = [one for one in scores if comparison.metric_keys([comparison.Scores(one.name, one.rows, {})])]
    return plain_table([{"variant": one.name, **row} for one in scored for row in one.rows])


def plain_table(rows: Sequence[Mapping[str, Any]], *, digits: int | None = None) -> PlainTable | None:
    """Rows as they are, the columns that identify them first; None when there are none.

    Args:
        rows: name -> value.
        digits: significant digits of every number; as many decimals as its column needs when None.
    """
    if not rows:
        return None
    columns = sorted(
        dict.fromkeys(name for row in rows for name in row), key=lambda name: name not in comparison.IDENTITY
    )
    shown = rows[: max(1, MAX_TABLE_CELLS // max(1, len(columns)))]
    printers = [_printer([row.get(name) for row in shown], digits) for name in columns]
    return PlainTable(
        columns=columns,
        numeric=[any(_is_number(row.get(name)) for row in shown) for name in columns],
        rows=[
            [printer(row[name]) if name in row else NO_VALUE for name, printer in zip(columns, printers, strict=True)]
            for row in shown
        ],
        num_left_out=len(rows) - len(shown),
    )


def checks(claim: Mapping[str, Any] | None) -> list[CheckLine]:
    """The inequalities of a claim."""
    return [_check(part) for part in objects(claim, "checks")]


def claim_scores(claim: Mapping[str, Any] | None) -> list[comparison.Scores]:
    """The raw values of a claim, put together by all text in a row but its case: variant, part, input."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in objects(claim, "rows"):
        words = [
            str(value)
            for key, value in row.items()
            if isinstance(value, str) and key not in ("case", "patient", "pair", "id")
        ]
        groups.setdefault(", ".join(words) or "all", []).append(row)
    return [comparison.Scores(name, rows, {}) for name, rows in groups.items()]


def settings(slug: str, run: RunFiles) -> list[Setting]:
    """The config's fields beside the paper's defaults: those the run recorded, or else those of the system's class."""
    values = _flatten(mapping(run.config, "config"))
    defaults = _flatten(mapping(run.config, "defaults")) or _class_defaults(slug)
    return [
        Setting(
            name,
            plain(value),
            plain(defaults[name]) if name in defaults else "",
            value != defaults[name] if name in defaults else None,
        )
        for name, value in values.items()
    ]


def versions(run: RunFiles) -> list[tuple[str, str]]:
    """Names and versions of the software, medray's own first."""
    known = mapping(run.config, "versions") or mapping(run.result, "versions")
    own = {"medray": run.config["medray"]} if run.config.get("medray") else {}
    return [(str(name), plain(value)) for name, value in {**own, **known}.items()]


def _seconds(run: RunFiles) -> float | None:
    total = as_number((run.result or {}).get("seconds"))
    if total is not None and math.isfinite(total):
        return total
    clocks = (as_number(record.get("wall_s")) for record in run.log)
    return max((clock for clock in clocks if clock is not None and math.isfinite(clock)), default=None)


def _check(part: Mapping[str, Any]) -> CheckLine:
    value, threshold = _finite(part.get("value")), _finite(part.get("threshold"))
    ends = part.get("interval")
    low, high = (_finite(end) for end in ends) if isinstance(ends, list) and len(ends) == 2 else (math.nan, math.nan)
    digits = max(decimals([value, threshold, low, high]), 3)
    known = math.isfinite(low) and math.isfinite(high)
    return CheckLine(
        name=plain(part.get("name", "")),
        statement=plain(part.get("statement", "")),
        value=number(value, digits),
        threshold=number(threshold, digits),
        interval=f"{number(low, digits)} to {number(high, digits)}" if known else NO_VALUE,
        held=part.get("held") is True,
        bar=charts.interval_bar(value, threshold, (low, high)),
    )


def _finite(value: object) -> float:
    found = as_number(value)
    return math.nan if found is None else found


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _printer(values: Sequence[object], digits: int | None) -> Callable[[object], str]:
    floats = [value for value in values if isinstance(value, float)]
    places = decimals(floats)

    def show(value: object) -> str:
        if not isinstance(value, float) or not math.isfinite(value):
            return plain(value)
        return number(value, places) if digits is None else f"{value:.{digits}g}".replace("-", "−")

    return show


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _class_defaults(slug: str) -> dict[str, Any]:
    try:
        fields = dataclasses.fields(registry.load(slug).config_class)
    except (UserError, ImportError):
        return {}  # a system of another version, or of somebody else: the report stands without the comparison
    found: dict[str, Any] = {}
    for field in fields:
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    as_dict = {name: dataclasses.asdict(value) if _is_instance(value) else value for name, value in found.items()}
    plain_json: dict[str, Any] = json.loads(json.dumps(as_dict, default=str))  # tuples become lists, as in config.json
    return _flatten(plain_json)


def _is_instance(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
