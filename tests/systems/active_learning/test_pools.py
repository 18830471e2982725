"""From what a source found to the sets of a campaign."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from medray.active.answers import without_label
from medray.data.case import Case, Volume
from medray.errors import UserError
from medray.systems.active_learning import pools
from medray.systems.active_learning.mvaal_config import PRESETS, MvaalConfig
from medray.systems.active_learning.mvaal_system import Mvaal

SEGMENTATION = MvaalConfig(**PRESETS["smoke"].config)
CLASSES = MvaalConfig(**{**PRESETS["demo_chest"].config, "initial": 4})


@dataclass(frozen=True)
class Flat:
    """A 2D image of one value."""

    value: float = 1.0

    def load(self) -> Volume:
        return Volume(np.full((1, 4, 4), self.value, np.float32), np.eye(4))

    def fingerprint(self) -> str:
        return f"flat {self.value}"


def films(number: int, **attributes: Any) -> list[Case]:
    names = ("normal", "covid")
    return [
        Case(f"f{i:02d}", f"p{i:02d}", {"image": Flat(i)}, {"class": names[i % 2], **attributes}) for i in range(number)
    ]


def slices(patients: int, each: int, *, labelled: bool = True) -> list[Case]:
    fields: dict[str, Any] = {"image": Flat(), "label": Flat()} if labelled else {"image": Flat()}
    name = "known" if labelled else "open"
    return [Case(f"{name}{p}/z={z}", f"{name}{p}", fields) for p in range(patients) for z in range(each)]


def test_patients_are_never_on_two_sides() -> None:
    splits = pools.split_cases(slices(10, 5), SEGMENTATION, seed=0)
    sides = [{case.patient for case in side} for side in (splits.train, splits.validation, splits.test)]
    assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
    assert [len(side) for side in sides] == [6, 2, 2]


def test_who_has_no_label_can_only_be_asked_for() -> None:
    human = replace(SEGMENTATION, oracle="human")
    splits = pools.split_cases([*slices(5, 4), *slices(6, 4, labelled=False)], human, seed=0)
    assert all("label" in case.fields for case in (*splits.validation, *splits.test))
    assert sum("label" not in case.fields for case in splits.train) == 24
    begin = pools.initial_cases(splits.train, human, seed=0)
    assert set(begin) == {case.id for case in splits.train if "label" in case.fields}


def test_slices_of_a_patient_that_judges_are_not_asked_for() -> None:
    open_slices = [replace(case, id=f"{case.id}+", fields={"image": Flat()}) for case in slices(5, 1)]
    splits = pools.split_cases([*slices(5, 4), *open_slices], replace(SEGMENTATION, oracle="human"), seed=0)
    judges = {case.patient for case in (*splits.validation, *splits.test)}
    assert not judges & {case.patient for case in splits.train}


def test_the_simulated_oracle_is_not_asked_for_what_the_data_does_not_hold(caplog: pytest.LogCaptureFixture) -> None:
    several = replace(CLASSES, task="multi_label")
    known = [replace(case, attributes={"classes": "ET"}) for case in films(10)]
    unknown = Case("new", "new", {"image": Flat()})  # "none" would be said of it
    with caplog.at_level(logging.WARNING, logger="medray"):
        splits = pools.split_cases([*known, unknown], several, seed=0)
    assert unknown not in splits.train
    assert "1 of 11 cases have no label, new for one" in caplog.text
    human = replace(several, oracle="human", repeats=1)
    assert pools.split_cases([*known, unknown], human, seed=0).train[-1] is unknown


def test_a_test_case_without_a_label_is_not_asked_for() -> None:
    roles = ("train", "train", "validation", "test")
    known = [replace(case, attributes={"split": role}) for case, role in zip(slices(4, 1), roles, strict=True)]
    open_cases = [
        replace(case, attributes={"split": role})
        for case, role in zip(slices(3, 1, labelled=False), ("train", "validation", "Testing"), strict=True)
    ]
    splits = pools.split_cases([*known, *open_cases], replace(SEGMENTATION, oracle="human"), seed=0)
    assert splits.train == (*known[:2], open_cases[0])


def test_two_patients_validate_on_slices_of_the_one_that_trains(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="medray"):
        splits = pools.split_cases(slices(2, 30), SEGMENTATION, seed=0)
    assert "validate" in caplog.text
    assert {case.patient for case in splits.train} == {case.patient for case in splits.validation}
    assert not {case.id for case in splits.train} & {case.id for case in splits.validation}
    assert len(splits.validation) == 5
    assert len(splits.test) == 30


@pytest.mark.parametrize(
    ("cases", "said"),
    [(slices(3, 2, labelled=False), "no case has a label map"), (slices(1, 9), "1 of 1 patients has a label")],
)
def test_too_few_labels_are_one_sentence(cases: list[Case], said: str) -> None:
    with pytest.raises(UserError, match=said):
        pools.split_cases(cases, SEGMENTATION, seed=0)


def test_the_first_set_is_drawn_by_the_seed_alone() -> None:
    cases = films(40)
    first = pools.initial_cases(cases, CLASSES, seed=3)
    assert len(set(first)) == 4
    assert first == pools.initial_cases(cases, CLASSES, seed=3)
    assert first != pools.initial_cases(cases, CLASSES, seed=4)


def test_the_data_may_say_who_is_labelled_first() -> None:
    cases = [*films(20, labelled="no"), *(replace(case, id=f"{case.id}x") for case in films(6, labelled="yes"))]
    assert all(name.endswith("x") for name in pools.initial_cases(cases, CLASSES, seed=0))


def test_a_first_set_that_leaves_nothing_to_ask_is_refused() -> None:
    with pytest.raises(UserError, match="--initial asks for 4"):
        pools.initial_cases(films(4), CLASSES, seed=0)


def test_a_class_by_another_name_is_the_class() -> None:
    cases = [replace(case, attributes={"diagnosis": case.attributes["class"]}) for case in films(4)]
    assert [case.attributes["class"] for case in pools.arranged(cases, CLASSES)] == ["normal", "covid"] * 2


def test_lungs_are_computed_where_they_are_asked_for() -> None:
    found = pools.arranged(films(2), replace(CLASSES, auxiliary="lungs"))
    assert all("auxiliary" in case.fields for case in found)


def test_a_sampler_without_its_second_modality_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"no case has an auxiliary image, which the sampler mvaal.*--sampler vaal"):
        Mvaal(SEGMENTATION).required_fields(slices(2, 1), training=True)
    for config, training in ((SEGMENTATION, False), (replace(SEGMENTATION, sampler="vaal"), True)):
        assert Mvaal(config).required_fields(slices(2, 1), training=training) == ("image", "label")
    pools.want_auxiliary([*slices(1, 1), Case("a", "a", {"auxiliary": Flat()})], "mvaal")  # the checks name the others


def test_cases_without_a_class_are_named() -> None:
    cases = films(3)
    cases[1] = replace(cases[1], attributes={})
    assert [bad.case for bad in pools.unusable(cases, CLASSES, ())] == ["f01"]
    assert not pools.unusable(cases, replace(CLASSES, oracle="human", repeats=1), ())
    assert [bad.case for bad in pools.unusable(films(2), CLASSES, ("normal",))] == ["f01"]


def test_classes_come_from_the_cases() -> None:
    assert pools.class_names_of(films(4), CLASSES) == ("normal", "covid")
    several = replace(CLASSES, task="multi_label")
    cases = [replace(case, attributes={"classes": text}) for case, text in zip(films(2), ("ET;ED", "NCR"), strict=True)]
    assert pools.class_names_of(cases, several) == ("ED", "ET", "NCR")
    with pytest.raises(UserError, match="names its classes"):
        pools.class_names_of(films(2), several)


def test_picks_are_counted_by_kind_or_class() -> None:
    assert pools.mix_of([*films(5), Case("x", "x", {})]) == {"normal": 3, "covid": 2}


def test_a_sampler_is_not_told_the_class_by_the_name_of_a_folder() -> None:
    case = Case("a", "a", {"image": Flat(), "label": Flat()}, {"class": "covid", "folder": "covid", "site": "x"})
    seen = without_label(case)
    assert (set(seen.fields), seen.attributes) == ({"image"}, {"site": "x"})
