"""One self-contained report.html of a sweep: opens offline, while the sweep runs and years later.

The page holds its own style, plotly and the rest of its script and, by its content security policy, can neither fetch
nor run any other. It looks like the page of a run, whose style and script it has too.

    from tuning.report import write_sweep_report
    write_sweep_report(folder, study)
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from optuna.study import Study
from plotly.offline import get_plotlyjs

from medray import registry
from medray.engine.rundir import plain
from tuning.report import figures, landscape, summary, tables
from tuning.report.curves import curve_plot
from tuning.report.importance import MIN_TRIALS
from tuning.report.parallel import BOTTOM, HEIGHT, TOP, parallel_coordinates
from tuning.report.results import Results, read_results

_SCRIPTS = ("report.js", "sweep.js")
_STYLES = ("report.css", "sweep.css")


def write_sweep_report(folder: Path, study: Study) -> Path:
    """Write ``folder/report.html``, whole or not at all, whatever state the sweep is in.

    The same folder and study give the same bytes.

    Args:
        folder: of the sweep.
        study: its trials, and those of other sweeps that feed it.

    Returns:
        The report's path.

    Raises:
        UserError: the folder is not a sweep's.
        OSError: the report cannot be written.
    """
    page = render(read_results(folder, study), study)
    path = folder / "report.html"
    partial = folder / f".report.html.{os.getpid()}"
    try:
        partial.write_text(page, encoding="utf-8", newline="\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def render(results: Results, study: Study) -> str:
    """The page's HTML."""
    loader = ChoiceLoader([PackageLoader("tuning.report"), PackageLoader("medray.report")])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    environment.filters["plain"] = plain
    # The only text that enters the page unescaped. Stripped, since the digests count each byte.
    scripts = [get_plotlyjs().strip(), *(loader.get_source(environment, name)[0].strip() for name in _SCRIPTS)]
    style = "\n".join(loader.get_source(environment, name)[0].strip() for name in _STYLES)
    template = environment.get_template("sweep.html.j2")
    return template.render(
        scripts=[Markup(script) for script in scripts],
        digests=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
        style=Markup(style),
        **_context(results, study),
    )


def _context(results: Results, study: Study) -> dict[str, Any]:
    record = results.record
    rows = tables.trial_rows(results)
    return {
        "record": record,
        "entry": registry.ENTRIES.get(record.system),
        "metrics": results.metrics,
        "status": summary.status(results),
        "sentences": summary.sentences(results),
        "facts": summary.facts(results),
        "tiles": summary.tiles(results),
        "rows": rows,
        "states": list(dict.fromkeys(row.state for row in rows)),
        "sweeps": list(dict.fromkeys(row.sweep for row in rows)),
        "fields": [dimension.name for dimension in record.dimensions],
        "compared": tables.compared(results) if results.ranked else [],
        "parallel": parallel_coordinates(results),
        "parallel_box": {"height": HEIGHT, "top": TOP, "bottom": BOTTOM},
        "importance": figures.importance_plot(results, study),
        "min_trials": MIN_TRIALS,
        "slices": landscape.slices(results),
        "contours": landscape.contours(results),
        "curves": curve_plot(results),
        "pareto": figures.pareto(results),
        "spreads": figures.spreads(results),
        "seconds": figures.seconds_plot(results),
        "resources": summary.resources(results),
        "failures": [(trial, results.link(trial)) for trial in tables.failures(results)],
        "commands": tables.commands(results),
        "settings": summary.settings(results),
        "about": {str(trial.number): results.about(trial) for trial in results.trials},
    }
