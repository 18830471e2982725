"""The fundus phantom: classes differ in counts, not in color."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medray.data.phantoms import fundus
from medray.data.sources import open_source
from medray.errors import UserError


def test_eyes_do_not_depend_on_how_many_there_are_or_on_the_seed_alone() -> None:
    few, many = fundus.cases(n=2, seed=1), fundus.cases(n=5, seed=1)
    for one, same in zip(few, many, strict=False):
        assert one.fields["image"].fingerprint() == same.fields["image"].fingerprint()
        np.testing.assert_array_equal(one.volume("image").array, same.volume("image").array)
    other = fundus.cases(n=1, seed=2)[0].volume("image").array
    assert (other != few[0].volume("image").array).any()
    assert other.dtype == np.uint8
    assert other.shape == (3, 64, 64)


def _eye(severity: float, index: int = 0, disease: fundus.Disease = "dr") -> fundus.Eye:
    return fundus.Eye(seed=0, index=index, disease=disease, severity=severity, size=64, noise=0.0)


def test_an_eye_has_the_same_colors_in_sickness_and_in_health() -> None:
    for index in range(5):
        sick, well = (fundus.FundusField(_eye(severity, index)).load().array.astype(int) for severity in (1.0, 0.0))
        assert (sick != well).any(axis=0).mean() > 0.05
        for channel in range(3):  # sorted: the histograms; what is left comes from the uneven light
            assert np.abs(np.sort(sick[channel].ravel()) - np.sort(well[channel].ravel())).mean() < 1.0


@pytest.mark.parametrize("disease", ["dr", "amd", "glaucoma"])
def test_lesion_areas_are_equal_to_the_pixel_and_their_numbers_are_not(disease: fundus.Disease) -> None:
    rows, columns = np.meshgrid(*[np.linspace(-1, 1, 64)] * 2, indexing="ij")
    retina = rows**2 + columns**2 < 0.9
    areas, counts = set(), []
    for severity in (0.0, 0.5, 1.0):
        eye = _eye(severity, 3, disease)
        masks = fundus._lesions(eye, np.hypot(rows, columns), np.array([0.0, 0.5]), retina, np.zeros_like(retina))
        areas.add(tuple(int(mask.sum()) for mask in masks.values()))
        counts.append(ndimage.label(next(iter(masks.values())))[1])
    assert len(areas) == 1
    assert counts == sorted(counts, reverse=disease == "glaucoma")
    assert min(counts) <= 6
    assert max(counts) >= 12


def test_grades_share_and_sizes() -> None:
    graded = fundus.cases(n=10, grades=True)
    assert [case.attributes["class"] for case in graded] == list("0123401234")
    tail = fundus.cases(n=100, disease="amd", positive=0.15)
    assert sum(case.attributes["class"] == "amd" for case in tail) == 15
    assert {case.volume("image").shape for case in fundus.cases(n=12, mixed=True)} == {(64, 64), (96, 96), (128, 128)}


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("size=20", "at least 48"),
        ("positive=2", r"\[0, 1\]"),
        ("grades=1&disease=amd", "grades are those of dr"),
        ("disease=cataract", "dr, amd, glaucoma"),
    ],
)
def test_parameters_out_of_range(query: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_source(f"phantom:fundus?{query}")
