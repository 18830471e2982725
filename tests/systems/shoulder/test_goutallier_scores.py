import pytest

from medray.systems.shoulder.goutallier_claim import judge
from medray.systems.shoulder.goutallier_scores import classification_scores, fold_scores, joined, with_intervals


def test_scores_by_hand():
    """Threshold .5: one of two risky found, two of three others cleared; pairs in order 5 of 6."""
    found = classification_scores([1, 1, 0, 0, 0], [0.9, 0.4, 0.1, 0.2, 0.6])
    assert found["sensitivity"] == 0.5
    assert found["specificity"] == pytest.approx(2 / 3)
    assert found["accuracy"] == 0.6
    assert found["auroc"] == pytest.approx(5 / 6)
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)


def test_without_a_class_its_scores_are_undefined_and_left_out():
    found = classification_scores([0, 0], [0.1, 0.9])
    assert found["sensitivity"] != found["sensitivity"]
    assert found["auroc"] != found["auroc"]
    assert found["specificity"] == 0.5


def rows():
    dice = (("a", 0, 0.8), ("b", 0, 0.9), ("c", 1, 1.0), ("d", 1, 0.9), ("e", 1, 0.8))
    outlined = [{"case": name, "fold": fold, "dice": value, "pixel_accuracy": 1.0} for name, fold, value in dice]
    answers = (("a", 0, 1, 0.8), ("b", 0, 0, 0.2), ("c", 1, 1, 0.6), ("d", 1, 0, 0.7))
    asked = [
        {"case": name, "fold": fold, "risky": risky, "probability_risky": score} for name, fold, risky, score in answers
    ]
    return joined(outlined, asked)


def test_a_fold_is_scored_on_the_cases_each_step_is_about():
    first, second = fold_scores(rows())
    assert (first["num_cases"], first["num_risky"], first["dice"]) == (2.0, 1.0, pytest.approx(0.85))
    assert second["num_cases"] == 2.0  # e has no grade that is asked about
    assert second["dice"] == pytest.approx(0.9)
    assert (first["auroc"], second["auroc"]) == (1.0, 0.0)


def test_means_have_students_interval_cut_off_at_0_and_1():
    found = with_intervals([{"num_risky": 4, "auroc": value} for value in (0.90, 0.92, 0.94, 0.96, 0.98)])
    half = 2.776445 * 0.0316228 / 5**0.5  # t(4) s / sqrt(5)
    assert found["cv_auroc"] == pytest.approx(0.94)
    assert found["cv_auroc_low"] == pytest.approx(0.94 - half, abs=1e-5)
    assert found["cv_auroc_high"] == pytest.approx(0.94 + half, abs=1e-5)
    assert found["cv_num_risky_least"] == 4
    assert with_intervals([{"num_risky": 4, "auroc": value} for value in (0.5, 1.0)])["cv_auroc_high"] == 1.0


def folds(**scores):
    """Two folds of every arm, good by default; some scores changed."""
    made = []
    for arm in ("goutallier", "manual_roi", "full_image", "no_balance"):
        for fold in (0, 1):
            row = {
                "variant": arm,
                "fold": float(fold),
                "dice": 0.95,
                "auroc": 0.98,
                "sensitivity": 0.9,
                "specificity": 0.97,
            }
            row["auroc"] -= 0.1 * (arm == "full_image")
            row["sensitivity"] -= 0.2 * (arm == "no_balance")
            made.append(row | scores.get(arm, {}))
    return made


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({}, []),
        ({"goutallier": {"dice": 0.89}}, ["dice"]),
        ({"manual_roi": {"auroc": 0.999}}, []),
        ({"manual_roi": {"auroc": 1.001}}, ["auroc_goutallier_minus_manual_roi"]),
        ({"full_image": {"auroc": 0.98}}, ["auroc_goutallier_minus_full_image"]),
        ({"no_balance": {"sensitivity": 0.9}}, ["sensitivity_goutallier_minus_no_balance"]),
        ({"no_balance": {"specificity": 1.03}}, ["specificity_goutallier_minus_no_balance"]),
    ],
)
def test_each_part_of_the_claim_can_fail_by_itself(change, failed):
    assert [check.name for check in judge(folds(**change)) if not check.held] == failed
