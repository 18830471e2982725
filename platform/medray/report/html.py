"""One self-contained report.html from a run directory: opens offline, in any browser, years later.

Nothing here knows a system: tables and charts follow from the names of the metrics, which carry their unit. The page
holds its own style, script and pictures and, by its content security policy, can neither fetch nor run any other.

    from medray.report.html import write_report
    write_report(Path("runs/suts/20250601-120000-smoke"))
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from medray import registry
from medray.figures.scene import scene_record
from medray.report import charts, comparison, sections
from medray.report.run_files import IMAGE_TYPES, Picture, RunFiles, mapping, objects, read_run

_VIEWER = ("rays.js", "planes.js", "scene.js")
"""For pages with volumes only."""


def write_report(run_dir: Path) -> Path:
    """Write ``run_dir/report.html`` from the files of the run; whatever is missing is said in the report.

    The same files give the same bytes.

    Args:
        run_dir: run directory of a training, evaluation or claim run, in any state.

    Returns:
        The report's path.

    Raises:
        UserError: ``run_dir`` is not a directory.
        OSError: the report cannot be written.
    """
    run = read_run(run_dir)
    path = run_dir / "report.html"
    temporary = path.with_suffix(".html.part")  # a reader never sees half a report
    temporary.write_text(render(run), encoding="utf-8", newline="\n")
    os.replace(temporary, path)
    return path


def render(run: RunFiles) -> str:
    """The report's HTML."""
    loader = PackageLoader("medray.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Ours, not the run's: the only text that enters the page unescaped. Stripped, since the digest counts each byte.
    turning = any(picture.scene for picture in run.pictures)
    scripts, styles = (
        (("report.js", *_VIEWER), ("report.css", "scene.css")) if turning else (("report.js",), ("report.css",))
    )
    script, style = (
        "\n".join(loader.get_source(environment, name)[0].strip() for name in names) for names in (scripts, styles)
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.get_template("report.html.j2")
    return template.render(script=Markup(script), style=Markup(style), script_digest=digest, **_context(run))


def _context(run: RunFiles) -> dict[str, Any]:
    scores = comparison.read_scores(run.evaluation or {})
    reference = next((one.name for one in scores if one.name != comparison.INITIAL), None)
    line_charts, num_more_charts = charts.curve_charts(run.log)
    slug = str(run.config.get("system") or (run.result or {}).get("system") or run.folder.resolve().parent.name)
    settings = sections.settings(slug, run)
    data = mapping(run.config, "data")
    splits = [(str(name), sections.texts(ids)) for name, ids in mapping(data, "splits").items()]
    return {
        "slug": slug,
        "entry": registry.ENTRIES.get(slug),
        "run_name": f"{run.folder.resolve().parent.name}/{run.folder.resolve().name}",
        "facts": sections.facts(run),
        "status": sections.status(run),
        "tiles": sections.tiles(run, scores, reference),
        "problems": run.problems,
        "claim": run.claim,
        "checks": sections.checks(run.claim),
        "claim_tables": comparison.compare(sections.claim_scores(run.claim), reference=None),
        "claim_rows": sections.plain_table(objects(run.claim, "rows"), digits=6),
        "claim_notes": sections.texts((run.claim or {}).get("notes")),
        "charts": line_charts,
        "num_more_charts": num_more_charts,
        "logged": bool(run.log),
        "evaluated": run.evaluation is not None,
        "tables": comparison.compare(scores, reference=reference),
        "reference": reference,
        "has_initial": any(one.name == comparison.INITIAL for one in scores),
        "strips": sections.strips(scores),
        "cases": sections.case_table(scores),
        "pictures": [
            (picture, _data_url(picture), scene_record(picture.scene) if picture.scene else None)
            for picture in run.pictures
        ],
        "bad_cases": [
            {name: sections.plain(case.get(name, "")) for name in ("case", "reason", "file")}
            for case in objects(data, "bad")
        ],
        "settings": settings,
        "num_differing": sum(setting.differs is True for setting in settings),
        "defaults_known": any(setting.differs is not None for setting in settings),
        "options": [(name, sections.plain(value)) for name, value in mapping(run.config, "options").items()],
        "data": [(name, sections.plain(data[name])) for name in ("spec", "fingerprint") if data.get(name)],
        "splits": splits if any(ids for _, ids in splits) else [],
        "versions": sections.versions(run),
        "command": sections.plain(run.config.get("command", "")),
    }


def _data_url(picture: Picture) -> str:
    content = base64.b64encode(picture.file.read_bytes()).decode()
    return f"data:{IMAGE_TYPES[picture.file.suffix.lower()]};base64,{content}"
