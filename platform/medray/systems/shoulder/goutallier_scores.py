"""Scores of the classifier and of the folds, with the paper's intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from medray.metrics.classification import auc_per_label, average_precision_per_label
from medray.metrics.intervals import t_interval
from medray.metrics.segmentation import confusion
from medray.system import Row

THRESHOLD = 0.5
CLASSIFICATION = ("accuracy", "sensitivity", "specificity", "auroc", "average_precision")
SEGMENTATION = ("dice", "pixel_accuracy")


def classification_scores(risky: ArrayLike, probability: ArrayLike) -> dict[str, float]:
    """Accuracy, sensitivity and specificity at a probability of .5, area under the ROC curve, average precision.

    Args:
        risky: (N,), 0 or 1.
        probability: (N,), of 1.

    Returns:
        by name; nan where a class is missing.
    """
    truth, score = np.asarray(risky, dtype=int), np.asarray(probability, dtype=float)
    rates = confusion(score >= THRESHOLD, truth).rates()
    areas = (
        auc_per_label(truth[:, None], score[:, None])[0],
        average_precision_per_label(truth[:, None], score[:, None])[0],
    )
    found = {name: rates[name] for name in ("accuracy", "sensitivity", "specificity")}
    return found | {"auroc": float(areas[0]), "average_precision": float(areas[1])}


def fold_scores(rows: Sequence[Row]) -> list[dict[str, float]]:
    """Scores of every fold from the rows of its held-out cases, with how many cases and risky ones it has."""
    found = []
    for number in sorted({int(row["fold"]) for row in rows}):
        mine = [row for row in rows if row["fold"] == number]
        asked = [row for row in mine if "risky" in row]
        risky, probability = ([float(row[name]) for row in asked] for name in ("risky", "probability_risky"))
        scores = {"fold": float(number), "num_cases": float(len(asked)), "num_risky": sum(risky)}
        for name in SEGMENTATION:
            values = [float(row[name]) for row in mine if name in row]
            if values:
                scores[name] = float(np.mean(values))
        found.append(scores | classification_scores(risky, probability))
    return found


def joined(*steps: Sequence[Row]) -> list[Row]:
    """The rows of both steps as one row for each case."""
    found: dict[str, Row] = {}
    for rows in steps:
        for row in rows:
            found.setdefault(str(row["case"]), {}).update(row)
    return list(found.values())


def with_intervals(folds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over folds as ``cv_NAME``, with Student's 95 % interval as ``_low`` and ``_high``, cut off at 0 and 1."""
    found = {"cv_num_risky_least": min(fold["num_risky"] for fold in folds)}
    for name in (*SEGMENTATION, *CLASSIFICATION):
        values = [fold[name] for fold in folds if name in fold]
        for part, value in zip(("", "_low", "_high"), t_interval(values), strict=True):
            if math.isfinite(value):
                found[f"cv_{name}{part}"] = min(max(value, 0.0), 1.0)
    return found
