"""The brain phantom in two modalities: kinds and shares, labels that agree with classes, who shows what where."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from medray.data.case import Case
from medray.data.check import check_cases
from medray.data.phantoms import brain_multimodal as brain
from medray.data.sources import open_source
from medray.data.splits import split_by_patient
from medray.errors import UserError


def _array(case: Case, name: str) -> NDArray[np.float64]:
    return np.asarray(case.volume(name).array[0], dtype=np.float64)


def test_shares_of_the_pool_and_balanced_other_sets() -> None:
    splits = split_by_patient(open_source("phantom:brain_multimodal?n=600&validation=30&test=60").cases)
    pool = Counter(case.attributes["kind"] for case in splits.train)
    for kind, share in brain.SHARES.items():
        assert pool[kind] == pytest.approx(600 * share, abs=6)
    assert Counter(case.attributes["kind"] for case in splits.validation) == {"A": 10, "B": 10, "C": 10}
    assert Counter(case.attributes["kind"] for case in splits.test) == {"A": 20, "B": 20, "C": 20}
    every = [*splits.train, *splits.validation, *splits.test]
    assert len({case.patient for case in every}) == len({case.id for case in every}) == 690


def test_few_scans_have_the_rare_kinds_too() -> None:
    assert all({case.attributes["kind"] for case in brain.cases(n=40, seed=s)} == set("ABC") for s in range(20))


@pytest.mark.parametrize("size", [32, 64])
def test_the_checks_pass_and_classes_are_what_the_label_map_shows(size: int) -> None:
    cases = brain.cases(n=120, validation=30, test=30, size=size)
    good, bad = check_cases(cases, required=("image", "auxiliary", "label"), spatial_dims=2, known_labels=(1, 2, 4))
    assert (len(good), bad) == (180, ())
    for case in cases:
        present = set(np.unique(case.volume("label").array)) - {0}
        names = case.attributes["classes"].split(";")
        assert present == {value for name, value in brain.LABELS.items() if name in names}, case.id
    for kind in brain.SHARES:
        assert len({case.attributes["classes"] for case in cases if case.attributes["kind"] == kind}) >= 2


def test_kinds_show_in_the_modalities_as_they_should() -> None:
    """Contrast of the whole lesion to the rest of the brain in noise-free scans, in the units of the table."""
    strongest: dict[tuple[str, str], list[float]] = {}
    for case in brain.cases(n=1, validation=0, test=45, noise=0.0, texture=0.0, bias=0.0):
        label, inside = _array(case, "label") > 0, _array(case, "image") > 0
        for name in ("image", "auxiliary"):
            image = _array(case, name)
            middle = np.median(image[inside & ~label])
            strongest.setdefault((case.attributes["kind"], name), []).append(
                float(np.abs(np.quantile(image[label], (0.05, 0.95)) - middle).max() / 1000)
            )
    mean = {key: float(np.mean(values)) for key, values in strongest.items()}
    assert mean["A", "image"] > 0.3 > mean["C", "image"] > 0.05
    assert mean["A", "image"] > mean["B", "image"] > 0.05
    assert min(mean[kind, "auxiliary"] for kind in brain.SHARES) > 0.3


def test_c_lies_elsewhere_and_is_small() -> None:
    heights: dict[str, list[float]] = {"A": [], "B": [], "C": []}
    pixels: dict[str, list[int]] = {"A": [], "B": [], "C": []}
    for case in brain.cases(n=1, validation=0, test=60):
        where = np.argwhere(_array(case, "label") > 0)
        heights[case.attributes["kind"]].append(float(where[:, 1].mean()))
        pixels[case.attributes["kind"]].append(len(where))
    assert max(heights["C"]) < min(heights["A"] + heights["B"])
    assert max(pixels["C"]) < np.median(pixels["B"]) < np.median(pixels["A"])


def test_near_copies_are_closer_than_other_scans() -> None:
    pool = [case for case in brain.cases(n=150, noise=0.0) if case.attributes["split"] == "train"]
    templates: dict[int, list[Case]] = {}
    for case in pool:
        templates.setdefault(case.fields["image"].scan.template, []).append(case)  # type: ignore[attr-defined]
    own = templates.pop(-1)
    assert len(templates) == 20
    assert len(own) == pytest.approx(0.2 * 150 + 0.25 * 0.8 * 150, abs=15)
    pairs = [couple for group in templates.values() for couple in pairwise(group)]
    overlaps = [_dice(_array(a, "label") > 0, _array(b, "label") > 0) for a, b in pairs]
    assert min(overlaps) > 0.6
    assert np.mean(overlaps) > 0.85
    assert all(a.attributes["classes"] == b.attributes["classes"] for a, b in pairs)
    assert all((_array(a, "image") != _array(b, "image")).any() for a, b in pairs)
    assert np.mean([_dice(_array(a, "label") > 0, _array(b, "label") > 0) for a, b in pairwise(own)]) < 0.4
    free = brain.cases(n=50, duplicates=0.0)
    assert all(case.fields["image"].scan.template == -1 for case in free)  # type: ignore[attr-defined]


def _dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def test_a_scan_does_not_depend_on_how_many_there_are_and_survives_pickling() -> None:
    few, many = brain.cases(n=3, seed=4, validation=1, test=1), brain.cases(n=9, seed=4, validation=2, test=1)
    same = {case.id: case for case in many}
    for case in few:
        again = pickle.loads(pickle.dumps(same[case.id]))
        assert case.attributes == again.attributes
        for name in ("image", "auxiliary", "label"):
            np.testing.assert_array_equal(case.volume(name).array, again.volume(name).array)
    other = brain.cases(n=1, seed=5)[0]
    assert (other.volume("image").array != few[0].volume("image").array).any()
    prints = {case.fields[name].fingerprint() for case in many for name in case.fields}
    assert len(prints) == 3 * len(many)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("size=16", "at least 32"),
        ("noise=1.5", r"noise must lie in \[0, 1\)"),
        ("duplicates=2", "share"),
        ("n=0", "n "),
    ],
)
def test_parameters_out_of_range(query: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_source(f"phantom:brain_multimodal?{query}")
