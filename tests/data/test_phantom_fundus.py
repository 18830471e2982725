"""The fundus phantom: classes differ in counts, not in color."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medray.data.phantoms import fundus
from medray.data.sources import open_source
from medray.errors import UserError


def _bright(image: np.ndarray) -> np.ndarray:
    """Pixels of exudate color: much green for their red, and not as bright as the optic disc."""
    return (image[1] > 125) & (image[2] < 95)


def test_eyes_do_not_depend_on_how_many_there_are_or_on_the_seed_alone() -> None:
    few, many = fundus.cases(n=2, seed=1), fundus.cases(n=5, seed=1)
    for one, same in zip(few, many, strict=False):
        assert one.fields["image"].fingerprint() == same.fields["image"].fingerprint()
        np.testing.assert_array_equal(one.volume("image").array, same.volume("image").array)
    other = fundus.cases(n=1, seed=2)[0].volume("image").array
    assert (other != few[0].volume("image").array).any()
    assert other.dtype == np.uint8
    assert other.shape == (3, 64, 64)


def test_classes_have_the_same_colors_in_another_arrangement() -> None:
    found: dict[str, list[tuple[int, int, float]]] = {"normal": [], "dr": []}
    for case in fundus.cases(n=40, noise=0.0):
        image = case.volume("image").array
        mask = _bright(image)
        found[case.attributes["class"]].append((int(mask.sum()), ndimage.label(mask)[1], float(image.mean())))
    areas, counts, means = (
        {name: np.array([row[column] for row in rows]) for name, rows in found.items()} for column in range(3)
    )
    assert areas["dr"].mean() == pytest.approx(areas["normal"].mean(), rel=0.05)
    assert means["dr"].mean() == pytest.approx(means["normal"].mean(), abs=1.5)
    assert counts["dr"].min() > counts["normal"].max()


@pytest.mark.parametrize("disease", ["dr", "amd", "glaucoma"])
def test_lesion_areas_are_equal_to_the_pixel(disease: fundus.Disease) -> None:
    areas = set()
    for severity in (0.0, 0.5, 1.0):
        eye = fundus.Eye(seed=0, index=3, disease=disease, severity=severity, size=64, noise=0.0)
        rows, columns = np.meshgrid(*[np.linspace(-1, 1, 64)] * 2, indexing="ij")
        retina = rows**2 + columns**2 < 0.9
        masks = fundus._lesions(eye, np.hypot(rows, columns), np.array([0.0, 0.5]), retina, np.zeros_like(retina))
        areas.add(tuple(int(mask.sum()) for mask in masks.values()))
    assert len(areas) == 1


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
