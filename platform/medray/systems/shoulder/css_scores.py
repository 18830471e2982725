"""Scores of label maps with few or no pixels of a class, and what is said of slices where a class is missing.

| truth of a class in a slice | its IoU and sensitivity there | pooled |
|---|---|---|
| some pixels, none found | 0 | counted |
| none, some found | left out; told by ``false_tear`` | the found pixels lower it |
| none, none found | left out | nothing to count |

Means over slices are over those whose truth holds the class: the headline. Pooled scores are of all slices' pixels
together. mIoU is the mean of the three classes' scores, each way. What no slice holds has no score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medray.metrics.segmentation import Confusion, confusion
from medray.metrics.statistics import ratio
from medray.system import Row

CLASSES = ("background", "tendon", "tear")


def slice_scores(found: NDArray[Any], truth: NDArray[Any]) -> dict[str, float]:
    """IoU of each class and sensitivity for the tear in one slice; nan where the truth has none of the class.

    Args:
        found: label map, (H, W).
        truth: label map of the same shape.
    """
    counts = class_counts(found, truth)
    iou = {f"iou_{name}": _if_present(counts[name], "iou") for name in reversed(CLASSES)}  # the tear first
    sensitivity = _if_present(counts["tear"], "sensitivity")
    return {**iou, "tear_sensitivity": sensitivity, "miou": _mean(list(iou.values()))}


def class_counts(found: NDArray[Any], truth: NDArray[Any]) -> dict[str, Confusion]:
    """Pixels of each class."""
    return {name: confusion(found == value, truth == value) for value, name in enumerate(CLASSES)}


def as_row(case: str, found: NDArray[Any], truth: NDArray[Any]) -> Row:
    """A slice's scores; those it does not have are left out."""
    row: Row = {"case": case}
    row |= {name: value for name, value in slice_scores(found, truth).items() if math.isfinite(value)}
    row["false_tear"] = bool((found == 2).any() and not (truth == 2).any())
    return row


def summarize(rows: Sequence[Row], counts: Sequence[Mapping[str, Confusion]]) -> dict[str, float]:
    """Means over slices and pooled scores, as the module's text says; what has no slices is left out.

    Args:
        rows: of the slices, as `as_row` gives them.
        counts: of the slices, as `class_counts` gives them.
    """
    told = {}
    for name in (*(f"iou_{name}" for name in reversed(CLASSES)), "tear_sensitivity"):
        told[name] = _mean([float(row[name]) for row in rows if name in row])
    told["miou"] = _mean([told[f"iou_{name}"] for name in CLASSES])
    pooled = {name: sum((one[name] for one in counts), Confusion()).rates() for name in CLASSES}
    for name in CLASSES:
        told[f"iou_{name}_pooled"] = pooled[name]["iou"]
    told["miou_pooled"] = _mean([told[f"iou_{name}_pooled"] for name in CLASSES])
    told["tear_sensitivity_pooled"] = pooled["tear"]["sensitivity"]
    without = [row for row in rows if "iou_tear" not in row]
    told["false_tear_slices_percent"] = 100 * ratio(sum(bool(row["false_tear"]) for row in without), len(without))
    return {name: value for name, value in told.items() if math.isfinite(value)}


def _if_present(counts: Confusion, rate: str) -> float:
    return counts.rates()[rate] if counts.tp + counts.fn else float("nan")


def _mean(values: Sequence[float]) -> float:
    kept = [value for value in values if math.isfinite(value)]
    return float(np.mean(kept)) if kept else float("nan")
