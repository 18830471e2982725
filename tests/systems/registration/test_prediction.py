"""A prediction lands on the user's own grid, in mm, whatever the orientation of the files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medray.errors import UserError
from medray.system import PredictRequest
from medray.systems.registration.pair_reader import ImagePair, WorkGrid
from medray.systems.registration.prediction import predict_pair

GRID = WorkGrid(3, (2.0, 2.0, 2.0), None, "world", 0, ("none", "none"))
SHIFT_MM = np.array([4.0, -6.0, 2.0])  # where the fixed image's tissue lies in the moving image, world RAS


def write(path: Path, affine: NDArray[np.float64], shape: tuple[int, ...], offset_mm: NDArray[np.float64]) -> None:
    """A smooth blob whose center lies at the same world position plus an offset."""
    index = np.indices(shape).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:] - (np.array([30.0, 40.0, 25.0]) + offset_mm)[:, None]
    blob = np.exp(-(world**2).sum(0) / (2 * 9.0**2)).reshape(shape)
    nib.save(nib.Nifti1Image(blob.astype(np.float32), affine), path)


def known_shift(pair: ImagePair) -> NDArray[np.float32]:
    pixels = np.linalg.solve(pair.affine[:3, :3], SHIFT_MM)
    return np.broadcast_to(pixels[:, None, None, None], (3, *pair.fixed.shape)).astype(np.float32)


@pytest.fixture
def scans(tmp_path: Path) -> tuple[Path, Path]:
    moving, fixed = tmp_path / "moving.nii.gz", tmp_path / "fixed.nii.gz"
    flipped = np.array([[0, -1.5, 0, 75], [2.0, 0, 0, 0], [0, 0, 1.25, -2], [0, 0, 0, 1.0]])
    write(moving, np.diag([2.5, 2.0, 2.0, 1.0]), (30, 42, 30), SHIFT_MM)
    write(fixed, flipped, (40, 50, 44), np.zeros(3))
    return moving, fixed


def test_warped_image_meets_the_fixed_one_on_its_own_grid(scans: tuple[Path, Path], tmp_path: Path) -> None:
    result = predict_pair(known_shift, GRID, PredictRequest(inputs=scans, out=tmp_path / "out" / "warped.nii.gz"))
    warped, fixed = (nib.load(path) for path in (result.files["warped"], scans[1]))
    np.testing.assert_allclose(warped.affine, fixed.affine, atol=1e-5)
    assert warped.shape == fixed.shape
    assert np.abs(warped.get_fdata() - fixed.get_fdata()).max() < 0.05
    field = nib.load(result.files["displacement"]).get_fdata()
    np.testing.assert_allclose(field[20, 25, 20, 0], SHIFT_MM, atol=1e-3)
    assert result.metrics["mean_displacement_mm"] == pytest.approx(np.linalg.norm(SHIFT_MM), abs=1e-2)
    assert result.files["picture"].read_bytes().startswith(b"\x89PNG")


def test_itk_warps_with_the_field_as_written(scans: tuple[Path, Path], tmp_path: Path) -> None:
    result = predict_pair(known_shift, GRID, PredictRequest(inputs=scans, out=tmp_path / "warped.nii.gz"))
    moving, fixed = (sitk.ReadImage(str(path)) for path in scans)
    field = sitk.ReadImage(str(result.files["displacement"]), sitk.sitkVectorFloat64)
    warped = sitk.Resample(moving, fixed, sitk.DisplacementFieldTransform(field), sitk.sitkLinear)
    ours = sitk.ReadImage(str(result.files["warped"]))
    inner = np.s_[8:-8, 8:-8, 8:-8]
    np.testing.assert_allclose(sitk.GetArrayFromImage(warped)[inner], sitk.GetArrayFromImage(ours)[inner], atol=5e-3)


def test_labels_ride_along_without_new_values(scans: tuple[Path, Path], tmp_path: Path) -> None:
    image = nib.load(scans[0])
    labels = (image.get_fdata() > 0.5).astype(np.int16) * 7
    nib.save(nib.Nifti1Image(labels, image.affine), tmp_path / "labels.nii.gz")
    request = PredictRequest(inputs=scans, out=tmp_path / "w.nii.gz", labels=[tmp_path / "labels.nii.gz"])
    warped = np.asarray(nib.load(predict_pair(known_shift, GRID, request).files["labels"]).dataobj)
    assert set(np.unique(warped)) == {0, 7}
    target = nib.load(scans[1]).get_fdata() > 0.5
    assert 2 * ((warped == 7) & target).sum() / ((warped == 7).sum() + target.sum()) > 0.93  # 2.5 mm voxels


def test_a_model_for_slices_takes_volumes_slice_by_slice(scans: tuple[Path, Path], tmp_path: Path) -> None:
    seen = []

    def none(pair: ImagePair) -> NDArray[np.float32]:
        seen.append(pair.fixed.shape)
        return np.zeros((2, *pair.fixed.shape), dtype=np.float32)

    flat = WorkGrid(2, (2.0, 2.0), None, "world", 0, ("none", "none"))
    predict_pair(none, flat, PredictRequest(inputs=scans, out=tmp_path / "w.nii.gz"))
    assert 30 <= len(seen) <= 44  # the outermost show nothing of the moving image
    assert len(set(seen)) == 1


def test_slices_without_an_image_stay_where_they_are(tmp_path: Path) -> None:
    image = np.zeros((16, 16, 4), dtype=np.float32)
    image[4:9, 5:11, 1] = 1.0
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "a.nii.gz")
    flat = WorkGrid(2, None, None, "world", 0, ("none", "none"))
    request = PredictRequest(inputs=[tmp_path / "a.nii.gz"] * 2, out=tmp_path / "w.nii.gz")
    result = predict_pair(lambda pair: np.ones((2, *pair.fixed.shape), dtype=np.float32), flat, request)
    field = np.linalg.norm(nib.load(result.files["displacement"]).get_fdata()[..., 0, :], axis=-1)
    assert [bool(field[..., z].any()) for z in range(4)] == [False, True, False, False]


def test_png_in_png_out(tmp_path: Path) -> None:
    from PIL import Image

    picture = (gaussian_filter(np.random.default_rng(0).normal(size=(48, 64)), 3) * 900 + 128).clip(0, 255)
    for name in ("a", "b"):
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / f"{name}.png")
    grid = WorkGrid(2, None, None, "world", 0, ("percentile", "percentile"))
    request = PredictRequest(inputs=[tmp_path / "a.png", tmp_path / "b.png"], out=tmp_path / "w.png")
    result = predict_pair(lambda pair: np.zeros((2, *pair.fixed.shape), dtype=np.float32), grid, request)
    np.testing.assert_array_equal(np.asarray(Image.open(result.files["warped"])), picture.astype(np.uint8))


def test_an_output_without_a_known_suffix_is_refused_first(scans: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="suffix"):
        predict_pair(known_shift, GRID, PredictRequest(inputs=scans, out=tmp_path / "warped"))
