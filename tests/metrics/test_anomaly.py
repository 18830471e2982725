"""Pooled ROC analysis by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from medray.metrics.anomaly import ScoreCounts, threshold_at_fpr


def counts(scores: list[float], lesion: list[int]) -> ScoreCounts:
    return ScoreCounts.of(np.array(scores), np.array(lesion), np.ones(len(scores)))


def test_auc_by_hand() -> None:
    assert counts([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]).auc() == pytest.approx(1.0)
    assert counts([0.1, 0.2, 0.3, 0.4], [1, 1, 0, 0]).auc() == pytest.approx(0.0)
    assert counts([0.2, 0.2, 0.2, 0.2], [0, 1, 0, 1]).auc() == pytest.approx(0.5)  # ties count half
    assert counts([0.1, 0.3, 0.2, 0.4], [0, 0, 1, 1]).auc() == pytest.approx(0.75)  # 3 of 4 pairs in order


def test_auc_agrees_with_scikit_learn_and_adds_up_over_cases() -> None:
    random = np.random.default_rng(0)
    lesion = random.random(4000) < 0.2
    scores = np.clip(random.normal(0.3 + 0.1 * lesion, 0.15), 0, None)
    parts = [ScoreCounts.of(scores[p], lesion[p], np.ones(2000)) for p in (slice(2000), slice(2000, None))]
    pooled = parts[0] + parts[1]
    assert pooled.auc() == pytest.approx(roc_auc_score(lesion, scores), abs=1e-3)
    assert pooled.auc() != pytest.approx((parts[0].auc() + parts[1].auc()) / 2, abs=1e-5)


def test_only_pixels_under_the_mask_count() -> None:
    found = ScoreCounts.of(np.array([0.1, 0.9, 0.9]), np.array([0, 1, 0]), np.array([1, 1, 0]))
    assert found.auc() == pytest.approx(1.0)
    assert found.counts.sum() == 2


def test_youden_and_dice_by_hand() -> None:
    found = counts([0.1, 0.1, 0.6, 0.5, 0.7, 0.05], [0, 0, 0, 1, 1, 1])
    threshold, fpr, fnr = found.youden()
    assert 0.1 < threshold <= 0.5
    assert (fpr, fnr) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert found.dice(0.3) == pytest.approx(2 * 2 / (3 + 3))
    assert found.dice(0.65) == pytest.approx(2 * 1 / (1 + 3))


def test_nothing_to_find_is_nan_not_0() -> None:
    healthy = counts([0.1, 0.2], [0, 0])
    assert np.isnan(healthy.auc())
    assert np.isnan(healthy.dice(0.9))
    assert healthy.dice(0.15) == 0.0


@pytest.mark.parametrize(("limit", "expected"), [(0.01, 0.99), (0.05, 0.95), (0.10, 0.90), (0.0, 1.0)])
def test_threshold_by_hand(limit: float, expected: float) -> None:
    scores = np.arange(1, 101) / 100
    assert threshold_at_fpr(np.random.default_rng(0).permutation(scores), limit) == expected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0, 0.99))
def test_threshold_keeps_the_limit_and_no_smaller_score_does(scores: list[float], limit: float) -> None:
    values = np.array(scores)
    found = threshold_at_fpr(values, limit)
    assert (values > found).mean() <= limit + 1e-9
    smaller = values[values < found]
    if len(smaller):
        assert (values > smaller.max()).mean() > limit - 1e-9


def test_a_threshold_needs_scores() -> None:
    with pytest.raises(ValueError, match="0 scores"):
        threshold_at_fpr(np.zeros(0), 0.05)
