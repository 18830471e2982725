"""Scores of classifiers over a whole test set. The counting is scikit-learn's; what is here says what is undefined.

Shape letters: N cases, L labels or classes. A score that a test set cannot give (the AUC of a label that no case or
every case has) is nan and is left out of means by `mean_defined`, never counted as 0 or 0.5.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def mean_defined(values: Iterable[float]) -> float:
    """Mean of the values that are not nan; nan when none is left."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def auc_per_label(truth: ArrayLike, score: ArrayLike) -> FloatArray:
    """Area under the ROC curve of every label on its own.

    Args:
        truth: (N, L), 0 or 1.
        score: (N, L), higher for likelier.

    Returns:
        (L,), nan where all cases agree.
    """
    from sklearn.metrics import roc_auc_score

    return _per_label(truth, score, roc_auc_score)


def average_precision_per_label(truth: ArrayLike, score: ArrayLike) -> FloatArray:
    """Average precision of every label, (L,); nan where all cases agree. Arguments as in `auc_per_label`."""
    from sklearn.metrics import average_precision_score

    return _per_label(truth, score, average_precision_score)


def _per_label(truth: ArrayLike, score: ArrayLike, measure: object) -> FloatArray:
    truth, score = np.asarray(truth), np.asarray(score, dtype=float)
    if truth.shape != score.shape or truth.ndim != 2:
        raise ValueError(f"truth and score must both be (cases, labels), got {truth.shape} and {score.shape}")
    found = np.full(truth.shape[1], np.nan)
    for label in range(truth.shape[1]):
        if 0 < truth[:, label].sum() < len(truth):
            found[label] = measure(truth[:, label], score[:, label])  # type: ignore[operator]
    return found


def multiclass_scores(truth: ArrayLike, probability: ArrayLike) -> dict[str, float]:
    """Accuracy, AUC, precision, recall and F1 of one class out of L.

    With two classes the second one is the positive class: precision and F1 are its own, recall is called sensitivity
    and stands beside the specificity. With more, AUC is one against the rest and all but accuracy are means weighted by
    how often a class occurs.

    Args:
        truth: (N,), class indices.
        probability: (N, L), rows sum to 1.

    Returns:
        Values by name; the AUC leaves out classes that do not occur, and is nan with fewer than two.

    Raises:
        ValueError: no case, or shapes that do not fit.
    """
    from sklearn.metrics import precision_recall_fscore_support, recall_score

    truth, probability = np.asarray(truth, dtype=int), np.asarray(probability, dtype=float)
    if len(truth) == 0 or probability.shape[:1] != truth.shape:
        raise ValueError(f"truth must be (cases,) and probability (cases, classes): {truth.shape} {probability.shape}")
    predicted = probability.argmax(axis=1)
    binary = probability.shape[1] == 2
    average = "binary" if binary else "weighted"
    precision, recall, f1, _ = precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)
    scores = {"accuracy": float((truth == predicted).mean()), "precision": float(precision), "f1": float(f1)}
    if binary:
        specificity = float(recall_score(truth, predicted, pos_label=0, zero_division=0))
        scores |= {"sensitivity": float(recall), "specificity": specificity}
        scores["auc"] = float(auc_per_label(truth[:, None], probability[:, 1:])[0])
    else:
        scores |= {"recall": float(recall), "auc": _weighted_auc(truth, probability)}
    return scores


def _weighted_auc(truth: NDArray[np.int_], probability: FloatArray) -> float:
    present = np.eye(probability.shape[1])[truth]
    areas, weights = auc_per_label(present, probability), present.sum(axis=0)
    known = np.isfinite(areas)
    return float(np.average(areas[known], weights=weights[known])) if known.any() else float("nan")


def confusion_matrix(truth: ArrayLike, predicted: ArrayLike, num_classes: int) -> NDArray[np.int_]:
    """Counts, (true class, predicted class), both from 0 to ``num_classes`` - 1."""
    from sklearn.metrics import confusion_matrix as counted

    return np.asarray(counted(truth, predicted, labels=np.arange(num_classes)))
