"""Point scores by hand and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score, precision_score, recall_score

from medray.metrics.points import along_curve, class_scores, misnumbered, near_border, order_violations


def test_class_scores_by_hand() -> None:
    # class 0: 3 of 4 right; class 1: 2 of 3 right; class 2 is predicted where there is none; class 3 is nowhere
    confusion = np.array([[3, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    scores = class_scores(confusion)
    assert scores["iou"] == pytest.approx((3 / 4 + 2 / 4 + 0) / 3)
    assert scores["precision"] == pytest.approx((3 / 3 + 2 / 3 + 0) / 3)
    assert scores["recall"] == pytest.approx((3 / 4 + 2 / 3 + 0) / 3)
    assert scores["iou_points"] == pytest.approx(5 / 9)
    assert math.isnan(class_scores(np.zeros((3, 3), int))["iou"])


def test_class_scores_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    true, predicted = random.integers(0, 6, 300), random.integers(0, 6, 300)
    scores = class_scores(confusion_matrix(true, predicted, labels=range(9)))
    assert scores["iou"] == pytest.approx(jaccard_score(true, predicted, average="macro"))
    assert scores["precision"] == pytest.approx(precision_score(true, predicted, average="macro"))
    assert scores["recall"] == pytest.approx(recall_score(true, predicted, average="macro"))


def test_points_near_a_border() -> None:
    points = np.array([[x, 0.0, 0.0] for x in (0, 1, 2, 3, 5)])
    labels = np.array([1, 1, 1, 2, 2])
    np.testing.assert_array_equal(near_border(points, labels, 1.0), [False, False, True, True, False])
    np.testing.assert_array_equal(near_border(points, labels, 2.0), [False, True, True, True, False])
    assert not near_border(points, np.ones(5, int), 9.0).any()


def test_position_along_a_bent_curve_and_beyond_its_ends() -> None:
    curve = np.array([[0, 0, 0], [2, 0, 0], [2, 3, 0]], dtype=float)
    points = np.array([[1, 0.2, 0], [2.1, 1, 0], [-1, 0, 0], [2, 4, 1]], dtype=float)
    np.testing.assert_allclose(along_curve(points, curve), [1, 3, -1, 6])


def test_order_violations() -> None:
    points = np.repeat(np.arange(4.0)[:, None] * [1, 0, 0], 5, axis=0)
    true = np.repeat([1, 2, 3, 4], 5)
    assert order_violations(points, true, true) == 0
    assert order_violations(points, np.repeat([1, 3, 2, 4], 5), true) == 1
    assert order_violations(points, np.repeat([4, 3, 2, 1], 5), true) == 3
    assert order_violations(points, np.repeat([2, 3, 4, 5], 5), true) == 0  # shifted, but in order
    assert order_violations(points, np.zeros(20, int), true) == 0
    assert order_violations(points, true, np.ones(20, int)) is None


def test_small_islands_do_not_count() -> None:
    points = np.arange(20.0)[:, None] * [1, 0, 0]
    true = np.repeat([2, 3], 10)
    predicted = true.copy()
    predicted[-4:] = 1
    assert order_violations(points, predicted, true) == 0
    assert order_violations(points, predicted, true, min_points=4) == 1


def test_misnumbered_counts_teeth_by_their_most_frequent_label() -> None:
    true = np.array([0, 0, 1, 1, 1, 2, 2, 2, 3, 3])
    predicted = np.array([1, 0, 1, 1, 2, 1, 1, 2, 0, 0])
    assert misnumbered(predicted, true) == 2
