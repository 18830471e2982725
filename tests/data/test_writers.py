"""What is written comes back, is whole or absent, and is what other tools read."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import nibabel as _nibabel
import numpy as np
import pytest
import SimpleITK as _sitk
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from medray.data.case import Volume
from medray.data.geometry import Grid, warp
from medray.data.readers import read_label, read_volume
from medray.data.writers import write_bytes, write_displacement, write_volume
from medray.errors import UserError

# neither library says its types
nibabel: Any = _nibabel
sitk: Any = _sitk

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd", ".npz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5)])
def test_round_trip(
    tmp_path: Path, crooked: NDArray[np.float64], suffix: str, dtype: type, shape: tuple[int, ...]
) -> None:
    volume = Volume((RNG.random((1, *shape)) * 100).astype(dtype), crooked)
    again = read_volume(write_volume(volume, tmp_path / f"sub/folder/a{suffix}"))
    assert again.array.dtype == dtype
    assert_array_equal(again.array, volume.array)
    assert_allclose(again.affine, crooked, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_slice_goes_back_onto_the_axis_it_came_from(
    tmp_path: Path, crooked: NDArray[np.float64], axis: int, suffix: str
) -> None:
    shape = [5, 6]
    shape.insert(axis, 1)
    first = tmp_path / "first.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.arange(30, dtype=np.int16).reshape(shape), crooked), first)
    write_volume(read_volume(first), tmp_path / f"second{suffix}")
    image = sitk.ReadImage(str(tmp_path / f"second{suffix}"))
    original = sitk.ReadImage(str(first))
    assert image.GetSize() == original.GetSize()
    assert_allclose(image.GetOrigin(), original.GetOrigin(), atol=1e-5)
    assert_allclose(image.GetDirection(), original.GetDirection(), atol=1e-6)
    assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(original))


def test_nifti_header(tmp_path: Path, crooked: NDArray[np.float64]) -> None:
    header = nibabel.load(write_volume(Volume(np.ones((1, 2, 3, 4), bool), crooked), tmp_path / "a.nii.gz")).header
    assert header.get_xyzt_units()[0] == "mm"
    assert int(header["sform_code"]) == int(header["qform_code"]) == 1
    assert_allclose(header.get_qform(), crooked, atol=1e-5)
    assert header.get_data_dtype() == np.uint8
    sheared = crooked.copy()
    sheared[0, 1] = 0.7
    header = nibabel.load(write_volume(Volume(np.ones((1, 2, 3, 4)), sheared), tmp_path / "b.nii.gz")).header
    assert int(header["qform_code"]) == 0  # a qform cannot hold shear and must not contradict the sform
    assert_allclose(header.get_sform(), sheared, atol=1e-5)


def test_codes_of_the_source_are_kept(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4))
    image.set_sform(np.eye(4), 4)
    image.set_qform(np.eye(4), 2)
    nibabel.save(image, tmp_path / "mni.nii")
    again = nibabel.load(write_volume(read_volume(tmp_path / "mni.nii"), tmp_path / "out.nii"))
    assert (int(again.header["sform_code"]), int(again.header["qform_code"])) == (4, 2)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    volume = Volume(RNG.random((1, 4, 5, 6)).astype(np.float32), np.eye(4))
    first, second = (write_volume(volume, tmp_path / name).read_bytes() for name in ("a.nii.gz", "b.nii.gz"))
    assert first == second


def test_overlapping_masks_come_back_as_channels(tmp_path: Path) -> None:
    masks = (RNG.random((3, 4, 5, 6)) > 0.5).astype(np.uint8)
    again = read_label(write_volume(Volume(masks, np.eye(4)), tmp_path / "m.nii.gz"))
    assert_array_equal(again.array, masks)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_pictures(tmp_path: Path, name: str) -> None:
    for channels in (1, 3):
        array = RNG.integers(0, 255, (channels, 4, 6)).astype(np.uint8)
        assert_array_equal(read_volume(write_volume(Volume(array, np.eye(4)), tmp_path / name)).array, array)


@pytest.mark.parametrize(
    ("array", "name", "sentence"),
    [
        (np.zeros((1, 4, 4), np.float32), "a.png", r"\.png holds whole numbers from 0 to 65535; use \.nii\.gz"),
        (
            np.zeros((1, 4, 4, 4), np.uint8),
            "a.png",
            r"\.png holds 2D images of 1 or 3 channels, not 1 channel\(s\) of 3D",
        ),
        (np.full((1, 4, 4), 300, np.int32), "a.jpg", r"\.jpg holds 8-bit images; use \.png for 16 bits"),
        (np.zeros((1, 4, 4), np.uint8), "a.xyz", r"a\.xyz has no suffix that can be written; use one of \.nii\.gz"),
        (np.zeros((1, 4, 4), np.uint8), "a.h5", r"a\.h5 has no suffix that can be written"),
        (np.full((1, 4, 4), 2**40), "a.nii", r"do not fit the 32-bit integers"),
    ],
)
def test_what_a_format_cannot_hold(tmp_path: Path, array: NDArray[Any], name: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        write_volume(Volume(array, np.eye(4)), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_itk_warps_with_the_written_field_as_we_do(tmp_path: Path, crooked: NDArray[np.float64], suffix: str) -> None:
    moving = Volume(RNG.random((1, 9, 10, 11)).astype(np.float32), crooked)
    fixed = Grid((6, 5, 7), np.array([[0, -2.0, 0, 2], [0, 0, 0.7, -19], [2.5, 0, 0, 33], [0, 0, 0, 1]]))
    field = Volume(RNG.uniform(-1.5, 1.5, (3, *fixed.shape)).astype(np.float32), fixed.affine)
    write_displacement(field, tmp_path / f"field{suffix}")
    write_volume(moving, tmp_path / "moving.mha")
    read = sitk.ReadImage(str(tmp_path / f"field{suffix}"), sitk.sitkVectorFloat64)
    reference = sitk.Image(read.GetSize(), sitk.sitkFloat32)
    reference.CopyInformation(read)
    transform = sitk.DisplacementFieldTransform(read)
    image = sitk.ReadImage(str(tmp_path / "moving.mha"))
    by_itk = sitk.GetArrayFromImage(sitk.Resample(image, reference, transform, sitk.sitkLinear, 0.0))
    ours = warp(moving, field).array[0].transpose(2, 1, 0)
    assert (ours != 0).mean() > 0.3
    assert_allclose(by_itk, ours, atol=2e-5)


def test_displacement_of_a_coronal_slice_has_three_components(tmp_path: Path) -> None:
    coronal = np.array([[1.0, 0, 0, 0], [0, 0, 1, 5], [0, 1, 0, 0], [0, 0, 0, 1]])
    field = Volume(RNG.random((3, 4, 6)).astype(np.float32), coronal, header={"singleton_axis": 1})
    image = nibabel.load(write_displacement(field, tmp_path / "f.nii.gz"))
    assert image.shape == (4, 1, 6, 1, 3)
    assert image.header.get_intent()[0] == "displacement vector"
    again = read_volume(tmp_path / "f.nii.gz")
    assert_array_equal(again.array, field.array)
    assert_allclose(again.affine, coronal)


def test_displacement_needs_three_components_and_a_format_for_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 components"):
        write_displacement(Volume(np.zeros((2, 4, 4)), np.eye(4)), tmp_path / "f.nii.gz")
    with pytest.raises(UserError, match=r"f\.png: a displacement field is written as \.nii\.gz"):
        write_displacement(Volume(np.zeros((3, 4, 4)), np.eye(4)), tmp_path / "f.png")


def test_a_reader_of_the_old_file_keeps_it(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.txt", b"old")
    with (tmp_path / "a.txt").open("rb") as reader:
        write_bytes(tmp_path / "a.txt", b"newer")
        assert reader.read() == b"old"
    assert (tmp_path / "a.txt").read_bytes() == b"newer"


@pytest.mark.parametrize("name", ["a.nii.gz", "a.png", "a.npz"])
def test_full_disk_leaves_the_old_file_and_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError) as caught:
        write_volume(Volume(np.zeros((1, 4, 4), np.uint8), np.eye(4)), tmp_path / name)
    assert str(caught.value) == f"no space left to write {tmp_path / name}; free some or choose another --out"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"old"


def test_full_disk_through_itk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medray.data.formats import metaimage

    def refuse(volume: Volume, path: Path) -> None:
        raise RuntimeError("Exception thrown\nITK ERROR: MetaImageIO(0x1): could not write")

    monkeypatch.setattr(metaimage, "write", refuse)
    volume = Volume(np.zeros((1, 4, 4), np.uint8), np.eye(4))
    with pytest.raises(UserError, match=r"a\.mha cannot be written: "):
        write_volume(volume, tmp_path / "a.mha")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage())
    with pytest.raises(UserError, match=r"^no space left to write .*a\.mha"):
        write_volume(volume, tmp_path / "a.mha")


class _Usage:
    free = 3


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"file/a\.txt cannot be written: "):
        write_bytes(tmp_path / "file" / "a.txt", b"data")
