"""Synthetic axons as cases: what the readers would give, the same for the same parameters."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from envs.axon.preparation import polarity_of
from medray.data.sources import open_source
from medray.data.traces import centrelines_of, centrelines_problem, picture_of
from medray.errors import UserError


def test_images_are_as_png_files_give_them_and_lines_lie_on_them() -> None:
    for case in open_source("phantom:axons?n=3&seed=1&size=96").cases:
        image = case.volume("image")
        assert (image.array.dtype, image.array.shape) == (np.uint8, (1, 96, 96))
        (branch,) = centrelines_of(case).branches
        along = map_coordinates(picture_of(image), [branch.points[:, 1], branch.points[:, 0]], order=1)
        assert along.mean() > 3 * np.median(image.array)
        assert not centrelines_problem(case, (96, 96))
        assert case.attributes["branches"] == "1"


def test_an_image_depends_on_its_number_and_the_seed_alone() -> None:
    few, many, other = (open_source(f"phantom:axons?size=64&{query}").cases for query in ("n=2", "n=5", "n=2&seed=1"))
    np.testing.assert_array_equal(few[1].volume("image").array, many[1].volume("image").array)
    assert (few[1].volume("image").array != other[1].volume("image").array).any()
    prints = {case.fields[name].fingerprint() for case in (*many, *other) for name in case.fields}
    assert len(prints) == 7


def test_settings_look_different() -> None:
    spread = {
        name: np.mean([case.volume("image").array.std() for case in open_source(f"phantom:axons?n=4&{query}").cases])
        for name, query in (("SI", "setting=SI"), ("SI-RC", "setting=SI-RC"), ("SI-W", "setting=SI-W"))
    }
    assert spread["SI-RC"] < spread["SI"] < spread["SI-W"]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("n=0", "n must be at least 1"),
        ("size=20", "size must be at least 48 px"),
        ("setting=MI", "setting=MI is not one of SI, SI-RC"),
    ],
)
def test_bad_parameters_are_a_sentence(query: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_source(f"phantom:axons?{query}")


@pytest.mark.parametrize("setting", ["SI", "SI-EN", "SI-SN", "shifted"])
def test_structures_are_seen_to_be_bright(setting: str) -> None:
    """An axon covers a hundredth of an image, noise the rest."""
    cases = open_source(f"phantom:axons?n=6&setting={setting}").cases
    assert {polarity_of(picture_of(case.volume("image"))) for case in cases} == {"bright"}
