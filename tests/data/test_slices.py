"""Slices of volumes and images: what lies where, and the way back."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medray.data.cache import SampleCache
from medray.data.case import Case, Volume
from medray.data.fields import FileRef
from medray.data.geometry import canonical
from medray.data.slices import SliceGrid, SliceReader, put_back


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(10, 12, 5)).astype(np.float32)


def case_of(folder: Path, affine: np.ndarray, **arrays: np.ndarray) -> Case:
    refs = {}
    for name, array in arrays.items():
        path = folder / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(array, affine), path)
        refs[name] = FileRef(str(path), "label" if name == "label" else "image")
    return Case("p1", "p1", refs)


def test_a_volume_is_a_stack_of_axial_slices(tmp_path: Path, volume: np.ndarray) -> None:
    case = case_of(tmp_path, np.diag([2.0, 3.0, 4.0, 1.0]), image=volume, label=(volume > 1).astype(np.uint8))
    stack = SliceReader(SliceGrid(normalize="none")).stack(case)
    assert stack.image.shape == (5, 1, 10, 12)
    assert stack.spacing_mm == (2.0, 3.0)
    np.testing.assert_array_equal(stack.image[3, 0], volume[..., 3])
    np.testing.assert_array_equal(stack.labels["label"][3], volume[..., 3] > 1)


def test_a_sagittal_file_is_cut_axially(tmp_path: Path, volume: np.ndarray) -> None:
    affine = np.array([[0, 0, -1.0, 0], [1.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1]])  # axes Anterior, Inferior, Left
    case = case_of(tmp_path, affine, image=volume)
    stack = SliceReader(SliceGrid(normalize="none")).stack(case)
    assert stack.image.shape == (12, 1, 5, 10)
    np.testing.assert_array_equal(stack.image[0, 0], volume[:, -1, ::-1].T)  # the lowest slice, right to higher index


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_results_come_back_on_the_users_grid(tmp_path: Path, volume: np.ndarray, flip: float) -> None:
    case = case_of(tmp_path, np.diag([flip, 1.0, 2.0, 1.0]), image=volume)
    stack = SliceReader(SliceGrid(normalize="none")).stack(case)
    original = case.volume("image")
    back = put_back(stack.image, stack.grid, original)
    np.testing.assert_allclose(back.array, original.array, atol=1e-6)
    np.testing.assert_array_equal(back.affine, original.affine)


def test_cropping_keeps_the_middle_and_fills_what_was_cut_off(tmp_path: Path, volume: np.ndarray) -> None:
    case = case_of(tmp_path, np.eye(4), image=volume)
    stack = SliceReader(SliceGrid(shape=(6, 14), normalize="none")).stack(case)
    assert stack.image.shape == (5, 1, 6, 14)
    np.testing.assert_allclose(stack.image[2, 0, :, 1:-1], volume[2:8, :, 2], atol=1e-6)
    np.testing.assert_allclose(stack.image[2, 0, :, 0], volume.min())
    back = put_back(stack.image[:, 0], stack.grid, case.volume("image"), fill=-7.0)
    np.testing.assert_allclose(back.array[0, 2:8], volume[2:8], atol=1e-5)
    np.testing.assert_allclose(back.array[0, :2], -7.0)


def test_resampled_labels_come_back_about_where_they_were(tmp_path: Path) -> None:
    label = np.zeros((20, 20, 3), dtype=np.uint8)
    label[4:12, 6:16, 1] = 3
    case = case_of(tmp_path, np.diag([1.0, 1.0, 5.0, 1.0]), image=label.astype(np.float32), label=label)
    stack = SliceReader(SliceGrid(spacing_mm=(0.5, 2.0))).stack(case)
    assert stack.labels["label"].shape == (3, 40, 10)
    back = put_back(stack.labels["label"], stack.grid, case.volume("image"), order=0)
    assert set(np.unique(back.array)) == {0, 3}
    assert (back.array[0] == label).mean() > 0.95


def test_fields_become_channels_in_order(tmp_path: Path, volume: np.ndarray) -> None:
    case = case_of(tmp_path, np.eye(4), flair=volume, t1=2 * volume)
    stack = SliceReader(SliceGrid(normalize="none"), images=("t1", "flair")).stack(case)
    np.testing.assert_array_equal(stack.image[1], np.stack([2 * volume[..., 1], volume[..., 1]]))


def test_intensities_are_of_the_whole_scan(tmp_path: Path, volume: np.ndarray) -> None:
    case = case_of(tmp_path, np.eye(4), image=volume)
    whole = SliceReader(SliceGrid()).stack(case).image
    assert (whole.min(), whole.max()) == (0.0, 1.0)
    cropped = SliceReader(SliceGrid(shape=(4, 4))).stack(case).image
    np.testing.assert_allclose(cropped, whole[:, :, 3:7, 4:8], atol=1e-6)


def test_empty_slices_are_left_out_of_the_list(tmp_path: Path, volume: np.ndarray) -> None:
    volume = np.abs(volume) + 1
    volume[..., [0, 4]] = 0
    volume[0, 0, 4] = 1.0  # one pixel of 120
    case = case_of(tmp_path, np.eye(4), image=volume)
    listed = [
        [ref.index for ref in SliceReader(SliceGrid(occupied=o, every=e)).refs(case)]
        for o, e in [(0.0, 1), (1e-6, 1), (0.1, 1), (0.1, 2)]
    ]
    assert listed == [[0, 1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3], [1, 3]]
    assert SliceReader(SliceGrid()).refs(case)[1].id == "p1/z=1"


def test_a_2d_image_is_a_stack_of_one(tmp_path: Path) -> None:
    pixels = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    np.save(tmp_path / "a.npy", pixels)
    case = Case("a", "a", {"image": FileRef(str(tmp_path / "a.npy"))})
    stack = SliceReader(SliceGrid(normalize="none")).stack(case)
    np.testing.assert_array_equal(stack.image, pixels[None, None])
    np.testing.assert_array_equal(put_back(stack.image, stack.grid, case.volume("image")).array, pixels[None])


def test_a_file_is_decoded_once(tmp_path: Path, volume: np.ndarray) -> None:
    case = case_of(tmp_path, np.eye(4), image=volume)
    cache = SampleCache(memory_gb=0.1)
    reader = SliceReader(SliceGrid(), cache=cache)
    assert len(reader.refs(case)) == 5
    reader.stack(case)
    assert (cache.hits, cache.misses) == (1, 1)


def test_slices_of_another_grid_are_refused() -> None:
    volume = canonical(Volume(np.zeros((1, 4, 4, 2)), np.eye(4)))
    stack_grid = SliceReader(SliceGrid())._work_grid(volume)
    with pytest.raises(ValueError, match=r"\(4, 4, 2\).*\(2, 4, 5\)"):
        put_back(np.zeros((2, 4, 5)), stack_grid, volume)
