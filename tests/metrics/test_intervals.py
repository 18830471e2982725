"""Intervals and comparisons of groups: by hand, and against SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from medray.metrics.intervals import bootstrap_interval, kruskal_bonferroni, t_interval


def test_t_interval_of_five_folds_by_hand() -> None:
    # mean 3, standard deviation sqrt(2.5), t(.975, 4) = 2.776445: 2.776445 * sqrt(2.5 / 5) = 1.963243
    assert t_interval([1, 2, 3, 4, 5]) == pytest.approx((3.0, 1.036757, 4.963243), abs=1e-6)


def test_t_interval_agrees_with_scipy_at_another_level() -> None:
    values = np.random.default_rng(0).normal(0.9, 0.02, 7)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.8)
    assert t_interval(values.tolist(), 0.8) == pytest.approx((values.mean(), low, high))


def test_t_interval_covers_as_often_as_it_says() -> None:
    draws = np.random.default_rng(1).normal(2.0, 1.0, (2000, 5))
    covered = [low <= 2.0 <= high for _, low, high in map(t_interval, draws.tolist())]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)  # 3 standard errors


def test_few_values_have_no_interval() -> None:
    mean, low, high = t_interval([0.5, math.nan])
    assert mean == 0.5
    assert all(map(math.isnan, (low, high, *t_interval([]))))
    assert t_interval([0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_bootstrap_of_a_mean_agrees_with_scipy() -> None:
    values = np.random.default_rng(2).normal(0.3, 1.0, 40)
    value, low, high = bootstrap_interval(lambda chosen: float(values[chosen].mean()), 40)
    reference = stats.bootstrap((values,), np.mean, method="percentile", rng=3).confidence_interval
    assert value == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=0.04)


def test_bootstrap_of_a_pooled_ratio_is_not_a_mean_of_ratios() -> None:
    found, total = np.array([0.0, 90.0]), np.array([10.0, 90.0])
    value, low, high = bootstrap_interval(lambda chosen: float(found[chosen].sum() / total[chosen].sum()), 2)
    assert value == 0.9  # 90 of 100, where the two cases have 0 and 1
    assert (low, high) == (0.0, 1.0)


def test_cases_of_one_patient_are_drawn_together() -> None:
    patients = ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    seen: set[tuple[int, ...]] = set()

    def statistic(chosen: np.ndarray) -> float:
        seen.add(tuple(np.bincount(chosen, minlength=9)))
        return 0.0

    bootstrap_interval(statistic, 9, groups=patients, num_resamples=50)
    assert all(len(set(counts[start : start + 3])) == 1 for counts in seen for start in (0, 3, 6))
    assert len(seen) > 5


def test_equal_cases_of_few_patients_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(6).normal(size=8), 10)

    def width(groups: list[int] | None) -> float:
        _, low, high = bootstrap_interval(lambda chosen: float(values[chosen].mean()), 80, groups=groups)
        return high - low

    assert width(np.repeat(np.arange(8), 10).tolist()) > 2.5 * width(None)  # sqrt(10) in the limit


def test_draws_without_an_answer_are_left_out() -> None:
    truth = np.array([1, 0, 0])

    def share(chosen: np.ndarray) -> float:
        return float("nan") if not truth[chosen].any() else 0.5

    assert bootstrap_interval(share, 3) == (0.5, 0.5, 0.5)
    assert all(math.isnan(bound) for bound in bootstrap_interval(lambda chosen: math.nan, 3))
    assert all(math.isnan(bound) for bound in bootstrap_interval(lambda chosen: 1.0, 0))


def test_same_seed_same_interval() -> None:
    values = np.arange(10.0)
    first, second, other = (
        bootstrap_interval(lambda chosen: float(values[chosen].mean()), 10, seed=seed) for seed in (1, 1, 2)
    )
    assert first == second != other


def test_a_group_for_each_case() -> None:
    with pytest.raises(ValueError, match="each of 3 cases, got 2"):
        bootstrap_interval(lambda chosen: 0.0, 3, groups=["a", "b"])


def test_kruskal_wallis_by_hand() -> None:
    # Ranks 1-3, 4-6, 7-9: H = 12 / (9 * 10) * (6^2 + 15^2 + 24^2) / 3 - 3 * 10 = 7.2; chi2 with 2 degrees: exp(-3.6).
    # Each pair is separated completely: exact p = 2 / C(6, 3) = 0.1, times three pairs.
    found = kruskal_bonferroni({"a": [1, 2, 3], "b": [4, 5, 6], "c": [7, 8, 9]})
    assert found.statistic == pytest.approx(7.2)
    assert found.p_value == pytest.approx(math.exp(-3.6))
    assert found.pairwise == pytest.approx({("a", "b"): 0.3, ("a", "c"): 0.3, ("b", "c"): 0.3})


def test_corrected_p_below_5_percent_is_the_papers_1_67_percent() -> None:
    draw = np.random.default_rng(7)
    groups = {name: draw.normal(shift, 1, 30).tolist() for name, shift in (("x", 0), ("y", 0.6), ("z", 3))}
    found = kruskal_bonferroni(groups)
    for (first, second), p in found.pairwise.items():
        alone = stats.mannwhitneyu(groups[first], groups[second]).pvalue
        assert (p < 0.05) == (alone < 0.05 / 3)
        assert p <= 1


def test_equal_values_do_not_differ() -> None:
    found = kruskal_bonferroni({"a": [1, 1, math.nan], "b": [1, 1]})
    assert (found.statistic, found.p_value, found.pairwise) == (0.0, 1.0, {("a", "b"): 1.0})


@pytest.mark.parametrize(
    ("groups", "message"),
    [({"a": [1.0]}, "got 1, empty: "), ({"a": [1.0], "b": [math.nan], "c": []}, r"got 3, empty: \['b', 'c'\]")],
)
def test_groups_without_values_are_named(groups: dict[str, list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kruskal_bonferroni(groups)
