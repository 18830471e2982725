"""Scores of labels on points and meshes: confusion over classes, borders between labels, order along a curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


def class_scores(confusion: IntArray) -> dict[str, float]:
    """Macro scores of a multi-class labelling, each class against the others.

    Args:
        confusion: (L, L) counts, rows true and columns predicted, as `sklearn.metrics.confusion_matrix` gives; those of
            several cases may be added.

    Returns:
        iou, precision and recall: means over the classes that are true or predicted anywhere (a class predicted where
        there is none counts as 0, one that is absent from both is left out), and iou_points, the intersections summed
        over the unions, which weighs a class by its points. nan where there are no points.
    """
    hits = np.diag(confusion).astype(float)
    predicted, true = confusion.sum(axis=0), confusion.sum(axis=1)
    union = predicted + true - hits
    present = union > 0
    if not present.any():
        return dict.fromkeys(("iou", "precision", "recall", "iou_points"), float("nan"))
    hits, predicted, true, union = hits[present], predicted[present], true[present], union[present]
    return {
        "iou": float((hits / union).mean()),
        "precision": float((hits / np.maximum(predicted, 1)).mean()),
        "recall": float((hits / np.maximum(true, 1)).mean()),
        "iou_points": float(hits.sum() / union.sum()),
    }


def near_border(points: FloatArray, labels: IntArray, distance: float) -> NDArray[np.bool_]:
    """Which points have a point of another label within ``distance``.

    Args:
        points: (N, 3).
        labels: (N,).
        distance: in the points' unit, inclusive.
    """
    near = np.zeros(len(points), dtype=bool)
    for label in np.unique(labels):
        own = labels == label
        gap, _ = cKDTree(points[own]).query(points[~own], distance_upper_bound=np.nextafter(distance, np.inf))
        near[np.flatnonzero(~own)[np.isfinite(gap)]] = True
    return near


def along_curve(points: FloatArray, curve: FloatArray) -> FloatArray:
    """Distance along a polyline of the place on it that is nearest to each point; beyond its ends it goes on straight.

    Args:
        points: (K, 3).
        curve: (T, 3), at least two corners.

    Returns:
        (K,), 0 at the first corner, negative before it.
    """
    steps = np.diff(curve, axis=0)
    lengths = np.maximum(np.linalg.norm(steps, axis=1), 1e-12)
    starts = np.concatenate([[0.0], np.cumsum(lengths)])[:-1]
    along = np.einsum("ksd,sd->ks", points[:, None] - curve[None, :-1], steps / lengths[:, None])
    low, high = np.zeros_like(lengths), lengths.copy()
    low[0], high[-1] = -np.inf, np.inf
    along = np.clip(along, low, high)
    nearest = curve[None, :-1] + along[..., None] * (steps / lengths[:, None])
    segment = np.linalg.norm(points[:, None] - nearest, axis=2).argmin(axis=1)
    return np.asarray(starts[segment] + along[np.arange(len(points)), segment])


def order_violations(points: FloatArray, predicted: IntArray, true: IntArray, *, min_points: int = 5) -> int | None:
    """How often the predicted classes 1, 2, 3, ... do not follow each other as their numbers do.

    The curve runs through the true classes' centroids in order of their number; a violation is a predicted class whose
    centroid does not lie further along it than that of the next lower class predicted. 0 and classes of fewer than
    ``min_points`` points are left out.

    Args:
        points: (N, 3).
        predicted: (N,).
        true: (N,).
        min_points: of a predicted class that counts.

    Returns:
        A count; None where fewer than two classes are true, so that there is no curve.
    """
    corners = [points[true == label].mean(axis=0) for label in np.unique(true) if label != 0]
    if len(corners) < 2:
        return None
    labels, counts = np.unique(predicted, return_counts=True)
    shown = labels[(labels != 0) & (counts >= min_points)]
    if len(shown) < 2:
        return 0
    places = along_curve(np.stack([points[predicted == label].mean(axis=0) for label in shown]), np.stack(corners))
    return int((np.diff(places) <= 0).sum())


def misnumbered(predicted: IntArray, true: IntArray) -> int:
    """How many true classes other than 0 have another class as the most frequent one predicted on their points."""
    wrong = 0
    for label in np.unique(true):
        if label != 0:
            values, counts = np.unique(predicted[true == label], return_counts=True)
            wrong += int(values[counts.argmax()] != label)
    return wrong
