"""Enlarging a user's files: the field of view stays, tiles leave no seams, and DICOM says what was done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from medray.data.case import Volume
from medray.data.geometry import Grid
from medray.data.readers import read_volume
from medray.data.writers import write_volume
from medray.errors import UserError
from medray.system import PredictRequest
from medray.systems.super_resolution.blimsr_config import BlimsrConfig
from medray.systems.super_resolution.enlarging import Tiles, axial_axis, enlarge, finer_grid, upsampler
from medray.systems.super_resolution.high_res import IntensityRange
from medray.systems.super_resolution.networks import make_generator
from medray.systems.super_resolution.peer_networks import Bicubic
from medray.systems.super_resolution.prediction import predict_file

CROOKED = np.array([[-3.0, 0, 0, 10], [0, 0, 0.5, -20], [0, 2.0, 0, 30], [0, 0, 0, 1]])
"""Axis 0 runs to the left, 1 to superior, 2 to anterior."""
UNIT = IntensityRange(0.0, 1.0)


def _small_generator() -> torch.nn.Module:
    torch.manual_seed(0)
    return make_generator(BlimsrConfig(crop_px=64, num_blocks=1, num_channels=4))


def _ask(given: Path, out: Path, **more: Any) -> Any:
    request = PredictRequest(inputs=[given], out=out, **more)
    return predict_file(Bicubic(), request, window=(-1024.0, 1024.0), scaling="auto", name="test")


@pytest.mark.parametrize("affine", [np.eye(4), CROOKED])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 7)])
def test_the_corners_of_the_field_of_view_stay(shape: tuple[int, ...], affine: np.ndarray) -> None:
    volume = Volume(np.zeros((1, *shape), np.float32), affine)
    grid = finer_grid(volume, axial_axis(volume))
    np.testing.assert_allclose(grid.corners(), Grid.of(volume).corners(), atol=1e-9)
    assert np.prod(grid.shape) == 16 * np.prod(shape)


def test_slices_are_cut_across_the_axis_along_the_patient() -> None:
    assert axial_axis(Volume(np.zeros((1, 4, 5, 6)), CROOKED)) == 1
    assert axial_axis(Volume(np.zeros((1, 4, 5)), CROOKED)) is None


def test_what_is_bright_stays_where_it_was_in_the_world() -> None:
    array = np.zeros((1, 8, 3, 9), np.float32)
    array[0, 6, 1, 2] = 1.0
    volume = Volume(array, CROOKED)
    fine = enlarge(volume, upsampler(Bicubic()), UNIT, through=1, tiles=Tiles())
    assert fine.shape == (32, 3, 36)
    weights = np.clip(fine.array[0], 0.5, None) - 0.5
    middle = [float((weights * index).sum() / weights.sum()) for index in np.indices(fine.shape)]
    np.testing.assert_allclose(fine.affine @ [*middle, 1], CROOKED @ [6, 1, 2, 1], atol=0.02)


@pytest.mark.parametrize("shape", [(40, 52), (33, 41)])
def test_tiles_that_overlap_by_the_reach_of_the_network_leave_no_seams(shape: tuple[int, int]) -> None:
    volume = Volume(np.random.default_rng(0).random((1, *shape), np.float32), np.eye(4))
    upsample = upsampler(_small_generator())
    whole = enlarge(volume, upsample, UNIT, through=None, tiles=Tiles(tile=64)).array
    cut = enlarge(volume, upsample, UNIT, through=None, tiles=Tiles(tile=12, overlap=16)).array
    np.testing.assert_allclose(cut, whole, atol=1e-5)
    torn = enlarge(volume, upsample, UNIT, through=None, tiles=Tiles(tile=12, overlap=0)).array
    assert np.abs(torn - whole).max() > 1e-3


def test_the_smallest_tiles_are_as_large_as_the_networks_take() -> None:
    volume = Volume(np.zeros((1, 11, 5), np.float32), np.eye(4))
    assert enlarge(volume, upsampler(_small_generator()), UNIT, through=None, tiles=Tiles(tile=10, overlap=0)).shape
    with pytest.raises(ValueError, match="at least 10 px"):
        Tiles(tile=9)


def test_a_png_gets_four_times_its_sides_and_keeps_its_type(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (1, 12, 20)).astype(np.uint8)
    write_volume(Volume(array, np.eye(4)), tmp_path / "a.png")
    told = _ask(tmp_path / "a.png", tmp_path / "b.png")
    found = read_volume(tmp_path / "b.png").array
    assert found.dtype == np.uint8
    low = torch.from_numpy(array / np.float32(255))[None]
    np.testing.assert_allclose(found, np.rint(255 * Bicubic()(low)[0].clamp(0, 1).numpy()), atol=1)
    assert (told.metrics["size0_px"], told.metrics["size1_px"], told.metrics["spacing0_mm"]) == (48, 80, 0.25)
    assert all(path.is_file() for path in told.files.values())


def test_the_pages_of_a_tiff_are_its_slices(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((6, 9), 40 * number, np.uint8)) for number in range(5)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    _ask(tmp_path / "a.tif", tmp_path / "b.nii.gz")
    found = read_volume(tmp_path / "b.nii.gz").array[0]
    assert found.shape == (5, 24, 36)
    assert [int(page.mean()) for page in found] == [0, 40, 80, 120, 160]


def test_a_nifti_volume_keeps_its_axes_and_its_numbers_are_hu(tmp_path: Path) -> None:
    array = np.full((1, 8, 3, 9), -1000, np.int16)
    array[0, :4] = 400
    write_volume(Volume(array, CROOKED), tmp_path / "a.nii.gz")
    told = _ask(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")
    found = read_volume(tmp_path / "b.nii.gz")
    assert found.array.dtype == np.int16
    assert found.shape == (32, 3, 36)
    np.testing.assert_allclose(Grid.of(found).corners(), Grid.of(Volume(array, CROOKED)).corners(), atol=1e-4)
    np.testing.assert_allclose(found.array[0, 4:8], 400, atol=1)
    np.testing.assert_allclose(found.array[0, -4:], -1000, atol=1)
    assert told.metrics["num_slices"] == 3
    assert told.metrics["clipped_percent"] == 0


def test_a_reference_gives_scores_and_must_have_the_size_of_the_result(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    low, high = (rng.integers(0, 256, (1, side, side)).astype(np.uint8) for side in (12, 48))
    for name, array in (("low", low), ("high", high)):
        write_volume(Volume(array, np.eye(4)), tmp_path / f"{name}.png")
    _ask(tmp_path / "low.png", tmp_path / "result.png")
    same = _ask(tmp_path / "low.png", tmp_path / "again.png", labels=[tmp_path / "result.png"])
    other = _ask(tmp_path / "low.png", tmp_path / "again.png", labels=[tmp_path / "high.png"])
    assert same.metrics["ssim"] == pytest.approx(1.0)
    assert other.metrics["ssim"] < 0.5
    assert other.metrics["psnr_db"] < 20
    with pytest.raises(UserError, match="12 x 12 voxels where the enlarged image has 48 x 48"):
        _ask(tmp_path / "low.png", tmp_path / "again.png", labels=[tmp_path / "low.png"])


def test_a_reference_that_is_turned_is_refused(tmp_path: Path) -> None:
    low = np.random.default_rng(0).random((1, 6, 5, 7)).astype(np.float32)
    write_volume(Volume(low, np.eye(4)), tmp_path / "low.nii.gz")
    write_volume(Volume(np.zeros((1, 24, 20, 7), np.float32), np.diag([-0.25, 0.25, 1, 1])), tmp_path / "high.nii.gz")
    with pytest.raises(UserError, match="axes in other directions"):
        _ask(tmp_path / "low.nii.gz", tmp_path / "fine.nii.gz", labels=[tmp_path / "high.nii.gz"])


def _series(folder: Path, count: int) -> Path:
    """CT slices of 6 rows and 8 columns, 0.5 and 0.25 mm; HU = 2 * stored - 1000, brighter along the columns."""
    folder.mkdir()
    for number in range(count):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.{number + 1}")
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID, data.SeriesDescription = "1.2.9", "1.2.3.4", "thorax"
        data.PatientID, data.PatientName, data.Modality = "p7", "Doe^Jane", "CT"
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.InstanceNumber = number + 1
        data.ImagePositionPatient, data.ImageOrientationPatient = [5.0, 7.0, 3.0 * number], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [0.5, 0.25], 3.0
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 6, 8, 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
        data.RescaleSlope, data.RescaleIntercept = 2, -1000
        data.PixelData = np.broadcast_to(100 * np.arange(8), (6, 8)).astype(np.uint16).tobytes()
        data.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def test_a_dicom_series_becomes_a_derived_series_over_the_same_place(tmp_path: Path) -> None:
    given = _series(tmp_path / "given", 3)
    _ask(given, tmp_path / "fine")
    files = sorted((tmp_path / "fine").glob("*.dcm"))
    heads = [pydicom.dcmread(path) for path in files]
    assert len(heads) == 3
    assert len({head.SOPInstanceUID for head in heads} | {f"1.2.3.{n + 1}" for n in range(3)}) == 6
    (series,) = {head.SeriesInstanceUID for head in heads}
    assert series != "1.2.3.4"
    first = heads[0]
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert "super-resolution" in first.DerivationDescription
    assert first.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.1"
    assert (first.PatientID, first.StudyInstanceUID, first.Modality) == ("p7", "1.2.9", "CT")
    assert (first.Rows, first.Columns) == (24, 32)
    assert [float(value) for value in first.PixelSpacing] == [0.125, 0.0625]
    # by hand: the first pixel's center moves by 3/8 of a coarse pixel towards the corner
    assert [float(value) for value in first.ImagePositionPatient] == [5 - 0.25 * 3 / 8, 7 - 0.5 * 3 / 8, 0.0]
    assert (float(first.RescaleSlope), float(first.RescaleIntercept)) == (2, -1000)
    coarse, fine = read_volume(given), read_volume(tmp_path / "fine")
    np.testing.assert_allclose(Grid.of(fine).corners(), Grid.of(coarse).corners(), atol=1e-6)
    assert fine.array[0, :4, 0].mean() == pytest.approx(coarse.array[0, 0, 0].mean(), abs=20)
    assert fine.array[0, -4:, 0].mean() == pytest.approx(coarse.array[0, -1, 0].mean(), abs=20)


def test_one_dicom_file_gives_one_and_equal_results_have_equal_uids(tmp_path: Path) -> None:
    given = _series(tmp_path / "given", 1) / "0.dcm"
    for name in ("one.dcm", "two.dcm"):
        _ask(given, tmp_path / name)
    assert (tmp_path / "one.dcm").read_bytes() == (tmp_path / "two.dcm").read_bytes()
    _ask(given, tmp_path / "as.nii.gz")
    assert read_volume(tmp_path / "as.nii.gz").shape == (32, 24)


def _change(folder: Path, **fields: Any) -> Path:
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        for name, value in fields.items():
            setattr(data, name, value)
        data.save_as(path)
    return folder


@pytest.mark.parametrize("fields", [{}, {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15}])
def test_where_0_is_white_it_is_white_in_the_result(tmp_path: Path, fields: dict[str, int]) -> None:
    given = _change(_series(tmp_path / "given", 2), PhotometricInterpretation="MONOCHROME1", **fields)
    request = PredictRequest(inputs=[given], out=tmp_path / "fine")
    predict_file(Bicubic(), request, window=(-1024.0, 1024.0), scaling="percentile", name="test")
    assert pydicom.dcmread(tmp_path / "fine" / "0.dcm").PhotometricInterpretation == "MONOCHROME1"
    seen, shown = read_volume(given).array[0, ..., 0], read_volume(tmp_path / "fine").array[0, ..., 0]
    assert seen[0].mean() > seen[-1].mean()
    for place, fine in ((0, shown[:4]), (-1, shown[-4:])):
        np.testing.assert_allclose(fine.mean(), seen[place].mean(), atol=20)


def test_files_named_by_uid_keep_apart(tmp_path: Path) -> None:
    given = _series(tmp_path / "given", 3)
    for number in range(3):
        (given / f"{number}.dcm").rename(given / f"1.2.840.{number}")
    _ask(given, tmp_path / "fine")
    assert sorted(path.name for path in (tmp_path / "fine").iterdir()) == [f"1.2.840.{n}.dcm" for n in range(3)]


def test_originals_are_never_overwritten(tmp_path: Path) -> None:
    given = _series(tmp_path / "given", 2)
    before = (given / "0.dcm").read_bytes()
    for asked, out in ((given, given), (given / "0.dcm", given), (given / "0.dcm", given / "0.dcm")):
        with pytest.raises(UserError, match="would overwrite the original"):
            _ask(asked, out)
    assert (given / "0.dcm").read_bytes() == before


def test_every_spacing_is_divided_and_what_was_drawn_on_pixels_is_left_out(tmp_path: Path) -> None:
    given = _change(_series(tmp_path / "given", 1), ImagerPixelSpacing=[0.2, 0.1], ImageType="DERIVED")
    data = pydicom.dcmread(given / "0.dcm")
    del data.PixelSpacing
    data.add_new(0x60000010, "US", 6)
    data.save_as(given / "0.dcm")
    _ask(given / "0.dcm", tmp_path / "fine.ima")
    made = pydicom.dcmread(tmp_path / "fine.ima")
    assert [float(value) for value in made.ImagerPixelSpacing] == [0.05, 0.025]
    assert list(made.ImageType) == ["DERIVED", "SECONDARY"]
    assert 0x60000010 not in made


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    write_volume(Volume(np.zeros((1, 4, 9), np.uint8), np.eye(4)), tmp_path / "small.png")
    write_volume(Volume(np.zeros((1, 9, 9), np.uint8), np.eye(4)), tmp_path / "good.png")
    write_volume(Volume(np.zeros((3, 9, 9), np.uint8) + np.arange(3, dtype=np.uint8).reshape(3, 1, 1), np.eye(4)),
                 tmp_path / "color.png")  # fmt: skip
    given = _series(tmp_path / "given", 2)
    for asked, out, options, sentence in (
        ("small.png", "b.png", {}, "4 x 9 px where at least 5 x 5"),
        ("color.png", "b.png", {}, "in color"),
        ("good.png", "b.dcm", {}, "DICOM is written from DICOM"),
        ("good.png", "b.png", {"tile": "2"}, "tile"),
        ("good.png", "b.png", {"tiles": "20"}, "there are tile=PIXELS and overlap=PIXELS"),
    ):
        with pytest.raises(UserError, match=sentence):
            _ask(tmp_path / asked, tmp_path / out, options=options)
    with pytest.raises(UserError, match="a series of 2 slices needs a folder"):
        _ask(given, tmp_path / "b.dcm")
