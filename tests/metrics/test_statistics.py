"""Paired differences with intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from medray.metrics.statistics import paired_bootstrap


def test_agrees_with_scipy_on_independent_cases() -> None:
    differences = np.random.default_rng(1).normal(0.3, 1.0, 40)
    mean, low, high = paired_bootstrap(differences)
    reference = stats.bootstrap((differences,), np.mean, method="percentile", rng=2).confidence_interval
    assert mean == pytest.approx(differences.mean())
    assert low == pytest.approx(reference.low, abs=0.03)
    assert high == pytest.approx(reference.high, abs=0.03)


def test_few_groups_that_disagree_widen_the_interval() -> None:
    differences = [0.0] * 20 + [1.0] * 20
    alone = paired_bootstrap(differences)
    grouped = paired_bootstrap(differences, groups=[0] * 20 + [1] * 20)
    assert grouped[2] - grouped[1] > 2 * (alone[2] - alone[1])


def test_missing_values_are_left_out_and_nothing_gives_nan() -> None:
    assert paired_bootstrap([0.5, float("nan"), 0.5]) == (0.5, 0.5, 0.5)
    assert all(math.isnan(value) for value in paired_bootstrap([float("nan")]))
