import numpy as np
import pytest
from sklearn import metrics

from medray.metrics.ordered import (
    NAMES,
    flat,
    median_quartiles,
    ordered_intervals,
    ordered_scores,
    repeated_scores,
)

TRUTH = [0, 0, 1, 2, 3, 4]
PREDICTED = [0, 1, 0, 2, 4, 2]


def test_scores_by_hand():
    found = ordered_scores(TRUTH, PREDICTED)
    assert found["top1"] == pytest.approx(2 / 6)
    assert found["top1_within_1"] == pytest.approx(5 / 6)  # only large called small is two away
    assert found["binary_accuracy"] == pytest.approx(4 / 6)
    assert found["sensitivity"] == pytest.approx(3 / 4)
    assert found["specificity"] == pytest.approx(1 / 2)
    assert found["precision"] == pytest.approx(3 / 4)
    assert found["f1"] == pytest.approx(3 / 4)


def test_binary_scores_are_scikit_learns():
    random = np.random.default_rng(0)
    truth, predicted = random.integers(0, 5, (2, 200))
    found, ill, called = ordered_scores(truth, predicted), truth > 0, predicted > 0
    assert found["sensitivity"] == pytest.approx(metrics.recall_score(ill, called))
    assert found["specificity"] == pytest.approx(metrics.recall_score(ill, called, pos_label=0))
    assert found["precision"] == pytest.approx(metrics.precision_score(ill, called))
    assert found["f1"] == pytest.approx(metrics.f1_score(ill, called))
    assert found["top1"] == pytest.approx(metrics.accuracy_score(truth, predicted))


def test_the_decision_against_health_may_differ_from_the_likeliest_class():
    found = ordered_scores([1, 0], [0, 0], diseased=[True, False])
    assert (found["top1"], found["binary_accuracy"], found["sensitivity"]) == (0.5, 1.0, 1.0)


def test_what_is_not_defined_is_nan():
    found = ordered_scores([0, 0], [0, 0])
    assert np.isnan([found[name] for name in ("sensitivity", "precision", "f1")]).all()
    assert found["specificity"] == 1.0


@pytest.mark.parametrize(("truth", "predicted"), [([], []), ([0, 1], [0]), ([[0]], [[0]])])
def test_shapes_that_do_not_fit_are_refused(truth, predicted):
    with pytest.raises(ValueError, match="cases"):
        ordered_scores(truth, predicted)


def test_intervals_hold_their_value_and_narrow_with_cases():
    few = ordered_intervals(TRUTH * 5, PREDICTED * 5, num_resamples=300)
    many = ordered_intervals(TRUTH * 50, PREDICTED * 50, num_resamples=300)
    assert set(few) == set(NAMES)
    for name in NAMES:
        value, low, high = few[name]
        assert low < value < high
        assert many[name][2] - many[name][1] < high - low


def test_intervals_draw_the_cases_of_a_patient_together():
    alone = ordered_intervals(TRUTH * 5, PREDICTED * 5, num_resamples=300)
    together = ordered_intervals(TRUTH * 5, PREDICTED * 5, groups=list(range(6)) * 5, num_resamples=300)
    same = ordered_intervals(TRUTH * 5, PREDICTED * 5, groups=["a"] * 30, num_resamples=20)
    assert together["top1"][2] - together["top1"][1] > alone["top1"][2] - alone["top1"][1]
    assert same["top1"] == pytest.approx((2 / 6,) * 3)


def test_repetitions_one_by_one():
    found = repeated_scores([0, 3], np.array([[0, 3], [1, 3], [2, 1]]))
    assert found["top1"] == [1.0, 0.5, 0.0]
    assert found["top1_within_1"] == [1.0, 1.0, 0.0]


def test_median_and_quartiles():
    assert median_quartiles([1.0, 2.0, float("nan"), 3.0, 4.0, 5.0]) == (3.0, 2.0, 4.0)
    assert np.isnan(median_quartiles([])).all()


def test_flat_names():
    assert flat({"top1": (0.5, 0.4, 0.6)}, ("low", "high")) == {"top1": 0.5, "top1_low": 0.4, "top1_high": 0.6}
