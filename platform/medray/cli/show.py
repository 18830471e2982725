"""What commands print on standard output: tables with lines on a terminal, aligned columns anywhere else."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medray.engine.rundir import RunDirectory
    from medray.registry import Entry
    from medray.system import ClaimResult, Prediction


def line(text: str) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def plain(value: Any) -> str:
    """A setting as the user would type it."""
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def number(value: object) -> str:
    """Four significant digits for a float, plain text for anything else; a dash for what is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under headers."""
    rows = [list(row) for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        drawn = Table(*headers)
        for row in rows:
            drawn.add_row(*map(escape, row))
        Console().print(drawn)
        return
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    for row in [headers, *rows]:
        line("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def systems(entries: Iterable[Entry]) -> None:
    """The catalogue."""
    table(("system", "task", "what it does", "paper"), [(e.slug, e.task, e.title, e.paper) for e in entries])


def system(slug: str, *, prog: str) -> None:
    """One system in words: what it is, what it takes, how it can be run."""
    from medray import registry

    entry, described = registry.entry(slug), registry.load(slug)
    line(f"{slug}: {entry.title}")
    line(f"paper    {entry.paper}")
    line(f"task     {entry.task}")
    line(f"brings   {entry.inputs}")
    line(f"predict  takes {', '.join(described.predict_inputs)}")
    line("\npresets (--preset)")
    for name, preset in described.presets.items():
        line(f"  {name:14}  {preset.about}; data {preset.data}")
    line("\nvariants (--variant)")
    for name, variant in described.variants.items():
        line(f"  {name:14}  {variant.about}")
    line(f"\nevery setting with its unit and the paper's value: {prog} train --help")


def run(finished: RunDirectory) -> None:
    """A finished run: its numbers, its report and, as the last line, where it is."""
    folder = finished.path
    for name, value in _metrics(folder).items():
        line(f"{name:28}  {number(value)}")
    if (folder / "report.html").is_file():
        line(f"report: {finished}/report.html")
    line(str(finished))


def claim(result: ClaimResult) -> None:
    """The claim's checks and whether it holds."""
    table(
        ("check", "statement", "value", "threshold", "95% interval", "held"),
        [
            (
                check.name,
                check.statement,
                number(check.value),
                number(check.threshold),
                f"{number(check.interval[0])} to {number(check.interval[1])}",
                "yes" if check.held else "NO",
            )
            for check in result.checks
        ],
    )
    for note in result.notes:
        line(f"note: {note}")
    line("the claim holds" if result.held else "the claim does NOT hold")


def prediction(made: Prediction) -> None:
    """The files of a prediction, its numbers and how long it took."""
    for name, path in made.files.items():
        line(f"{name:28}  {path}")
    for name, value in made.metrics.items():
        line(f"{name:28}  {number(value)}")
    line(f"{'took':28}  {made.seconds:.2f} s")


def _metrics(folder: Path) -> dict[str, Any]:
    """The metrics of result.json, or nothing."""
    try:
        metrics = json.loads((folder / "result.json").read_text())["metrics"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {str(name): value for name, value in metrics.items()} if isinstance(metrics, dict) else {}
