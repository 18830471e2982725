"""Areas under correlated ROC curves with their variance: DeLong, DeLong & Clarke-Pearson, Biometrics 1988.

The components are computed from midranks in O(N log N) after Sun & Xu, IEEE Signal Processing Letters 2014.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class AucComparison:
    """Two ROC areas on the same cases.

    Attributes:
        first: area of the first score.
        second: area of the second score.
        difference: first minus second.
        standard_error: of the difference.
        p_value: two-sided; 1 where the scores rank every pair alike, 0 where they differ without any variance.
    """

    first: float
    second: float
    difference: float
    standard_error: float
    p_value: float


def delong_covariance(truth: ArrayLike, scores: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """ROC areas of several scores on the same cases, and their covariance.

    Args:
        truth: (N,), 0 or 1.
        scores: (K, N), one row per model, higher for likelier.

    Returns:
        areas (K,) and covariance (K, K) (eqs. 4 to 6 of DeLong et al.); the covariance is nan where there are fewer
        than two positive or two negative cases.

    Raises:
        ValueError: shapes that do not fit, or only one class among the cases.
    """
    truth, scores = np.asarray(truth).astype(bool), np.atleast_2d(np.asarray(scores, dtype=float))
    if truth.ndim != 1 or scores.shape[1:] != truth.shape:
        raise ValueError(f"scores must be (models, cases) for truth (cases,), got {scores.shape} and {truth.shape}")
    num_positive, num_negative = int(truth.sum()), int((~truth).sum())
    if not num_positive or not num_negative:
        raise ValueError(f"a ROC curve needs both classes, got {num_positive} positive and {num_negative} negative")
    positive, negative = scores[:, truth], scores[:, ~truth]
    # Structural components: for each case the share of the other class it is ranked above (ties count half).
    rank_all = stats.rankdata(np.concatenate([positive, negative], axis=1), axis=1)
    above_negative = (rank_all[:, :num_positive] - stats.rankdata(positive, axis=1)) / num_negative
    above_positive = (rank_all[:, num_positive:] - stats.rankdata(negative, axis=1)) / num_positive
    if min(num_positive, num_negative) < 2:
        return above_negative.mean(axis=1), np.full((len(scores), len(scores)), np.nan)
    spread = [np.atleast_2d(np.cov(part)) / part.shape[1] for part in (above_negative, above_positive)]
    return above_negative.mean(axis=1), np.asarray(spread[0] + spread[1])


def delong_test(truth: ArrayLike, first: ArrayLike, second: ArrayLike) -> AucComparison:
    """Whether two scores of the same cases have the same ROC area.

    Args:
        truth: (N,), 0 or 1.
        first: (N,) scores of one model.
        second: (N,) scores of the other.

    Raises:
        ValueError: as `delong_covariance`.
    """
    areas, covariance = delong_covariance(truth, np.stack([np.asarray(first), np.asarray(second)]))
    contrast = np.array([1.0, -1.0])
    difference = float(contrast @ areas)
    variance = float(contrast @ covariance @ contrast)
    error = float(np.sqrt(max(variance, 0.0))) if np.isfinite(variance) else float("nan")
    if error > 0:
        p_value = float(2 * stats.norm.sf(abs(difference) / error))
    else:
        p_value = float("nan") if np.isnan(error) else float(difference == 0)
    return AucComparison(float(areas[0]), float(areas[1]), difference, error, p_value)


def delong_interval(truth: ArrayLike, score: ArrayLike, *, level: float = 0.95) -> tuple[float, float, float]:
    """ROC area of one score with a confidence interval, on the logit scale so that it stays within 0 and 1.

    Args:
        truth: (N,), 0 or 1.
        score: (N,).
        level: coverage.

    Returns:
        area, lower and upper bound; the bounds are nan where the variance is unknown or the area is 0 or 1.
    """
    areas, covariance = delong_covariance(truth, score)
    area, error = float(areas[0]), float(np.sqrt(covariance[0, 0]))
    if not 0 < area < 1 or np.isnan(error):
        return area, float("nan"), float("nan")
    middle, half = np.log(area / (1 - area)), stats.norm.ppf((1 + level) / 2) * error / (area * (1 - area))
    low, high = 1 / (1 + np.exp(-np.array([middle - half, middle + half])))
    return area, float(low), float(high)
