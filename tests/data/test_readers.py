"""Every format comes back with its values, its position and its types; every bad file gets its sentence."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel as _nibabel
import numpy as np
import pytest
import SimpleITK as _sitk
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from medray.data.readers import is_image_name, read_array, read_label, read_table, read_volume, stem_of, suffix_of
from medray.errors import UserError

# neither library says its types
nibabel: Any = _nibabel
sitk: Any = _sitk

RAMP = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)


def test_importing_the_data_layer_loads_no_reader_library() -> None:
    code = (
        "import sys, medray.data.sources, medray.data.readers, medray.data.check, medray.data.writers\n"
        "heavy = {'torch', 'nibabel', 'SimpleITK', 'pydicom', 'h5py', 'PIL', 'pyarrow', 'pandas', 'monai', 'ray'}\n"
        "raise SystemExit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_keeps_type_and_affine(
    tmp_path: Path, save_nifti: Callable[..., Path], crooked: NDArray[np.float64], name: str
) -> None:
    volume = read_volume(save_nifti(tmp_path / name, RAMP, crooked))
    assert volume.array.dtype == np.int16
    assert_array_equal(volume.array, RAMP[None])
    assert_allclose(volume.affine, crooked)
    assert volume.spacing == (3.0, 2.0, 0.5)


def test_nifti_applies_scale_and_returns_float32(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(RAMP, np.eye(4))
    image.header.set_slope_inter(0.5, 10.0)
    raw = bytearray(image.to_bytes())
    raw[112:120] = np.array([0.5, 10.0], dtype="<f4").tobytes()  # scl_slope, scl_inter
    (tmp_path / "scaled.nii").write_bytes(raw)
    volume = read_volume(tmp_path / "scaled.nii")
    assert volume.array.dtype == np.float32
    assert_allclose(volume.array[0], RAMP * 0.5 + 10)


@pytest.mark.parametrize(("shape", "axis"), [((5, 6, 1), 2), ((5, 1, 6), 1), ((1, 5, 6), 0)])
def test_one_slice_nifti_is_2d_with_every_pixel_where_it_was(
    tmp_path: Path, save_nifti: Callable[..., Path], crooked: NDArray[np.float64], shape: tuple[int, ...], axis: int
) -> None:
    data = np.arange(30, dtype=np.uint8).reshape(shape)
    volume = read_volume(save_nifti(tmp_path / "slice.nii.gz", data, crooked))
    assert volume.shape == (5, 6)
    assert_array_equal(volume.array[0], data.reshape(5, 6))
    index = np.insert([4.0, 5.0], axis, 0.0)  # the far corner in the file's own axes
    assert_allclose((volume.affine @ [4, 5, 0, 1])[:3], (crooked @ [*index, 1])[:3])


def test_itk_formats_turn_lps_into_ras(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(RAMP.transpose(2, 1, 0))
    image.SetSpacing((3.0, 2.0, 0.5))
    image.SetOrigin((10.0, 20.0, 30.0))
    image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, 1))
    for name in ("a.mha", "a.mhd", "a.nrrd", "a.nii.gz"):
        sitk.WriteImage(image, str(tmp_path / name))
        volume = read_volume(tmp_path / name)
        assert_array_equal(volume.array[0], RAMP)
        # by hand: index (1, 0, 0) moves 3 mm along LPS y, which is -3 mm along RAS y
        assert_allclose(volume.affine @ [0, 0, 0, 1], [-10, -20, 30, 1], atol=1e-5)
        assert_allclose(volume.affine @ [1, 0, 0, 1], [-10, -23, 30, 1], atol=1e-5)
        assert_allclose(volume.affine @ [0, 1, 0, 1], [-12, -20, 30, 1], atol=1e-5)


def test_itk_2d_and_color(tmp_path: Path) -> None:
    flat = sitk.GetImageFromArray(np.arange(6, dtype=np.uint8).reshape(2, 3))  # 2 rows, 3 columns
    sitk.WriteImage(flat, str(tmp_path / "flat.mha"))
    assert_array_equal(read_volume(tmp_path / "flat.mha").array[0], [[0, 3], [1, 4], [2, 5]])
    color = sitk.GetImageFromArray(np.zeros((2, 3, 4, 3), np.uint8), isVector=True)
    sitk.WriteImage(color, str(tmp_path / "color.mha"))
    assert read_volume(tmp_path / "color.mha").array.shape == (3, 4, 3, 2)


def test_png_rows_columns_and_colors(tmp_path: Path) -> None:
    gray = np.array([[0, 1, 2], [253, 254, 255]], dtype=np.uint8)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    volume = read_volume(tmp_path / "gray.png")
    assert_array_equal(volume.array, gray[None])
    assert_array_equal(volume.affine, np.eye(4))
    color = np.dstack([gray, gray.T.reshape(2, 3), 255 - gray])
    for name in ("color.png", "color.tif", "color.bmp"):
        Image.fromarray(color).save(tmp_path / name)
        assert_array_equal(read_volume(tmp_path / name).array, np.moveaxis(color, -1, 0))
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert read_volume(tmp_path / "deep.png").array.max() == 65535
    Image.fromarray(np.dstack([gray] * 3 + [gray])).save(tmp_path / "alpha.png")
    assert read_volume(tmp_path / "alpha.png").array.shape == (3, 2, 3)
    Image.fromarray(gray).save(tmp_path / "photo.jpg")
    assert read_volume(tmp_path / "photo.jpg").array.shape == (1, 2, 3)


def test_tiff_pages_are_the_first_axis(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((2, 3), value, np.uint8)) for value in (7, 8, 9, 10)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    volume = read_volume(tmp_path / "stack.tif")
    assert volume.array.shape == (1, 4, 2, 3)
    assert_array_equal(volume.array[0, :, 0, 0], [7, 8, 9, 10])


def test_arrays_by_key(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", RAMP.astype(np.float64))
    np.savez(tmp_path / "two.npz", image=RAMP, other=RAMP[0])
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["group/image"] = RAMP
        file["kspace"] = np.ones((2, 3, 4, 12), np.complex128)
    assert read_volume(tmp_path / "one.npy").array.dtype == np.float32
    assert_array_equal(read_volume(f"{tmp_path}/two.npz#other").array, RAMP[:1])
    assert_array_equal(read_volume(f"{tmp_path}/scan.h5#group/image").array, RAMP[None])
    assert read_array(f"{tmp_path}/scan.h5#kspace").dtype == np.complex128
    volume = read_volume(f"{tmp_path}/scan.h5#kspace", channels=True)
    assert volume.array.shape == (12, 2, 3, 4)
    assert volume.array.dtype == np.complex64


def test_tables(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("x,y,name\n1,2.5,a\n3,4,b\n")
    (tmp_path / "lines.json").write_text('{"branches": [[0, 1]]}')
    table = read_table(tmp_path / "points.csv")
    assert_array_equal(table["y"], [2.5, 4.0])
    assert list(table["name"]) == ["a", "b"]
    assert read_table(tmp_path / "lines.json") == {"branches": [[0, 1]]}
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match=r"broken\.json is damaged: "):
        read_table(tmp_path / "broken.json")


def test_label_types_and_overlapping_masks(tmp_path: Path, save_nifti: Callable[..., Path]) -> None:
    exact = save_nifti(tmp_path / "l.nii.gz", np.array([[[0.0, 0.9999, 5.0]]] * 2))
    label = read_label(exact)
    assert label.array.dtype == np.uint8
    assert set(np.unique(label.array)) == {0, 1, 5}
    big = save_nifti(tmp_path / "big.nii.gz", np.array([[[0, 300]]] * 2, dtype=np.int32))
    assert read_label(big).array.dtype == np.uint16
    several = np.zeros((3, 4, 5, 2))
    several[1, 2, 3] = 1
    label = read_label(save_nifti(tmp_path / "several.nii.gz", several))
    assert label.array.shape == (2, 3, 4, 5)
    assert label.array[:, 1, 2, 3].tolist() == [1, 1]


def test_label_pictures(tmp_path: Path) -> None:
    mask = np.array([[0, 255], [255, 0]], np.uint8)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(np.dstack([mask] * 3)).save(tmp_path / "mask3.png")
    Image.fromarray(np.array([[0, 3], [255, 0]], np.uint8)).save(tmp_path / "classes.png")
    palette = Image.fromarray(np.array([[0, 2], [1, 0]], np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.putdata([0, 2, 1, 0])
    palette.save(tmp_path / "palette.png")
    assert read_label(tmp_path / "mask.png").array.tolist() == [[[0, 1], [1, 0]]]
    assert read_label(tmp_path / "mask3.png").array.tolist() == [[[0, 1], [1, 0]]]
    assert read_label(tmp_path / "classes.png").array.tolist() == [[[0, 3], [255, 0]]]
    assert read_label(tmp_path / "palette.png").array.tolist() == [[[0, 2], [1, 0]]]
    assert read_volume(tmp_path / "palette.png").array.shape == (3, 2, 2)


def _nifti(array: NDArray[Any]) -> bytes:
    return bytes(nibabel.Nifti1Image(array, np.eye(4)).to_bytes())


def _flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


_NOISE = np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32)
_ZIPPED = gzip.compress(_nifti(_NOISE))
_NAN = _NOISE.copy()
_NAN[0, 0, :3] = (np.nan, np.inf, -np.inf)

BAD_IMAGES = {
    "empty.nii.gz": (b"", "empty.nii.gz is empty (0 bytes)"),
    "half.nii.gz": (_ZIPPED[: len(_ZIPPED) // 2], "half.nii.gz is truncated or damaged: Compressed file ended"),
    "tail.nii.gz": (_ZIPPED[:-4], "tail.nii.gz is truncated or damaged: Compressed file ended"),
    "flip.nii.gz": (_flipped(_ZIPPED, len(_ZIPPED) - 6), "flip.nii.gz is truncated or damaged: CRC check failed"),
    "short.nii.gz": (gzip.compress(_nifti(_NOISE)[:9000]), "short.nii.gz is truncated or damaged: Expected"),
    "short.nii": (_nifti(_NOISE)[:9000], "short.nii is truncated or damaged: Expected"),
    "text.nii": (b"not an image at all" * 40, "text.nii is not a NIfTI file"),
    "text.nii.gz": (b"not an image at all" * 40, "text.nii.gz is named .gz but holds no gzip data"),
    "nan.nii": (_nifti(_NAN), "nan.nii: 3 of 4096 values are NaN or infinite"),
    "four.nii": (
        _nifti(np.zeros((4, 5, 6, 7), np.float32)),
        "four.nii is 4D (4 x 5 x 6 x 7) where a 2D or 3D image is expected",
    ),
    "text.mha": (b"not an image", "text.mha is truncated, damaged or not an image that ITK reads"),
    "text.nrrd": (b"not an image", "text.nrrd is truncated, damaged or not an image that ITK reads"),
    "text.png": (b"not an image", "text.png is not an image, or damaged at its start"),
    "text.npy": (b"not an image", "text.npy is truncated, damaged or not a plain numeric array"),
    "text.npz": (b"not an image", "text.npz is truncated, damaged or not a plain numeric array"),
    "text.h5": (b"not an image", "text.h5 is truncated, damaged or not HDF5"),
    "text.dcm": (b"not an image", "text.dcm is truncated, damaged or not DICOM that ITK reads"),
    "notes.txt": (b"words", "notes.txt is of no known kind; images are .nii.gz .nii .mha"),
}


@pytest.mark.parametrize("name", list(BAD_IMAGES))
def test_bad_image_gets_one_sentence(tmp_path: Path, name: str) -> None:
    content, sentence = BAD_IMAGES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_volume(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path}/{sentence}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.png", "a.tif", "a.npy", "a.npz", "a.h5"])
def test_truncated_file_of_any_kind(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(("mha", "nrrd")):
        sitk.WriteImage(sitk.GetImageFromArray(_NOISE), str(path))
    elif name.endswith(("png", "tif")):
        Image.fromarray((_NOISE[0] * 50 + 100).astype(np.uint8).repeat(8, 0).repeat(8, 1)).save(path)
    elif name.endswith("h5"):
        with h5py.File(path, "w") as file:
            file["image"] = _NOISE
    else:
        (np.save if name.endswith("npy") else np.savez)(path, _NOISE)
    read_volume(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"{name} is truncated"):
        read_volume(path)


def test_missing_and_remote_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/a\.nii\.gz does not exist$"):
        read_volume(tmp_path / "a.nii.gz")
    with pytest.raises(
        UserError, match=r"^gs://bucket/a\.nii\.gz: files are read from local folders and from s3:// only"
    ):
        read_volume("gs://bucket/a.nii.gz")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([0.0, 0.37], r"holds the value 0\.37 where a label map has whole numbers only"),
        ([0.0, -1.0], r"holds the value -1 where label values start at 0"),
        ([0.0, np.nan], r"1 of 4 values are NaN or infinite"),
    ],
)
def test_bad_label_values(tmp_path: Path, save_nifti: Callable[..., Path], values: list[float], sentence: str) -> None:
    path = save_nifti(tmp_path / "label.nii.gz", np.array([[values], [[0.0, 0.0]]]))
    with pytest.raises(UserError, match=rf"label\.nii\.gz.*{sentence}"):
        read_label(path)


def test_color_label_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(UserError, match=r"c\.png is a color image where a label map is expected"):
        read_label(tmp_path / "c.png")


def test_missing_key_lists_the_known_ones(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", left=RAMP, right=RAMP)
    with pytest.raises(UserError, match=r"two\.npz has no array named 'up'; it holds left, right"):
        read_volume(f"{tmp_path}/two.npz#up")
    with pytest.raises(UserError, match=r"two\.npz holds 2 arrays \(left, right\); choose one by adding #NAME"):
        read_volume(f"{tmp_path}/two.npz")


def test_zero_voxel_size(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(RAMP, None)
    raw = bytearray(image.to_bytes())
    raw[252:256] = np.array([0, 1], "<i2").tobytes()  # qform_code, sform_code
    raw[280:328] = np.zeros(12, "<f4").tobytes()  # srow_x, srow_y, srow_z
    (tmp_path / "flat.nii").write_bytes(raw)
    with pytest.raises(UserError, match=r"flat\.nii has an unusable affine \(a voxel size of 0"):
        read_volume(tmp_path / "flat.nii")


def test_names() -> None:
    assert suffix_of("A.NII.GZ") == ".nii.gz"
    assert stem_of("mr/case.01.nii.gz") == "case.01"
    assert stem_of("k.h5#kspace") == "k"
    assert is_image_name("a.png")
    assert not is_image_name("a.json")
