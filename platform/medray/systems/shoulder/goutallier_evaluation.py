"""How well the folds' networks together grade patients whom none of them has seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medray.data.case import Case
from medray.metrics.delong import delong_interval
from medray.metrics.segmentation import confusion
from medray.system import Row, Trained
from medray.systems.shoulder.goutallier_config import GoutallierConfig
from medray.systems.shoulder.goutallier_fat import fat_fraction_percent
from medray.systems.shoulder.goutallier_images import YView, read_mask, read_y_view
from medray.systems.shoulder.goutallier_inference import Finding, attention, find
from medray.systems.shoulder.goutallier_labels import grade_of, is_risky
from medray.systems.shoulder.goutallier_measures import knows_mm, measures
from medray.systems.shoulder.goutallier_pictures import Shown
from medray.systems.shoulder.goutallier_regions import Mask
from medray.systems.shoulder.goutallier_scores import THRESHOLD, classification_scores

CASES_PER_TASK = 32
_MEANS = ("dice", "pixel_accuracy", "fat_fraction_error_percent")


def score_cases(config: GoutallierConfig, trained: Trained, cases: Sequence[Case]) -> list[Row]:
    """A row for each case. Runs as a Ray task."""
    views, drawn, found = look(config, trained, cases)
    return [
        _row(config, case, view, truth, finding)
        for case, view, truth, finding in zip(cases, views, drawn, found, strict=True)
    ]


def look(
    config: GoutallierConfig, trained: Trained, cases: Sequence[Case]
) -> tuple[list[YView], list[Mask], list[Finding]]:
    """Images, drawn masks and what is found in them."""
    views = [read_y_view(case.volume("image")) for case in cases]
    drawn = [read_mask(case.volume("label")) for case in cases]
    return views, drawn, find(config, trained.files, [view.image for view in views], drawn)


def _row(config: GoutallierConfig, case: Case, view: YView, truth: Mask, finding: Finding) -> Row:
    row: Row = {"case": case.id, "grade": grade_of(case), "probability_risky": finding.probability}
    risky = is_risky(case, config.grade2)
    if risky is not None:
        row |= {"risky": int(risky), "correct": float((finding.probability >= THRESHOLD) == risky)}
    if config.segments:
        rates = confusion(finding.muscle, truth).rates()
        row |= {"dice": rates["dice"], "pixel_accuracy": rates["accuracy"]}
        row |= {"whole_image": float(finding.region.is_fallback)}
    if config.roi == "full_image":
        return row
    row |= measures(view, finding.muscle, in_mm=knows_mm(case.volume("image")))
    if "fat" in case.fields:
        true = fat_fraction_percent(read_mask(case.volume("fat")), truth)
        row["true_fat_fraction_percent"] = true
        if "fat_fraction_percent" in row:
            row["fat_fraction_error_percent"] = abs(float(row["fat_fraction_percent"]) - true)
    return row


def summarize(rows: Sequence[Row]) -> dict[str, float]:
    """Scores over all rows; of the classifier over those that are asked about, with DeLong's interval of the area."""
    asked = [row for row in rows if "risky" in row]
    risky, probability = ([float(row[name]) for row in asked] for name in ("risky", "probability_risky"))
    found = {"num_cases": float(len(asked)), "num_risky": sum(risky)}
    if asked:
        found |= classification_scores(risky, probability)
    if 0 < sum(risky) < len(risky):
        _, found["auroc_low"], found["auroc_high"] = delong_interval(risky, probability)
    for name in _MEANS:
        values = [float(row[name]) for row in rows if name in row]
        if values:
            found[name] = float(np.mean(values))
    if any("whole_image" in row for row in rows):
        found["num_whole_image"] = sum(float(row.get("whole_image", 0.0)) for row in rows)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def chosen_examples(rows: Sequence[Row], *, most: int = 5) -> list[str]:
    """Ids of cases worth looking at: mistakes first, then the surest risky ones, then the surest others."""
    asked = [row for row in rows if "risky" in row]
    wrong = [row for row in asked if not row["correct"]]
    right = [row for row in asked if row["correct"]]
    by_score = sorted(right, key=lambda row: -float(row["probability_risky"]))
    risky, others = ([row for row in by_score if row["risky"] == answer] for answer in (1, 0))
    order: list[Mapping[str, Any]] = [*wrong[:2], *risky[:2], *others[-2:], *others[:1]]
    return list(dict.fromkeys(str(row["case"]) for row in order))[:most]


def shown_examples(config: GoutallierConfig, trained: Trained, cases: Sequence[Case]) -> list[Shown]:
    """The cases with their maps, for the picture."""
    found = []
    for case, view, truth, finding in zip(cases, *look(config, trained, cases), strict=True):
        heats = attention(config, trained.files, view.image, finding)
        found.append(Shown(case.id, grade_of(case), view, finding, heats, truth))
    return found
