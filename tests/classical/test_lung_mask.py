"""Lung masks: agreement with the phantom's, what is done where nothing can be told, real films."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.transform import resize

from medray.classical import lung_mask as module
from medray.classical.lung_mask import LungMaskOf, lung_mask, with_lung_masks
from medray.data.case import Case, Volume
from medray.data.check import check_cases
from medray.data.modalities import ModalReader
from medray.data.phantoms import chest_xray
from medray.data.sources import open_source
from medray.errors import UserError


def _dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


@pytest.mark.parametrize("size", [64, 160])
def test_agreement_with_the_drawn_lungs(size: int) -> None:
    overlaps = []
    for case in chest_xray.cases(n=16, validation=0, test=0, size=size):
        found = lung_mask(case.volume("image").array[0])
        overlaps.append(_dice(found, case.volume("auxiliary").array[0] > 0))
    assert np.mean(overlaps) > 0.88
    assert min(overlaps) > 0.8


def test_lungs_are_found_where_they_are() -> None:
    """The same film moved down by 5 % and to the left by 4 %: so does the mask."""
    film = chest_xray.cases(n=1, validation=0, test=0, size=200)[0].volume("image").array[0]
    moved = np.pad(film, ((10, 0), (0, 8)), mode="edge")[:-10, 8:]
    before, after = lung_mask(film), lung_mask(moved)
    expected = np.pad(before, ((10, 0), (0, 8)))[:-10, 8:]
    assert _dice(after, expected) > 0.93 > _dice(before, expected) + 0.03


def test_brightness_and_contrast_do_not_matter() -> None:
    film = chest_xray.cases(n=1, validation=0, test=0)[0].volume("image").array[0].astype(np.float64)
    np.testing.assert_array_equal(lung_mask(film), lung_mask(7.0 * film - 300.0))


def test_a_film_that_shows_nothing_gets_the_typical_lungs() -> None:
    found = lung_mask(np.full((90, 120), 7, dtype=np.uint8))
    typical = resize(module._outline(module._TYPICAL).max(axis=0), (90, 120)) > 0
    assert found.shape == (90, 120)
    assert _dice(found, typical) > 0.7


def test_masks_as_auxiliary_images() -> None:
    plain = [Case(case.id, case.patient, {"image": case.fields["image"]}) for case in chest_xray.cases(n=4, test=0)]
    cases = with_lung_masks(plain)
    assert check_cases(cases[:4], required=("image", "auxiliary"), spatial_dims=2)[1] == ()
    again = pickle.loads(pickle.dumps(cases[0]))
    np.testing.assert_array_equal(again.volume("auxiliary").array, cases[0].volume("auxiliary").array)
    assert cases[0].fields["auxiliary"].fingerprint().endswith(module.METHOD)
    assert set(np.unique(ModalReader(32).image(cases[0], "auxiliary"))) >= {0.0, 1.0}
    assert with_lung_masks(cases) == cases
    with pytest.raises(ValueError, match=r"\(3, 4, 5\)"):
        lung_mask(np.zeros((3, 4, 5)))


class _Stack:
    def load(self) -> Volume:
        return Volume(np.zeros((1, 4, 4, 4)), np.eye(4), source="stack.nii")

    def fingerprint(self) -> str:
        return ""


def test_a_volume_is_no_radiograph() -> None:
    with pytest.raises(UserError, match=r"stack\.nii is no 2D image"):
        LungMaskOf(_Stack()).load()


@pytest.mark.real_data
def test_real_films(real_data: Path) -> None:
    if not (real_data / "chest_xray").is_dir():
        pytest.skip(f"{real_data} has no chest_xray")
    source = open_source(str(real_data / "chest_xray"))
    assert {case.attributes["class"] for case in source.cases} == {"covid", "normal", "pneumonia"}
    darker = []
    for case in with_lung_masks(source.cases[::30]):
        mask, film = case.volume("auxiliary").array[0] > 0, case.volume("image").array[0].astype(float)
        assert mask.shape == film.shape
        halves = mask[:, : mask.shape[1] // 2].mean(), mask[:, mask.shape[1] // 2 :].mean()
        assert min(halves) > 0.03
        assert max(halves) < 0.6
        middle = film[mask.any(axis=1)][:, 112:144]
        darker.append(film[mask].mean() < middle.mean())
    assert np.mean(darker) > 0.9
