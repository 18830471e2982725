"""Paired comparisons with intervals, as claims and reports state them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def ratio(part: float, whole: float) -> float:
    """``part / whole``; nan where the whole is 0."""
    return part / whole if whole else float("nan")


def paired_bootstrap(
    differences: Sequence[float],
    *,
    groups: Sequence[int] | None = None,
    level: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of paired differences with a percentile bootstrap interval.

    Args:
        differences: one per case, in the metric's own unit; nan entries are left out.
        groups: what cases share, for example the seed of the run they come from. Whole groups are drawn first and then
            cases within them, since cases of one group are not independent. None treats all as independent.
        level: coverage of the interval.
        num_resamples: bootstrap draws.
        seed: of the draws.

    Returns:
        mean, lower and upper bound; all nan when nothing is left.
    """
    values = np.asarray(differences, dtype=np.float64)
    labels = np.zeros(len(values), dtype=int) if groups is None else np.asarray(groups)
    labels, values = labels[np.isfinite(values)], values[np.isfinite(values)]
    if len(values) == 0:
        return (float("nan"),) * 3
    generator = np.random.default_rng(seed)
    members = [values[labels == label] for label in np.unique(labels)]
    if len(members) == 1:
        means = values[generator.integers(0, len(values), (num_resamples, len(values)))].mean(axis=1)
    else:
        means = np.array([_resampled_mean(members, generator) for _ in range(num_resamples)])
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(values.mean()), float(low), float(high)


def _resampled_mean(members: Sequence[NDArray[np.float64]], generator: np.random.Generator) -> float:
    groups = [members[index] for index in generator.integers(0, len(members), len(members))]
    return float(np.concatenate([g[generator.integers(0, len(g), len(g))] for g in groups]).mean())
