"""Scores of classifiers: small tables worked out by hand, and what is undefined."""

from __future__ import annotations

import numpy as np
import pytest

from medray.metrics.classification import (
    auc_per_label,
    average_precision_per_label,
    confusion_matrix,
    mean_defined,
    multiclass_scores,
)
from medray.metrics.delong import delong_covariance, delong_interval, delong_test


def test_auc_counts_pairs_and_skips_labels_without_both_classes() -> None:
    truth = np.array([[0, 0, 1], [0, 0, 1], [1, 0, 1], [1, 0, 1]])
    score = np.array([[0.1, 0, 0], [0.4, 1, 0], [0.3, 2, 0], [0.8, 3, 1]])
    areas = auc_per_label(truth, score)
    assert areas[0] == pytest.approx(3 / 4)  # of the four pairs (0.4, 0.3) alone is in the wrong order
    assert np.isnan(areas[1:]).all()
    assert mean_defined(areas) == pytest.approx(3 / 4)
    assert average_precision_per_label(truth, score)[0] == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(mean_defined([float("nan")]))


def test_two_classes_by_hand() -> None:
    truth = [0, 0, 0, 0, 1, 1]
    second = np.array([0.1, 0.2, 0.3, 0.9, 0.8, 0.4])
    scores = multiclass_scores(truth, np.stack([1 - second, second], axis=1))
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["specificity"] == pytest.approx(3 / 4)
    assert scores["sensitivity"] == scores["precision"] == scores["f1"] == pytest.approx(1 / 2)
    assert scores["auc"] == pytest.approx(6 / 8)


def test_three_classes_are_weighted_by_how_often_they_occur() -> None:
    truth = np.array([0, 0, 0, 1])
    probability = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])
    scores = multiclass_scores(truth, probability)
    assert scores["accuracy"] == scores["recall"] == pytest.approx(0.5)
    assert scores["precision"] == pytest.approx(3 / 4 * 2 / 3)
    assert scores["auc"] == pytest.approx(2 / 3)  # of both classes that occur; the third is left out
    assert "sensitivity" not in scores
    np.testing.assert_array_equal(confusion_matrix(truth, probability.argmax(1), 3), [[2, 1, 0], [1, 0, 0], [0, 0, 0]])


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"\(3,\)"):
        auc_per_label([0, 1, 1], [0.0, 0.1, 0.2])
    with pytest.raises(ValueError, match=r"\(2,\) \(3, 2\)"):
        multiclass_scores([0, 1], np.zeros((3, 2)))


def _slow_covariance(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eqs. 3 to 6 of DeLong et al. letter by letter: psi is 1, 1/2 or 0 for every pair of cases."""
    areas, tens, ones = [], [], []
    for score in scores:
        gap = score[truth == 1][:, None] - score[truth == 0][None]
        psi = (gap > 0) + 0.5 * (gap == 0)
        areas.append(psi.mean())
        tens.append(psi.mean(axis=1))
        ones.append(psi.mean(axis=0))
    return np.array(areas), np.cov(tens) / len(tens[0]) + np.cov(ones) / len(ones[0])


def test_delong_is_the_pairwise_definition_also_with_ties() -> None:
    generator = np.random.default_rng(0)
    truth = (generator.random(60) < 0.3).astype(int)
    scores = np.stack([generator.normal(truth, 1.0), np.round(generator.normal(truth * 0.5, 1.0), 0)])
    areas, covariance = delong_covariance(truth, scores)
    expected_areas, expected = _slow_covariance(truth, scores)
    np.testing.assert_allclose(areas, expected_areas)
    np.testing.assert_allclose(covariance, expected)
    np.testing.assert_allclose(areas, auc_per_label(np.stack([truth] * 2, axis=1), scores.T))


def test_delong_p_values_are_uniform_where_the_areas_are_equal() -> None:
    generator = np.random.default_rng(1)
    found = []
    for _ in range(400):
        truth = np.arange(80) % 2
        shared = generator.normal(truth, 1.0)
        noise = generator.normal(size=(2, 80))
        found.append(delong_test(truth, shared + noise[0], shared + noise[1]).p_value)
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(np.array(found) < 0.5) == pytest.approx(0.5, abs=0.08)


def test_delong_at_its_ends() -> None:
    truth = np.array([0, 0, 0, 1, 1])
    same = delong_test(truth, truth + 0.0, truth * 2.0)
    assert (same.difference, same.p_value) == (0.0, 1.0)
    opposite = delong_test(truth, truth + 0.0, -truth + 0.0)
    assert (opposite.difference, opposite.p_value) == (1.0, 0.0)
    assert np.isnan(delong_test([0, 0, 1], [0.1, 0.5, 0.3], [0.2, 0.3, 0.4]).p_value)
    with pytest.raises(ValueError, match="0 positive and 2 negative"):
        delong_covariance([0, 0], [0.1, 0.2])


def test_interval_holds_the_area_and_narrows_with_more_cases() -> None:
    generator = np.random.default_rng(2)
    widths = []
    for count in (50, 800):
        truth = np.arange(count) % 2
        area, low, high = delong_interval(truth, generator.normal(truth, 1.0))
        assert 0 < low < area < high < 1
        widths.append(high - low)
    assert widths[1] < widths[0] / 3
    assert np.isnan(delong_interval([0, 1], [0.0, 1.0])[1])
