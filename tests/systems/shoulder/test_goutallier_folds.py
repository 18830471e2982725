import pytest

from medray.data.case import Case
from medray.errors import UserError
from medray.systems.shoulder.goutallier_config import GoutallierConfig
from medray.systems.shoulder.goutallier_folds import make_folds
from medray.systems.shoulder.goutallier_labels import grade_problems, is_risky


def cases(counts, per_patient=1):
    """So many patients of every grade, each with some images."""
    return [
        Case(f"g{grade}p{patient}/{image}", f"g{grade}p{patient}", {}, {"grade": str(grade)})
        for grade, count in enumerate(counts)
        for patient in range(count)
        for image in range(per_patient)
    ]


PAPER = (403, 114, 51, 24, 14)


def test_the_papers_folds_have_seven_or_eight_risky_cases_each():
    folds = make_folds(GoutallierConfig(), cases(PAPER), seed=0)
    risky = [sum(is_risky(case, "drop") is True for case in fold.held_out) for fold in folds]
    assert len(folds) == 5
    assert sum(risky) == 38
    assert set(risky) == {7, 8}


def test_every_case_is_held_out_once_and_no_patient_is_on_both_sides():
    given = cases((10, 10, 5, 10, 5), per_patient=3)
    folds = make_folds(GoutallierConfig(), given, seed=1)
    held_out = [case.id for fold in folds for case in fold.held_out]
    assert sorted(held_out) == sorted(case.id for case in given)
    for fold in folds:
        assert not {case.patient for case in fold.train} & {case.patient for case in fold.held_out}
        assert fold.selection == fold.held_out
        assert len(fold.cases) == len(given)


def test_nested_selection_takes_a_seventh_of_the_training_patients():
    folds = make_folds(GoutallierConfig(selection="nested"), cases((35, 35, 0, 35, 35)), seed=0)
    for fold in folds:
        parts = [{case.patient for case in part} for part in (fold.train, fold.selection, fold.held_out)]
        assert len(parts[0] | parts[1] | parts[2]) == sum(map(len, parts)) == 140
        assert len(parts[1]) == 16


def test_a_given_split_does_not_disturb_the_folds():
    given = [Case(case.id, case.patient, {}, {**case.attributes, "split": "train"}) for case in cases((9, 9, 0, 9, 9))]
    assert len(make_folds(GoutallierConfig(folds=1), given, seed=0)) == 1
    assert len(make_folds(GoutallierConfig(folds=3, selection="nested"), given, seed=0)) == 3


@pytest.mark.parametrize(
    ("counts", "config", "sentence"),
    [
        ((40, 0, 0, 2, 0), {}, r"^fold \d of 5 holds no case that is risky \(3-4\); use fewer folds"),
        ((0, 0, 9, 40, 9), {}, r"^fold 1 of 5 holds no case that is not risky \(0-1\); use"),
        ((1, 1, 0, 1, 1), {}, "4 patients cannot be cut into 5 folds"),
    ],
)
def test_folds_that_cannot_serve_are_one_sentence(counts, config, sentence):
    with pytest.raises(UserError, match=sentence):
        make_folds(GoutallierConfig(**config), cases(counts), seed=0)


def test_grade_two_is_left_out_or_on_either_side():
    case = Case("a", "a", {}, {"grade": "2"})
    assert [is_risky(case, how) for how in ("drop", "risky", "not_risky")] == [None, True, False]


def test_grades_are_checked():
    given = [Case(str(n), str(n), {}, {"grade": grade}) for n, grade in enumerate(["3", "2.0", " 1 ", "5", "mild"])]
    told = {bad.case: bad.reason for bad in grade_problems([*given, Case("x", "x", {}, {})])}
    assert set(told) == {"3", "4", "x"}
    assert told["3"] == "its grade '5' is none of Goutallier's, which are 0 to 4"
    assert "it has no grade" in told["x"]
