"""The Y-view phantom: the grade sets the fat in the supraspinatus and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medray.data.case import Case
from medray.data.check import check_cases
from medray.data.phantoms import shoulder_y
from medray.data.phantoms.shoulder_y import FAT, ViewField
from medray.data.sources import open_source
from medray.errors import UserError


class Shown(NamedTuple):
    """A case with its arrays, (size, size)."""

    case: Case
    grade: int
    image: NDArray[np.uint8]
    muscle: NDArray[np.bool_]
    fat: NDArray[np.bool_]

    @property
    def fraction(self) -> float:
        return float(self.fat.sum() / self.muscle.sum())


@pytest.fixture(scope="module")
def even() -> list[Shown]:
    found = []
    for case in shoulder_y.cases(n=100, even=True):
        image, muscle, fat = (case.volume(name).array[0] for name in ("image", "label", "fat"))
        found.append(Shown(case, int(case.attributes["grade"]), image, muscle > 0, fat > 0))
    return found


def test_grades_have_the_papers_mix() -> None:
    grades = Counter(case.attributes["grade"] for case in shoulder_y.cases(n=606))
    assert grades == pytest.approx({"0": 403, "1": 114, "2": 51, "3": 24, "4": 14}, abs=3)
    assert Counter(case.attributes["grade"] for case in shoulder_y.cases(n=50, even=True)) == pytest.approx(
        dict.fromkeys("01234", 10), abs=1
    )
    people = shoulder_y.cases(n=606)
    assert np.mean([case.attributes["sex"] == "M" for case in people]) == pytest.approx(333 / 606, abs=0.06)
    assert np.mean([int(case.attributes["age"]) for case in people]) == pytest.approx(55.1, abs=2)


def test_fat_in_the_muscle_follows_the_grade(even: list[Shown]) -> None:
    for grade, (mean, spread) in enumerate(FAT):
        found = [one.fraction for one in even if one.grade == grade]
        assert len(found) == pytest.approx(20, abs=1)
        assert np.mean(found) == pytest.approx(mean if grade else 0.01, abs=0.02)
        assert np.std(found) < 2 * spread
        assert np.std(found) > 0.3 * spread  # grades are no single number
    assert not any((one.fat & ~one.muscle).any() for one in even)  # fat only inside


def test_fat_is_brighter_than_the_muscle_around_it(even: list[Shown]) -> None:
    for one in [one for one in even if one.grade >= 2]:
        inner = ndimage.binary_erosion(one.muscle)
        assert one.image[inner & one.fat].mean() > 1.7 * one.image[inner & ~one.fat].mean()


def test_the_grade_changes_nothing_outside_the_muscle(even: list[Shown]) -> None:
    for one in even[:10]:
        field = one.case.fields["image"]
        assert isinstance(field, ViewField)
        low, high = (ViewField(replace(field.view, grade=grade), "image").load().array[0] for grade in (0, 4))
        near = ndimage.binary_dilation(one.muscle, iterations=2)
        np.testing.assert_array_equal(low[~near], high[~near])
        assert (low != high).any()


def test_bright_pixels_of_the_whole_image_say_little_about_the_grade(even: list[Shown]) -> None:
    bright = np.array([(one.image > 0.5 * np.percentile(one.image, 99)).mean() for one in even])
    low, high = (np.array([one.grade in grades for one in even]) for grades in ((0, 1), (3, 4)))
    wins = np.mean(bright[high][:, None] > bright[low])
    assert 0.3 < wins < 0.75  # an AUROC; of the fat in the muscle it is 1
    fractions = np.array([one.fraction for one in even])
    assert fractions[high].min() > fractions[low].max()


def test_the_muscle_is_one_oval_above_the_fork(even: list[Shown]) -> None:
    for one in even:
        assert ndimage.label(one.muscle)[1] == 1
        area = float(one.muscle.sum()) * (shoulder_y.FIELD_OF_VIEW_MM / 96) ** 2
        assert 250 < area < 1100  # mm2


def test_a_view_does_not_depend_on_how_many_there_are() -> None:
    one, other = shoulder_y.cases(n=1, seed=4)[0], shoulder_y.cases(n=3, seed=4)[0]
    np.testing.assert_array_equal(one.volume("image").array, other.volume("image").array)
    assert one.attributes == other.attributes
    assert one.volume("image").array.dtype == np.uint8
    names = {one.fields[name].fingerprint() for name in ("image", "label", "fat")}
    assert len(names) == 3
    assert check_cases(shoulder_y.cases(n=8), required=("image", "label"), spatial_dims=2)[1] == ()


@pytest.mark.parametrize(
    ("query", "sentence"), [("size=8", "at least 48"), ("n=0", "at least 1"), ("noise=-1", "noise")]
)
def test_parameters_out_of_range(query: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_source(f"phantom:shoulder_y?{query}")
