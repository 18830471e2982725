"""Intervals of means over folds and of any statistic over cases, and comparisons of several groups.

The mean of paired differences is in `medray.metrics.statistics`, the ROC area in `medray.metrics.delong`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

IntArray = NDArray[np.intp]
Interval = tuple[float, float, float]
"""Value, lower and upper bound."""


@dataclass(frozen=True)
class GroupComparison:
    """Whether groups differ, and which.

    Attributes:
        statistic: H of Kruskal and Wallis.
        p_value: of H.
        pairwise: two names -> p of their Mann-Whitney test times the number of pairs, at most 1.
    """

    statistic: float
    p_value: float
    pairwise: Mapping[tuple[str, str], float]


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of a few values, as of the folds of a cross-validation, with Student's interval.

    Folds share training cases, which makes it narrower than an interval over new data (Bengio & Grandvalet, JMLR 2004).

    Args:
        values: (N,); nan entries are left out.
        level: coverage.

    Returns:
        mean, lower and upper bound; the bounds are nan for a single value, all are nan for none.
    """
    known = _finite(values)
    if len(known) < 2:
        return float(known[0]) if len(known) else float("nan"), float("nan"), float("nan")
    mean = float(known.mean())
    half = float(stats.t.ppf((1 + level) / 2, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known)))
    return mean, mean - half, mean + half


def bootstrap_interval(
    statistic: Callable[[IntArray], float],
    num_cases: int,
    *,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Any statistic of cases with its percentile bootstrap interval: a pooled sensitivity, F1, a ROC area.

        bootstrap_interval(lambda chosen: f1_score(truth[chosen], found[chosen]), len(truth))

    Args:
        statistic: of the cases with these indices, which come with repetitions.
        num_cases: how many there are.
        groups: one per case, for example its patient; groups are drawn whole, since their cases are not independent.
        level: coverage.
        num_resamples: bootstrap draws.
        seed: of the draws.

    Returns:
        the statistic of all cases, lower and upper bound; draws where it is nan (no positive case) are left out.

    Raises:
        ValueError: not one group for each case.
    """
    if groups is not None and len(groups) != num_cases:
        raise ValueError(f"one group is needed for each of {num_cases} cases, got {len(groups)}")
    if not num_cases:
        return (float("nan"),) * 3
    members = _members(range(num_cases) if groups is None else groups)
    generator = np.random.default_rng(seed)
    draws = (generator.integers(0, len(members), len(members)) for _ in range(num_resamples))
    drawn = np.array([statistic(np.concatenate([members[group] for group in draw])) for draw in draws])
    value, drawn = float(statistic(np.arange(num_cases))), drawn[np.isfinite(drawn)]
    if not len(drawn):
        return value, float("nan"), float("nan")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return value, float(low), float(high)


def kruskal_bonferroni(groups: Mapping[str, Sequence[float]]) -> GroupComparison:
    """Kruskal-Wallis test over groups, and Mann-Whitney tests of all pairs with Bonferroni's correction.

    A corrected p below .05 is an uncorrected one below .05 over the number of pairs: .0167 for three groups.

    Args:
        groups: name -> values; nan entries are left out.

    Raises:
        ValueError: fewer than two groups, or one without values.
    """
    values = {name: _finite(group) for name, group in groups.items()}
    empty = [name for name, group in values.items() if not len(group)]
    if len(values) < 2 or empty:
        raise ValueError(f"at least two groups with values are needed, got {len(values)}, empty: {empty}")
    if np.ptp(np.concatenate(list(values.values()))) == 0:
        statistic, p_value = 0.0, 1.0  # all ranks are tied: SciPy divides by zero
    else:
        statistic, p_value = map(float, stats.kruskal(*values.values()))
    pairs = list(combinations(values, 2))
    corrected = {
        (first, second): min(1.0, len(pairs) * float(stats.mannwhitneyu(values[first], values[second]).pvalue))
        for first, second in pairs
    }
    return GroupComparison(statistic, p_value, corrected)


def _members(groups: Sequence[Hashable]) -> list[IntArray]:
    found: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        found.setdefault(group, []).append(index)
    return [np.array(indices, dtype=np.intp) for indices in found.values()]


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=np.float64)
    return found[np.isfinite(found)]
