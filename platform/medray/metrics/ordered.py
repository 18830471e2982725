"""Scores where classes have an order and the first one is health, as the sizes of a tear (Shim et al. 2020, table 3).

Shape letters: N cases, R repetitions. Classes are whole numbers from 0 (healthy) on, neighbors in their order.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medray.metrics.intervals import Interval, bootstrap_interval
from medray.metrics.statistics import ratio

NAMES = ("top1", "top1_within_1", "binary_accuracy", "sensitivity", "specificity", "precision", "f1")


def ordered_scores(truth: ArrayLike, predicted: ArrayLike, *, diseased: ArrayLike | None = None) -> dict[str, float]:
    """How often the class is right, is right or a neighbor of the right one, and how well health is told from disease.

    Args:
        truth: (N,), classes.
        predicted: (N,), classes.
        diseased: (N,), the decision against health; by default that the predicted class is not 0. A classifier decides
            by P(not 0), which need not agree with its likeliest class.

    Returns:
        The `NAMES`; ``top1_within_1`` counts a neighboring class as right, the last five are of health against disease.
        nan where a score is not defined (no diseased case, nobody called diseased).

    Raises:
        ValueError: no case, or shapes that differ.
    """
    truth, predicted = np.asarray(truth, dtype=int), np.asarray(predicted, dtype=int)
    called = predicted > 0 if diseased is None else np.asarray(diseased, dtype=bool)
    if truth.ndim != 1 or not len(truth) or truth.shape != predicted.shape or truth.shape != called.shape:
        raise ValueError(
            f"truth {truth.shape}, predicted {predicted.shape} and diseased {called.shape} must be (cases,)"
        )
    ill, away = truth > 0, np.abs(truth - predicted)
    found, missed, alarms = (int(part.sum()) for part in (ill & called, ill & ~called, ~ill & called))
    return {
        "top1": float((away == 0).mean()),
        "top1_within_1": float((away <= 1).mean()),
        "binary_accuracy": float((ill == called).mean()),
        "sensitivity": ratio(found, found + missed),
        "specificity": ratio(int((~ill & ~called).sum()), int((~ill).sum())),
        "precision": ratio(found, found + alarms),
        "f1": ratio(2 * found, 2 * found + missed + alarms),
    }


def ordered_intervals(
    truth: ArrayLike,
    predicted: ArrayLike,
    *,
    diseased: ArrayLike | None = None,
    groups: Sequence[Hashable] | None = None,
    num_resamples: int = 2000,
) -> dict[str, Interval]:
    """`ordered_scores`, each with its 95 % bootstrap interval over cases: value, lower and upper bound.

    Cases of one group (a patient) are drawn together.
    """
    truth, predicted = np.asarray(truth, dtype=int), np.asarray(predicted, dtype=int)
    called = predicted > 0 if diseased is None else np.asarray(diseased, dtype=bool)

    def score(name: str, chosen: NDArray[np.intp]) -> float:
        return ordered_scores(truth[chosen], predicted[chosen], diseased=called[chosen])[name]

    return {
        name: bootstrap_interval(functools.partial(score, name), len(truth), groups=groups, num_resamples=num_resamples)
        for name in NAMES
    }


def repeated_scores(truth: ArrayLike, predicted: NDArray[np.int_]) -> dict[str, list[float]]:
    """`ordered_scores` of each repetition.

    Args:
        truth: (N,), classes.
        predicted: (R, N), classes.
    """
    found = [ordered_scores(truth, one) for one in predicted]
    return {name: [scores[name] for scores in found] for name in NAMES}


def median_quartiles(values: Sequence[float]) -> Interval:
    """Median, first and third quartile, nan entries left out; all nan where nothing is left."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return (float("nan"),) * 3
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)


def flat(values: Mapping[str, Interval], ends: tuple[str, str]) -> dict[str, float]:
    """Flat names for tables: ``top1`` with ``top1_low`` and ``top1_high`` for the ends ``low`` and ``high``."""
    found: dict[str, float] = {}
    for name, (value, low, high) in values.items():
        found |= {name: value, f"{name}_{ends[0]}": low, f"{name}_{ends[1]}": high}
    return found
