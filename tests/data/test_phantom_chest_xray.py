"""The chest phantom of three classes: shares, where findings lie, and the lung mask."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from medray.data.check import check_cases
from medray.data.phantoms import chest_xray
from medray.data.sources import open_source
from medray.errors import UserError


def test_shares_and_checks() -> None:
    cases = open_source("phantom:chest_xray?n=200&validation=9&test=30").cases
    shares = {
        split: Counter(case.attributes["class"] for case in cases if case.attributes["split"] == split)
        for split in ("train", "validation", "test")
    }
    for name, share in {"normal": 0.25, "pneumonia": 0.25, "covid": 0.5}.items():
        assert shares["train"][name] == pytest.approx(200 * share, abs=3)
        assert (shares["validation"][name], shares["test"][name]) == (3, 10)
    assert check_cases(cases[:60], required=("image", "auxiliary"), spatial_dims=2)[1] == ()
    rare = Counter(case.attributes["class"] for case in chest_xray.cases(n=200, normal=0.6, pneumonia=0.35, test=0))
    assert rare["normal"] > rare["pneumonia"] > rare["covid"] > 0


def _change(finding: chest_xray.Finding, index: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """What a finding adds to one patient's film without noise, and the lung mask."""
    film = chest_xray.Film(seed=0, split="test", index=index, finding=finding, size=96, noise=0.0)
    with_it = chest_xray.FilmField(film, "image").load().array[0].astype(int)
    without = chest_xray.FilmField(replace(film, finding="normal"), "image").load().array[0].astype(int)
    return with_it - without, chest_xray.FilmField(film, "auxiliary").load().array[0] > 0


def test_pneumonia_is_dense_on_one_side_and_covid_on_both_and_outside() -> None:
    for index in range(12):
        lobe, lungs = _change("pneumonia", index)
        sides = sorted((lobe[:, :48].sum(), lobe[:, 48:].sum()))
        assert sides[0] < 0.02 * sides[1]
        patches, _ = _change("covid", index)
        assert min(patches[:, :48].sum(), patches[:, 48:].sum()) > 500
        assert min(lobe.min(), patches.min()) >= 0
        at = np.abs(np.arange(96) - 47.5)
        assert (patches.sum(axis=0) @ at) / patches.sum() > (lungs.sum(axis=0) @ at) / lungs.sum()
        assert patches[lungs].sum() > 0.8 * patches.sum()


def test_the_mask_covers_two_lungs_and_is_darker() -> None:
    for case in chest_xray.cases(n=20, validation=0, test=0):
        mask, image = case.volume("auxiliary").array[0], case.volume("image").array[0]
        assert set(np.unique(mask)) == {0, 255}
        assert mask.dtype == image.dtype == np.uint8
        assert 0.15 < (mask > 0).mean() < 0.4
        assert image[mask > 0].mean() < image[mask == 0].mean() - 30


def test_a_film_does_not_depend_on_how_many_there_are() -> None:
    first, second = chest_xray.cases(n=1, seed=4)[0], chest_xray.cases(n=3, seed=4)[0]
    np.testing.assert_array_equal(first.volume("image").array, second.volume("image").array)
    other = chest_xray.cases(n=1, seed=5)[0]
    assert (other.volume("image").array != first.volume("image").array).any()
    assert first.fields["image"].fingerprint() != first.fields["auxiliary"].fingerprint()


@pytest.mark.parametrize(
    ("query", "sentence"), [("size=8", "at least 32"), ("normal=0.7&pneumonia=0.4", "sum to 1"), ("noise=-1", "noise")]
)
def test_parameters_out_of_range(query: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_source(f"phantom:chest_xray?{query}")
