"""Scores of detected points: assignment, precision and recall, how far off the hits are.

Points are (N, 2), any unit as long as it is the same; distances come in that unit (pixels throughout medray).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Assignment:
    """Pairs of detections and references, each point in one pair at most.

    Attributes:
        detected: row of the detection in each pair.
        reference: row of the reference in each pair.
        distance: between them.
    """

    detected: NDArray[np.intp]
    reference: NDArray[np.intp]
    distance: NDArray[np.float64]


def assign(detected: Points, reference: Points, *, limit: float | None = None) -> Assignment:
    """Hungarian assignment (Kuhn 1955) by Euclidean distance.

    Args:
        detected: (N, 2).
        reference: (M, 2).
        limit: pairs farther apart are forbidden; as many pairs as possible are made, of the least total distance.
            None assigns min(N, M) pairs however far apart, as Xie et al. (MIDL 2019) and Sirinukunwattana et al. (2016)
            do; that takes N * M numbers of memory, a limit only as many as there are close pairs.
    """
    if not len(detected) or not len(reference):
        return Assignment(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0))
    if limit is None:
        distance = cdist(detected, reference)
        rows, columns = linear_sum_assignment(distance)
        return Assignment(rows, columns, distance[rows, columns])
    close = cKDTree(detected).sparse_distance_matrix(cKDTree(reference), limit, output_type="coo_matrix")
    pairs = [_assign_group(*group) for group in _groups(close, len(detected), len(reference))]
    if not pairs:
        return Assignment(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0))
    rows, columns = (np.concatenate(part).astype(np.intp) for part in zip(*pairs, strict=True))
    return Assignment(rows, columns, np.linalg.norm(detected[rows] - reference[columns], axis=1))


def _groups(close: coo_matrix, num_detected: int, num_reference: int) -> Iterator[tuple[Any, Any, Any]]:
    """The close pairs (detection, reference, distance) of each cluster of points that are near each other."""
    size = num_detected + num_reference
    edges = coo_matrix((np.ones(close.nnz), (close.row, close.col + num_detected)), shape=(size, size))
    cluster = connected_components(edges, directed=False)[1][close.row]
    order = np.argsort(cluster, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1):
        if len(part):
            yield close.row[part], close.col[part], close.data[part]


def _assign_group(
    rows: NDArray[np.intp], columns: NDArray[np.intp], distance: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    mine, i = np.unique(rows, return_inverse=True)
    theirs, j = np.unique(columns, return_inverse=True)
    # A forbidden pair costs more than all allowed ones together, so the number of pairs comes first.
    cost = np.full((len(mine), len(theirs)), 1.0 + distance.sum())
    cost[i, j] = distance
    first, second = linear_sum_assignment(cost)
    allowed = np.zeros(cost.shape, dtype=bool)
    allowed[i, j] = True
    kept = allowed[first, second]
    return mine[first[kept]], theirs[second[kept]]


def hits_in_order(detected: Points, scores: NDArray[np.float64], reference: Points, limit: float) -> NDArray[np.bool_]:
    """Which detections, taken from the highest score down, let one more reference be found.

    Their cumulative sum is the size of the largest assignment within ``limit`` of the best k detections, for every k:
    the exact precision-recall curve in one pass, by augmenting paths.

    Returns:
        (N,), in the order of ``detected``.
    """
    hits = np.zeros(len(detected), dtype=bool)
    if not len(detected) or not len(reference):
        return hits
    near = cKDTree(reference).query_ball_point(detected, limit)
    taken: dict[int, int] = {}

    def augment(point: int, seen: set[int]) -> bool:
        for target in near[point]:
            if target not in seen:
                seen.add(target)
                if target not in taken or augment(taken[target], seen):
                    taken[target] = point
                    return True
        return False

    for point in np.argsort(-scores, kind="stable"):
        hits[point] = augment(int(point), set())
    return hits


@dataclass(frozen=True)
class OperatingPoint:
    """Precision, recall and F1 of what scores at least ``threshold``."""

    threshold: float
    precision: float
    recall: float
    f1: float


def best_f1(scores: NDArray[np.float64], hits: NDArray[np.bool_], num_reference: int) -> OperatingPoint:
    """The threshold of best F1, over the detections of any number of images together.

    Args:
        scores: of all detections.
        hits: `hits_in_order` of each image.
        num_reference: references in all images.

    Returns:
        All zero with an infinite threshold where there is nothing to find or nothing found.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True)) if len(ranked) else np.zeros(0, int)
    found = np.cumsum(hits[order])[last]
    if not num_reference or not found.size or not found.any():
        return OperatingPoint(float("inf"), 0.0, 0.0, 0.0)
    precision, recall = found / (last + 1), found / num_reference
    f1 = 2 * found / (last + 1 + num_reference)
    best = int(f1.argmax())
    return OperatingPoint(float(ranked[last[best]]), float(precision[best]), float(recall[best]), float(f1[best]))


def precision_recall_f1(num_hits: float, num_detected: float, num_reference: float) -> tuple[float, float, float]:
    """From counts over any number of images; nan where a share is of nothing."""
    nan = float("nan")
    both = num_detected + num_reference
    return (
        num_hits / num_detected if num_detected else nan,
        num_hits / num_reference if num_reference else nan,
        2 * num_hits / both if both else nan,
    )


def quartiles(distances: NDArray[np.float64]) -> tuple[float, float, float]:
    """First quartile, median and third quartile; nan of nothing."""
    if not len(distances):
        return (float("nan"),) * 3
    q1, median, q3 = np.quantile(distances, (0.25, 0.5, 0.75))
    return float(q1), float(median), float(q3)


def in_close_pairs(points: Points, limit: float) -> NDArray[np.bool_]:
    """Which points have another one nearer than ``limit``, (N,)."""
    if len(points) < 2:
        return np.zeros(len(points), dtype=bool)
    return np.asarray(cKDTree(points).query(points, k=2)[0][:, 1] < limit)
