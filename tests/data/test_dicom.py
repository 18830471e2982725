"""DICOM series: sorted by position, rescaled, in RAS; patients told apart without their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

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
    import pydicom

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
