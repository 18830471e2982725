"""Pairs with a known deformation: the stated field undoes it, and tissue and brain are what they should be."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import ndimage

from medray.data import deformed
from medray.data.case import Source
from medray.data.deformed import LoadedAnatomy, RandomSpline, brain_mask, tissue_classes
from medray.data.sources import open_source
from medray.data.splits import split_by_patient
from medray.errors import UserError

Save = Callable[..., Path]


def _head(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A ball of three tissues, smooth texture on top; t1 and an inverted flair."""
    z = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (56, 60, 24)], indexing="ij"))
    radius = np.sqrt((z**2).sum(axis=0))
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=radius.shape), 3.0)
    layers = np.select([radius < 0.4, radius < 0.65, radius < 0.85], [300.0, 200.0, 100.0], 0.0)
    t1 = ndimage.gaussian_filter(np.where(layers > 0, layers + 200 * texture, 0.0), 1.0)  # no edge finer than a pixel
    return t1.astype(np.float32), np.where(layers > 0, 400 - layers, 0.0).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, save_nifti: Save) -> Path:
    affine = np.diag([-1.0, 1.0, 2.0, 1.0])  # stored right to left, as MNI files are
    for index, patient in enumerate(("p1", "p2")):
        for name, array in zip(("t1", "flair"), _head(index), strict=True):
            save_nifti(tmp_path / patient / f"{name}.nii.gz", array, affine)
    return tmp_path


@pytest.fixture
def source(folder: Path) -> Source:
    return open_source(f"deformed:{folder}?every=4&spacing=14&amplitude=5")


def test_cases_and_their_fields(source: Source) -> None:
    assert {case.patient for case in source.cases} == {"p1", "p2"}
    assert all(case.id.startswith(f"{case.patient}/z0") for case in source.cases)
    case = source.cases[0]
    assert set(case.fields) == {"moving", "fixed", "moving_label", "fixed_label", "mask", "displacement"}
    for name in case.fields:
        volume = case.volume(name)
        assert volume.shape == (56, 60)
        assert volume.affine[0, 0] == 1.0  # turned to run to the right
    assert case.volume("displacement").array.shape == (2, 56, 60)
    assert set().union(*(np.unique(case.volume("fixed_label").array).tolist() for case in source.cases)) == {0, 1, 2, 3}
    splits = split_by_patient(source.cases)
    assert {case.patient for case in splits.train} != {case.patient for case in splits.test}


def test_the_displacement_undoes_the_deformation(source: Source) -> None:
    off = np.zeros(4)  # image and label error, deformed and warped back, summed over all slices
    for case in source.cases:
        mask = case.volume("mask").array[0] > 0
        inner = ndimage.binary_erosion(mask, iterations=2)
        positions = np.indices(mask.shape) + case.volume("displacement").array
        moving, original = case.volume("moving").array[0], _original(case.patient, int(case.attributes["slice"]))
        label, fixed = case.volume("moving_label").array[0], case.volume("fixed_label").array[0]
        back = ndimage.map_coordinates(moving, positions, order=3)
        restored = ndimage.map_coordinates(label, positions, order=0)
        off[:2] += [np.abs(image - original)[inner].sum() for image in (moving, back)]
        off[2:] += [(tissue != fixed)[inner].sum() for tissue in (label, restored)]
    assert off[1] < 0.05 * off[0]
    assert off[3] < 0.25 * off[2]
    assert off[0] > 0


def _original(patient: str, plane: int) -> NDArray[np.float32]:
    t1, _ = _head(int(patient[1]) - 1)
    return t1[::-1, :, plane]


def test_fixed_image_and_labels_are_untouched(source: Source) -> None:
    case = source.cases[0]
    _, flair = _head(0)
    assert_array_equal(case.volume("fixed").array[0], flair[::-1, :, int(case.attributes["slice"])])


def test_field_is_smooth_as_long_as_asked_and_never_folds(source: Source) -> None:
    for case in source.cases:
        field = case.volume("displacement").array.astype(np.float64)
        assert 4.0 < np.sqrt((field**2).sum(axis=0)).max() <= 5.0 + 1e-4
        gradients = np.stack([np.stack(np.gradient(component)) for component in field]) + np.eye(2)[..., None, None]
        assert (gradients[0, 0] * gradients[1, 1] - gradients[0, 1] * gradients[1, 0]).min() > 0.15


def test_seeds_and_repeats_give_other_fields_of_the_same_slices(folder: Path) -> None:
    def first(query: str) -> NDArray[np.float32]:
        array: NDArray[np.float32] = (
            open_source(f"deformed:{folder}?every=8&{query}").cases[0].volume("displacement").array
        )
        return array

    assert_array_equal(first("seed=1"), first("seed=1"))
    assert not np.array_equal(first("seed=1"), first("seed=2"))
    twice = open_source(f"deformed:{folder}?every=8&repeats=2")
    assert twice.cases[0].id.endswith("/0")
    assert twice.cases[1].id.endswith("/1")
    assert not np.array_equal(twice.cases[0].volume("displacement").array, twice.cases[1].volume("displacement").array)
    assert twice.fingerprint != open_source(f"deformed:{folder}?every=8&repeats=2&seed=9").fingerprint


def test_three_dimensions(folder: Path) -> None:
    source = open_source(f"deformed:{folder}?dims=3&spacing=12&amplitude=3")
    assert [case.id for case in source.cases] == ["p1/volume", "p2/volume"]
    case = source.cases[0]
    field, moving = case.volume("displacement"), case.volume("moving")
    assert field.array.shape == (3, *moving.shape)
    back = ndimage.map_coordinates(moving.array[0], np.indices(moving.shape) + field.array, order=3)
    labels = case.volume("fixed_label").array[0]
    means = [back[labels == k].mean() for k in (1, 2, 3)]
    assert_allclose(means, [100, 200, 300], atol=25)
    corner = (moving.affine @ [0, 0, 0, 1])[:3]
    assert (corner >= [-55, 0, 0]).all()


def test_what_is_loaded_may_be_written_to_and_travels(source: Source) -> None:
    case = pickle.loads(pickle.dumps(source.cases[0]))
    array = case.volume("moving").array
    kept = array.copy()
    array[:] = 0
    assert_array_equal(case.volume("moving").array, kept)


def test_labels_are_never_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (40, 40, 3)
    tissue = np.zeros(shape, np.uint8)
    tissue[10:30, 10:30] = 3
    blank = np.zeros(shape, np.float32)
    loaded = LoadedAnatomy(blank, blank, tissue > 0, tissue, np.eye(4))
    monkeypatch.setattr(deformed, "load_anatomy", lambda anatomy: loaded)
    pair = deformed.DeformedPair(deformed.Anatomy("a", "b", 3, 0.1, 0), 1, 15.0, 4.0, draw=5)
    label = deformed.make_pair(pair)["moving_label"].array[0]
    assert set(np.unique(label)) == {0, 3}
    assert (label != tissue[..., 1]).sum() > 40


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("moving=t2", r"no patient has both the modalities t2 and flair; found flair, t1"),
        ("mowing=t1", r"has no parameter 'mowing'; known are moving=t1, fixed=flair, dims=2, every=4"),
        ("dims=4", r"dims=4 is not one of 2, 3"),
        ("every=0", r"every and repeats must be at least 1"),
        ("spacing=1", r"spacing is at least 4 px"),
    ],
)
def test_wrong_requests(folder: Path, query: str, sentence: str) -> None:
    with pytest.raises(UserError, match=rf"^(deformed:)?{folder}.*{sentence}"):
        open_source(f"deformed:{folder}?{query}")


def test_different_grids_are_told(folder: Path, save_nifti: Save) -> None:
    save_nifti(folder / "p1" / "flair.nii.gz", np.ones((5, 6, 7), np.float32))
    with pytest.raises(UserError, match="lie on different grids; deformed: needs co-registered modalities"):
        open_source(f"deformed:{folder}")


def test_spline_is_its_own_exact_answer_between_pixels() -> None:
    spline = RandomSpline.draw((40, 50), 16, 6, seed=3)
    backward = spline.inverse()
    points = np.indices((40, 50)) + backward
    assert_allclose(points + spline.at(points), np.indices((40, 50)), atol=2e-3)
    # a cubic B-spline whose control points lie on a line is that line
    line = RandomSpline(np.arange(8.0).repeat(8).reshape(1, 8, 8).repeat(2, 0), 10.0, (40, 40))
    assert_allclose(line.at(np.array([[[13.0]], [[20.0]]]))[0, 0, 0], 13.0 / 10.0 + 2)


def test_brain_mask_and_tissues_by_hand() -> None:
    image = np.zeros((20, 20, 20), np.float32)
    image[4:16, 4:16, 4:16] = 100.0
    image[8:12, 8:12, 8:12] = 0.0  # a ventricle
    image[0, 0, 0] = 100.0  # a speck
    mask = brain_mask(image, 0.1)
    assert mask.sum() == 12**3
    assert not mask[0, 0, 0]
    values = np.repeat([10.0, 50.0, 90.0], 100).astype(np.float32).reshape(3, 10, 10)
    expected = np.repeat([1, 2, 3], 100).reshape(3, 10, 10)
    assert_array_equal(tissue_classes(values, np.ones(values.shape, bool), 3, 0), expected)
