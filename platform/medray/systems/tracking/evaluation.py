"""Scores and pictures of a tracker on test cases."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from medray.data.case import Case
from medray.data.traces import centrelines_of
from medray.figures.tracing import animation_png, entropy_png, errors_png, traces_png
from medray.system import Evaluation, Figure, Trained, Workbench
from medray.systems.tracking.axon_tracker import AxonTrackerConfig
from medray.systems.tracking.judging import Judged, judge, write_branches
from medray.systems.tracking.scenes import Preparation, cut_out
from medray.systems.tracking.traced_cases import TracedCase, jobs_of, trace_cases

_EXAMPLES = 3
_FIGURE_BRANCHES = 400


def evaluate(config: AxonTrackerConfig, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
    """Tables 1 and 2 of the paper, and the entropy on and off track (table 6); ``branches.csv`` has every branch."""
    trace = functools.partial(trace_cases, config)
    traced = [one for part in work.map(trace, jobs_of(trained, cases), name="evaluate") for one in part]
    write_branches(work.out / "branches.csv", traced)
    judged = judge(traced)
    return Evaluation(judged.rows, judged.summary, _figures(config, cases, traced, judged))


def _figures(
    config: AxonTrackerConfig, cases: Sequence[Case], traced: Sequence[TracedCase], judged: Judged
) -> list[Figure]:
    by_id = {case.id: case for case in cases}
    ordered = sorted(judged.rows, key=lambda row: float(row["coverage_pct"]))
    places = np.unique(np.linspace(0, len(ordered) - 1, min(_EXAMPLES, len(ordered))).round().astype(int))
    of_case = {one.case: one for one in traced}
    figures = []
    for place in places:
        row = ordered[place]
        caption = f"{row['case']}: coverage {row['coverage_pct']:.1f} %, error {row.get('error_px', 0):.2f} px"
        one = of_case[str(row["case"])]
        image = _image(config, by_id[one.case])
        shown = slice(0, _FIGURE_BRANCHES)
        png = traces_png(image, one.traces[shown], one.truths[shown], title=caption)
        figures.append(Figure(f"traced_{place}", caption, png))
    figures.append(Figure("errors", "Distances of all traced points to their lines", errors_png(judged.errors)))
    if config.method == "policy":
        figures.append(_entropy_figure(judged))
        best = of_case[str(ordered[-1]["case"])]
        figures.append(_animation(config, by_id[best.case], best))
    return figures


def _entropy_figure(judged: Judged) -> Figure:
    table = judged.entropy
    caption = f"Entropy on and off track; mean difference {table.difference:.2f} nats over {table.num_images} images"
    return Figure("entropy", f"{caption}, paired p = {table.p_images:.2g}", entropy_png(table.rows))


def _animation(config: AxonTrackerConfig, case: Case, one: TracedCase) -> Figure:
    branch = int(np.argmax([trace.length_px for trace in one.traces]))
    line, trace = centrelines_of(case).branches[branch], one.traces[branch]
    scene = cut_out(_image(config, case), line, 24, case.id)
    moved = trace.points - (line.points - scene.centreline)[0]  # type: ignore[operator]
    caption = f"The tracker on its way along {case.id}, windows in blue"
    return Figure("animation", caption, animation_png(scene, moved, config.options))


def _image(config: AxonTrackerConfig, case: Case) -> np.ndarray:
    return Preparation(config.polarity, config.intensity).image(case)
