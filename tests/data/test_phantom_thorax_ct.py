"""The CT phantom of the thorax: HU as scanners give them, and vessels too thin for a fourfold smaller image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medray.data.geometry import Grid
from medray.data.phantoms import thorax_ct
from medray.data.sources import open_source
from medray.errors import UserError


def test_a_slice_does_not_depend_on_how_many_there_are_or_on_the_seed_alone() -> None:
    few, many = thorax_ct.cases(n=1, slices=2, seed=1), thorax_ct.cases(n=3, slices=3, seed=1)
    same = {case.id: case for case in many}
    for one in few:
        assert one.fields["image"].fingerprint() == same[one.id].fields["image"].fingerprint()
        np.testing.assert_array_equal(one.volume("image").array, same[one.id].volume("image").array)
    assert [case.patient for case in few] == ["patient0000", "patient0000"]
    assert (few[0].volume("image").array != few[1].volume("image").array).any()
    assert (thorax_ct.cases(n=1, seed=2)[0].volume("image").array != few[0].volume("image").array).any()


def test_tissues_have_their_hounsfield_units_and_the_field_of_view_its_size() -> None:
    volume = thorax_ct.cases(n=1, noise=0.0)[0].volume("image")
    assert volume.array.dtype == np.int16
    assert volume.shape == (128, 128)
    corners = Grid.of(volume).corners()
    np.testing.assert_allclose(np.ptp(corners, axis=0)[:2], thorax_ct.FIELD_OF_VIEW_MM)
    np.testing.assert_allclose(corners.mean(axis=0)[:2], 0.0, atol=1e-9)
    image = volume.array[0]
    assert image[0, 0] == -1000
    lungs = (image > -950) & (image < -750)
    assert 0.05 < lungs.mean() < 0.3
    for tissue in ("fat", "muscle", "marrow"):
        assert np.isin(image, round(thorax_ct._HU[tissue])).mean() > 0.005, tissue


def test_noise_is_what_was_asked_for() -> None:
    clean, noisy = (thorax_ct.cases(n=1, noise=noise)[0].volume("image").array for noise in (0.0, 12.0))
    assert (noisy.astype(float) - clean).std() == pytest.approx(12.0, rel=0.05)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_vessels_are_one_to_three_pixels_wide_at_any_size(size: int) -> None:
    image = thorax_ct.cases(n=1, size=size, noise=0.0)[0].volume("image").array[0]
    vessels = thorax_ct._vessels(_canvas(size), np.random.default_rng(0), np.ones((size, size)), 1) > 0.5
    assert vessels.mean() > 0.005
    assert ndimage.distance_transform_edt(np.pad(vessels, 1)).max() <= 4.0  # where branches meet
    assert not ndimage.binary_opening(vessels, np.ones((6, 6))).any()
    assert (image > -300).any()


def _canvas(size: int) -> thorax_ct._Canvas:
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    return thorax_ct._Canvas(np.zeros((size, size)), *np.meshgrid(axis, axis, indexing="ij"))


@pytest.mark.parametrize(
    ("query", "sentence"), [("size=16", "at least 32"), ("n=0", "at least 1"), ("noise=-1", "not be negative")]
)
def test_parameters_out_of_range(query: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_source(f"phantom:thorax_ct?{query}")
