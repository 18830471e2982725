"""Patients are never shared between roles, and the split is the same everywhere."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medray.data.case import Case
from medray.data.splits import folds_by_patient, split_by_patient, splits_from_json, splits_to_json
from medray.errors import UserError


def _cases(patients: int, per_patient: int = 1, **attributes: str) -> list[Case]:
    return [
        Case(f"{modality}/p{p:02d}", f"p{p:02d}", {}, attributes)
        for modality in range(per_patient)
        for p in range(patients)
    ]


def test_counts_by_hand() -> None:
    splits = split_by_patient(_cases(10, 2))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (12, 2, 6)
    splits = split_by_patient(_cases(8), validation=0.1, test=0.25)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (5, 1, 2)


def test_two_patients_train_on_one_and_test_on_the_other() -> None:
    splits = split_by_patient(_cases(2, 3), test=0.1)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (3, 0, 3)


def test_pinned_order() -> None:
    # recorded once: a change would move patients of finished runs between training and test
    splits = split_by_patient(_cases(6), validation=0.2, test=0.3, seed=0)
    assert splits_to_json(splits) == {
        "train": ["0/p01", "0/p02", "0/p04"],
        "validation": ["0/p05"],
        "test": ["0/p00", "0/p03"],
    }


@given(st.integers(2, 30), st.integers(1, 3), st.floats(0, 0.4), st.floats(0, 0.6), st.integers(0, 5), st.randoms())
def test_disjoint_complete_and_independent_of_order(
    patients: int, per_patient: int, validation: float, test: float, seed: int, random: object
) -> None:
    cases = _cases(patients, per_patient)
    splits = split_by_patient(cases, validation=validation, test=test, seed=seed)
    groups = [{case.patient for case in part} for part in (splits.train, splits.validation, splits.test)]
    assert sum(len(group) for group in groups) == patients == len(set.union(*groups))
    assert len(splits.train) + len(splits.validation) + len(splits.test) == len(cases)
    assert splits.train
    assert bool(splits.test) == (test > 0)
    shuffled = list(cases)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = split_by_patient(shuffled, validation=validation, test=test, seed=seed)
    assert {case.id for case in again.test} == {case.id for case in splits.test}


def test_each_role_keeps_the_given_order() -> None:
    cases = _cases(12)[::-1]
    train = split_by_patient(cases).train
    assert [cases.index(case) for case in train] == sorted(cases.index(case) for case in train)


def test_seeds_differ() -> None:
    tests = {tuple(case.id for case in split_by_patient(_cases(20), seed=seed).test) for seed in range(5)}
    assert len(tests) == 5


def test_given_split_wins() -> None:
    cases = [
        Case(f"c{i}", f"p{i}", {}, {"split": split}) for i, split in enumerate(["train", "Val", "test", "training"])
    ]
    splits = split_by_patient(cases, test=0.9)
    assert splits_to_json(splits) == {"train": ["c0", "c3"], "validation": ["c1"], "test": ["c2"]}


def test_whole_source_as_test_set() -> None:
    splits = split_by_patient(_cases(1), validation=0, test=1, require_train=False)
    assert len(splits.test) == 1


@pytest.mark.parametrize(
    ("cases", "options", "sentence"),
    [
        ([], {}, "the data source holds no cases to split"),
        (_cases(1), {}, "the data source has 1 patient, too few to train and to test on different ones"),
        (_cases(3), {"test": 1.5}, r"split fractions validation=0\.1 and test=1\.5 must be"),
        (_cases(3, split="holdout"), {}, "case 0/p00 has the split 'holdout'; known are train, validation and test"),
        (_cases(3, split="test"), {}, "no patient has the split train; nothing to train on"),
        ([*_cases(1, split="train"), Case("x", "p9", {})], {}, "case x has no split while others have one"),
        (
            [*_cases(1, split="train"), Case("x", "p00", {}, {"split": "test"})],
            {},
            "patient p00 is in both train and test; a patient has one split",
        ),
    ],
)
def test_what_cannot_be_split(cases: list[Case], options: dict[str, float], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        split_by_patient(cases, **options)  # type: ignore[arg-type]


def test_recorded_split_comes_back() -> None:
    cases = _cases(7)
    splits = split_by_patient(cases, seed=3)
    recorded = json.loads(json.dumps(splits_to_json(splits)))
    assert splits_from_json(recorded, cases) == splits
    with pytest.raises(UserError, match=r"^case 0/p0\d.* of the recorded \w+ split is not in the data source any more"):
        splits_from_json(recorded, cases[:3])


def test_every_role_gets_its_share_of_every_stratum() -> None:
    cases = _cases(100)
    strata = {case.id: "rare" if int(case.patient[1:]) % 10 == 0 else "common" for case in cases}
    for seed in range(5):
        splits = split_by_patient(cases, validation=0.2, test=0.3, seed=seed, strata=strata)
        for part, expected in ((splits.train, 5), (splits.validation, 2), (splits.test, 3)):
            assert abs(sum(strata[case.id] == "rare" for case in part) - expected) <= 1


@given(st.integers(2, 9), st.integers(9, 40), st.integers(0, 3))
def test_folds_are_even_disjoint_and_complete(num_folds: int, patients: int, seed: int) -> None:
    cases = _cases(patients, 2)
    strata = {case.id: str(int(case.patient[1:]) % 3) for case in cases}
    folds = folds_by_patient(cases, num_folds, seed=seed, strata=strata)
    assert sorted(case.id for fold in folds for case in fold) == sorted(case.id for case in cases)
    owners = [{case.patient for case in fold} for fold in folds]
    assert sum(len(owner) for owner in owners) == patients
    assert max(map(len, owners)) - min(map(len, owners)) <= 1
    for stratum in "012":
        counts = [sum(strata[case.id] == stratum for case in fold) for fold in folds]
        assert max(counts) - min(counts) <= 4  # two patients of two cases


def test_a_single_patient_of_a_stratum_is_not_always_in_the_same_role() -> None:
    cases = _cases(10)
    strata = {case.id: "only" if case.patient == "p03" else "" for case in cases}
    tested = [
        "p03" in {case.patient for case in split_by_patient(cases, seed=seed, strata=strata).test} for seed in range(20)
    ]
    assert 0 < sum(tested) < 20


def test_more_folds_than_patients() -> None:
    with pytest.raises(UserError, match="4 patients cannot be cut into 5 folds"):
        folds_by_patient(_cases(4, 2), 5)
