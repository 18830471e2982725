"""The ultrasound phantom: seeded, different hospitals, lesions that can be seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medray.data.phantoms.ultrasound import cases
from medray.data.sources import open_source
from medray.errors import UserError


def test_an_image_depends_on_its_seed_site_and_number_alone() -> None:
    few, many = cases(n=2, seed=3), cases(n=5, seed=3)
    same = {case.id: case for case in many}
    for case in few:
        assert np.array_equal(case.volume("image").array, same[case.id].volume("image").array)
    assert not np.array_equal(few[0].volume("image").array, cases(n=2, seed=4)[0].volume("image").array)


def test_hospitals_see_what_the_paper_gave_its_clients() -> None:
    seen = {
        site: {c.attributes["diagnosis"] for c in cases(n=40) if c.attributes["site"] == site}
        for site in ("north", "east", "south")
    }
    assert seen == {"north": {"benign", "normal"}, "east": {"malignant", "normal"}, "south": {"benign", "malignant"}}
    assert {c.attributes["scanner"] for c in cases(n=5) if c.attributes["site"] == "south"} == {"b"}


def test_without_skew_every_hospital_sees_everything() -> None:
    for site in ("north", "east", "south"):
        here = [c for c in cases(n=60, skew=0.0) if c.attributes["site"] == site]
        assert {c.attributes["diagnosis"] for c in here} == {"benign", "malignant", "normal"}
        assert {c.attributes["scanner"] for c in here} == {"a", "b"}


@pytest.mark.parametrize("size", [48, 96])
def test_lesions_are_one_piece_of_the_size_of_lesions_and_darker_than_around(size: int) -> None:
    for case in cases(n=10, size=size):
        image, lesion = (case.volume(name).array[0] for name in ("image", "label"))
        if case.attributes["diagnosis"] == "normal":
            assert not lesion.any()
            continue
        assert ndimage.label(lesion)[1] == 1
        assert 0.01 < lesion.mean() < 0.12
        around = ndimage.binary_dilation(lesion, iterations=size // 12) & (lesion == 0)
        beside = around & (np.indices(lesion.shape)[0] <= np.nonzero(lesion)[0].max())
        assert image[lesion > 0].mean() < image[beside].mean() - 10


def test_behind_benign_lesions_it_is_brighter_than_behind_malignant_ones() -> None:
    below = {"benign": [], "malignant": []}
    for case in cases(n=40, skew=1.0):
        if case.attributes["diagnosis"] == "normal" or case.attributes["site"] == "south":
            continue
        image, lesion = (case.volume(name).array[0] for name in ("image", "label"))
        rows, columns = np.nonzero(lesion)
        behind = image[rows.max() + 1 :, columns.min() : columns.max()]
        below[case.attributes["diagnosis"]].append(behind.mean() - image[rows.max() + 1 :].mean())
    assert np.mean(below["benign"]) > 0 > np.mean(below["malignant"])


@pytest.mark.parametrize("query", ["n=0", "size=8", "skew=2", "seed=-1"])
def test_parameters_out_of_range_are_named(query: str) -> None:
    with pytest.raises(UserError, match=query.split("=")[0]):
        open_source(f"phantom:ultrasound?{query}")
