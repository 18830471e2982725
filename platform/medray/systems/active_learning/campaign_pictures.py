"""Pictures of campaigns for the report, from their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medray.active.records import RoundRecord
from medray.data.case import Case
from medray.data.modalities import AUXILIARY, LABEL, ModalReader
from medray.figures.campaign import (
    Pick,
    RoundScores,
    class_mix,
    gallery,
    label_curves,
    round_costs,
    score_histograms,
)
from medray.figures.classification import confusion_figure
from medray.figures.drawing import to_png
from medray.figures.segmentation import Example, outlines
from medray.metrics.classification import confusion_matrix
from medray.system import Figure, Row, Workbench
from medray.systems.active_learning.network_task import NetworkTask

_PICTURE_PX = 128
_EXAMPLES = 8
_PICKS_SHOWN, _ROUNDS_SHOWN = 4, 4
_PARTS = ("learner", "sampler", "ranking", "orchestration")


def training_figures(records: Sequence[RoundRecord], cases: Mapping[str, Case], *, slices: bool) -> list[Figure]:
    """One campaign: what it asked for, the sampler's scores, and where the time went.

    Args:
        records: of its rounds.
        cases: of the pool with their labels, by id.
        slices: whether images are axial slices, which are turned as radiologists read them.
    """
    figures = []
    asked = [record for record in records if record.picks][:_ROUNDS_SHOWN]
    if asked:
        shown = {f"round {r.number}": [_pick(cases[name], score) for name, score in _first(r)] for r in asked}
        caption = "The first cases asked for in each round; label outlined where it is a mask and known"
        figures.append(Figure("picks", caption, to_png(gallery(shown, turned=slices))))
    scored = [r for r in records if r.histogram is not None and any(r.histogram.labelled)]
    if scored:
        rounds = [RoundScores(f"round {r.number}", **vars(r.histogram)) for r in scored]
        caption = "Critic scores at the end of each round (the paper's figure 2): the lowest are asked for"
        figures.append(Figure("scores", caption, to_png(score_histograms(rounds))))
    costs = [{part: record.seconds.get(part, 0.0) for part in _PARTS} for record in records]
    caption = "Where the time of each round went; the task network and the sampler are trained at the same time on Ray"
    figures.append(Figure("costs", caption, to_png(round_costs(costs))))
    return figures


def comparison_figures(
    campaigns: Mapping[str, Sequence[Sequence[RoundRecord]]],
    mixes: Mapping[str, Sequence[Mapping[str, int]]],
    pool: Mapping[str, int],
    metric: str,
) -> list[Figure]:
    """All samplers in one frame.

    Args:
        campaigns: variant -> records of each seed.
        mixes: variant -> groups of the picks of each round, over all seeds.
        pool: groups of the pool.
        metric: of the task.
    """
    curves = {
        name: [[(r.num_labelled, r.scores[metric]) for r in records] for records in seeds]
        for name, seeds in campaigns.items()
    }
    seeds = max(len(each) for each in campaigns.values())
    interval = f"; mean over {seeds} seeds{' with its 95 % interval' if seeds > 2 else ''}" if seeds > 1 else ""
    caption = f"{metric} on the test cases against the number of labels{interval}"
    figures = [Figure("curves", caption, to_png(label_curves(curves, metric=metric)))]
    drawn = {name: rounds for name, rounds in mixes.items() if any(rounds)}
    if drawn and len(pool) > 1:
        caption = "What was asked for, by kind or class, beside the pool"
        figures.append(Figure("mix", caption, to_png(class_mix(drawn, pool))))
    return figures


def result_figures(
    work: Workbench, task: NetworkTask[Any], weights: Path | None, cases: Sequence[Case], rows: Sequence[Row]
) -> list[Figure]:
    """What the last task network makes of test cases."""
    if task.kind == "class":
        positions = {name: index for index, name in enumerate(task.classes)}
        truth, found = ([positions[str(row[name])] for row in rows] for name in ("true", "predicted"))
        counts = confusion_matrix(truth, found, len(task.classes))
        caption = "Test cases by true and predicted class, with the last task network"
        return [Figure("confusion", caption, to_png(confusion_figure(counts, task.classes)))]
    if task.kind == "classes":
        return []
    chosen = list(range(0, len(cases), max(1, len(cases) // _EXAMPLES)))[:_EXAMPLES]
    seen = task.look(work, weights, [cases[index] for index in chosen])
    reader, examples = task.reader(work.cache), []
    for index, one in zip(chosen, seen, strict=True):
        title = f"{cases[index].id}  Dice {float(rows[index]['dice']):.2f}"
        image, label = reader.image(cases[index])[0], reader.label(cases[index])[0]
        examples.append(Example(image, (one.probabilities[1] > 0.5).numpy(), label != 0, title))
    affine = np.eye(4) if any("slice" in case.attributes for case in cases) else None
    caption = "Test cases: the lesion as labelled (broken line) and as the last task network finds it"
    return [Figure("examples", caption, to_png(outlines(examples, affine=affine)))]


def _first(record: RoundRecord) -> list[tuple[str, float | None]]:
    scores = record.pick_scores or (None,) * len(record.picks)
    return list(zip(record.picks, scores, strict=True))[:_PICKS_SHOWN]


def _pick(case: Case, score: float | None) -> Pick:
    reader = ModalReader(_PICTURE_PX)
    return Pick(
        image=reader.image(case)[0],
        caption=case.id if score is None else f"{case.id}\nscore {score:.3g}",
        auxiliary=reader.image(case, AUXILIARY)[0] if AUXILIARY in case.fields else None,
        label=reader.label(case)[0] if LABEL in case.fields else None,
    )
