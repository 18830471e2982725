"""DICOM series: sorted by position, rescaled, in RAS; patients told apart without their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose

from medray.data.check import check_cases
from medray.data.readers import read_volume
from medray.data.sources import open_source
from medray.errors import UserError

Save = Callable[..., Path]


def test_series_is_sorted_by_position_and_rescaled(tmp_path: Path, save_series: Save) -> None:
    folder = save_series(tmp_path / "ct", [4.0, 0.0, 2.0])  # file names in another order than the positions
    volume = read_volume(folder)
    assert volume.shape == (4, 3, 3)  # columns, rows, slices
    # stored 100 * z + column, rescaled by 2 x - 1000
    assert_allclose(volume.array[0, :, 0, 0], [-1000, -998, -996, -994])
    assert_allclose(volume.array[0, 0, 0, :], [-1000, -600, -200])
    expected = np.array([[-0.25, 0, 0, -5], [0, -0.5, 0, -7], [0, 0, 2, 0], [0, 0, 0, 1]])
    assert_allclose(volume.affine, expected, atol=1e-9)


def test_single_file_is_a_2d_image(tmp_path: Path, save_series: Save) -> None:
    save_series(tmp_path, [6.0])
    volume = read_volume(next(tmp_path.glob("*.dcm")))
    assert volume.shape == (4, 3)
    assert_allclose((volume.affine @ [0, 0, 0, 1])[:3], [-5, -7, 6])


def test_several_series_are_named_and_can_be_chosen(tmp_path: Path, save_series: Save) -> None:
    save_series(tmp_path, [0.0, 2.0], uid="1.2.7")
    save_series(tmp_path, [10.0, 12.0, 14.0], uid="1.2.8")
    with pytest.raises(UserError) as caught:
        read_volume(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds 2 DICOM series where one is expected; add #UID to choose: "
        "1.2.7 (series 1.2.7, 2 files); 1.2.8 (series 1.2.8, 3 files)"
    )
    assert read_volume(f"{tmp_path}#1.2.8").shape == (4, 3, 3)
    with pytest.raises(UserError, match=r"holds no DICOM series 9\.9; it holds 1\.2\.7, 1\.2\.8"):
        read_volume(f"{tmp_path}#9.9")


def test_missing_slice_is_told(tmp_path: Path, save_series: Save) -> None:
    folder = save_series(tmp_path, [0.0, 2.0, 4.0, 8.0, 10.0])
    with pytest.raises(UserError, match=r"not evenly spaced, 4\.00 mm after .*-002\.dcm where 2\.00 mm is usual"):
        read_volume(folder)


def _copy(folder: Path, source: int, name: str, **changed: object) -> Path:
    """One more file of a series, with other tags."""
    data = pydicom.dcmread(sorted(folder.glob("*.dcm"))[source])
    for tag, value in changed.items():
        setattr(data, tag, value)
    data.save_as(folder / name)
    return folder


def test_a_slice_given_twice_is_told_and_what_it_is(tmp_path: Path, save_series: Save) -> None:
    folder = _copy(save_series(tmp_path / "copied", [0.0, 2.0, 4.0]), 1, "again.dcm")
    with pytest.raises(UserError) as caught:
        read_volume(folder)
    assert str(caught.value) == (
        f"{folder}: 1 of 4 slices lie where another one does, as 1.2.3.4-001.dcm and again.dcm with the same pixels; "
        "remove the copies"
    )
    echoes = save_series(tmp_path / "echoes", [0.0, 2.0, 4.0, 0.0, 2.0, 4.0])
    for path in sorted(echoes.glob("*.dcm"))[3:]:
        data = pydicom.dcmread(path)
        data.PixelData = np.full((3, 4), 7, np.uint16).tobytes()
        data.save_as(path)
    with pytest.raises(UserError, match=r"3 of 6 slices lie where another .* with other pixels; keep"):
        read_volume(echoes)


def test_slices_of_several_sizes_or_planes_in_one_series(tmp_path: Path, save_series: Save) -> None:
    small = np.zeros((2, 2), np.uint16).tobytes()
    folder = _copy(save_series(tmp_path / "sizes", [0.0, 2.0]), 0, "z.dcm", Rows=2, Columns=2, PixelData=small)
    _copy(folder, 2, "z.dcm", ImagePositionPatient=[5.0, 7.0, 4.0])
    with pytest.raises(UserError, match=r"slices of different size .*: .*-000\.dcm is 4 x 3, z\.dcm is 2 x 2"):
        read_volume(folder)
    turned = [1, 0, 0, 0, 0, -1]
    folder = _copy(save_series(tmp_path / "planes", [0.0, 2.0]), 0, "z.dcm", ImageOrientationPatient=turned)
    with pytest.raises(UserError, match=r"slices of different planes in one series, .*; a localizer is no volume"):
        read_volume(folder)


def test_bad_series_are_set_aside_one_sentence_each(tmp_path: Path, save_series: Save) -> None:
    save_series(tmp_path / "good", [0.0, 2.0, 4.0], uid="1.1")
    save_series(tmp_path / "gap", [0.0, 2.0, 4.0, 8.0], uid="1.2")
    _copy(save_series(tmp_path / "twice", [0.0, 2.0, 4.0], uid="1.3"), 0, "again.dcm")
    save_series(tmp_path / "two", [0.0, 2.0], uid="1.4")
    save_series(tmp_path / "two", [0.0, 2.0, 5.0, 7.0], uid="1.5")
    cases = open_source(str(tmp_path)).cases
    good, bad = check_cases(cases, required=("image",), spatial_dims=3, policy="quarantine")
    assert [case.id for case in good] == ["good", "two/0"]  # a series of its own for each one in a mixed folder
    reasons = {one.case: one.reason for one in bad}
    assert set(reasons) == {"gap", "twice", "two/1"}
    assert "4.00 mm after" in reasons["gap"]
    assert "with the same pixels" in reasons["twice"]
    assert "3.00 mm after" in reasons["two/1"]


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no DICOM files \(\.dcm\); expected the slices of one series"):
        read_volume(tmp_path)


def test_source_of_series_folders(tmp_path: Path, save_series: Save) -> None:
    save_series(tmp_path / "a" / "first", [0.0, 2.0], uid="1.1")
    save_series(tmp_path / "a" / "second", [0.0, 2.0], uid="1.2")
    save_series(tmp_path / "b", [0.0, 2.0], uid="1.3", patient="other", suffix="")
    save_series(tmp_path / "b", [0.0, 2.0, 4.0], uid="1.4", patient="other", suffix="")
    source = open_source(str(tmp_path))
    assert [case.id for case in source.cases] == ["a/first", "a/second", "b/0", "b/1"]
    patients = [case.patient for case in source.cases]
    assert patients[0] == patients[1] != patients[2] == patients[3]
    assert "Jane" not in str(source.cases)
    assert source.cases[0].attributes["modality"] == "ct"
    assert source.cases[3].volume("image").shape == (4, 3, 3)


def test_damaged_series_is_set_aside(tmp_path: Path, save_series: Save) -> None:
    save_series(tmp_path / "good", [0.0, 2.0])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.dcm").write_bytes(b"junk")
    source = open_source(str(tmp_path))
    assert [case.id for case in source.cases] == ["good"]
    assert source.bad[0].case == "bad"
    assert "x.dcm is truncated or not a DICOM file" in source.bad[0].reason


def test_oblique_series_keeps_positions(tmp_path: Path, save_series: Save) -> None:
    save_series(tmp_path, [0.0, 2.0, 4.0])
    cosine, sine = np.cos(0.3), np.sin(0.3)
    normal = np.array([0.0, -sine, cosine])
    for number, path in enumerate(sorted(tmp_path.glob("*.dcm"))):
        data = pydicom.dcmread(path)
        data.ImageOrientationPatient = [1, 0, 0, 0, round(cosine, 8), round(sine, 8)]
        data.ImagePositionPatient = [round(v, 6) for v in np.array([5.0, 7.0, 0.0]) + 2.0 * number * normal]
        data.save_as(path)
    volume = read_volume(tmp_path)
    expected = np.array([-5.0, -7.0, 0.0]) + 4.0 * normal * [-1, -1, 1]
    assert_allclose((volume.affine @ [0, 0, 2, 1])[:3], expected, atol=1e-4)
