"""Pixel-wise anomaly detection: counts of scores, pooled over cases, and what ROC analysis makes of them.

Counts can be added over cases and workers, and 300 subjects of 200 slices still fit into one array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 2000


@dataclass(frozen=True)
class ScoreCounts:
    """How often each anomaly score occurs in healthy pixels and in lesions.

    Attributes:
        counts: (2, NUM_BINS), healthy pixels first, over scores from 0 to 1; larger scores count in the last bin.
    """

    counts: NDArray[np.int64]

    @classmethod
    def of(cls, scores: NDArray[Any], lesion: NDArray[Any], mask: NDArray[Any]) -> ScoreCounts:
        """Count the pixels under a mask.

        Args:
            scores: not negative; any shape.
            lesion: where there is one, same shape.
            mask: pixels that count, same shape.
        """
        bins = np.minimum((np.asarray(scores) * NUM_BINS).astype(np.int64), NUM_BINS - 1)
        inside, ill = np.asarray(mask, dtype=bool), np.asarray(lesion, dtype=bool)
        parts = [np.bincount(bins[inside & where], minlength=NUM_BINS) for where in (~ill, ill)]
        return cls(np.stack(parts))

    def __add__(self, other: ScoreCounts) -> ScoreCounts:
        return ScoreCounts(self.counts + other.counts)

    def rates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """False and true positive rate when pixels from bin i on are called ill, (NUM_BINS + 1,) each, both falling.

        nan where there is no healthy pixel, or no lesion.
        """
        above = np.concatenate([np.cumsum(self.counts[:, ::-1], axis=1)[:, ::-1], np.zeros((2, 1), dtype=int)], axis=1)
        with np.errstate(invalid="ignore"):
            fpr, tpr = above / self.counts.sum(axis=1, keepdims=True)
        return fpr, tpr

    def auc(self) -> float:
        """Area under the ROC curve by trapezoids; nan without lesion pixels."""
        fpr, tpr = self.rates()
        return float(-np.trapezoid(tpr, fpr))

    def youden(self) -> tuple[float, float, float]:
        """Threshold where TPR - FPR is largest, with FPR and FNR there. It looks at the labels: optimistic."""
        fpr, tpr = self.rates()
        best = int(np.argmax(tpr - fpr))
        return best / NUM_BINS, float(fpr[best]), 1.0 - float(tpr[best])

    def dice(self, threshold: float) -> float:
        """Dice of the pixels whose bin is at or above the threshold; nan if there is neither lesion nor detection."""
        first = round(threshold * NUM_BINS)
        false, true = self.counts[:, first:].sum(axis=1)
        lesion = self.counts[1].sum()
        return float(2 * true / (true + false + lesion)) if true + false + lesion else float("nan")


def threshold_at_fpr(scores: NDArray[Any], limit: float) -> float:
    """The smallest of the scores of healthy pixels above which at most a share ``limit`` of them lies.

    Args:
        scores: of healthy pixels, any shape.
        limit: false positive rate that must not be exceeded, in [0, 1).

    Raises:
        ValueError: no scores, or a limit out of range.
    """
    flat = np.ravel(scores)
    if not len(flat) or not 0 <= limit < 1:
        raise ValueError(f"a threshold needs scores and a limit in [0, 1), got {len(flat)} scores and {limit:g}")
    index = len(flat) - int(np.floor(limit * len(flat) + 1e-9)) - 1
    return float(np.partition(flat, index)[index])
