import pytest

from medray.data.case import Case
from medray.errors import UserError
from medray.systems.shoulder.vrn_labels import CLASSES, class_of, class_problems, classes_of


@pytest.mark.parametrize(
    ("text", "name"),
    [("None", "none"), ("normal", "none"), ("no tear", "none"), ("Partial-thickness tear", "partial"),
     ("small", "small"), ("MEDIUM tear", "medium"), ("Large-to-Massive", "large"), ("massive", "large"),
     ("3", "medium"),
     ("medium-sized", "medium")],
)  # fmt: skip
def test_other_names_for_a_class(text, name):
    assert CLASSES[class_of(text)] == name


@pytest.mark.parametrize("text", ["", "tear", "huge", "5", "grade 2"])
def test_other_texts_are_no_class(text):
    assert class_of(text) is None


def test_cases_without_a_known_class_are_told():
    cases = [Case("a", "a", {}, {"class": "small"}), Case("b", "b", {}, {"class": "huge"}), Case("c", "c", {})]
    told = {bad.case: bad.reason for bad in class_problems(cases)}
    assert set(told) == {"b", "c"}
    assert "'huge'" in told["b"]
    assert "missing" in told["c"]
    with pytest.raises(UserError, match="case b"):
        classes_of(cases)
    assert classes_of(cases[:1]).tolist() == [2]
