"""Planes of scans, and 2D slices turned as they are looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from medray.data.case import Volume
from medray.data.geometry import canonical
from medray.data.orientation import has_position, slice_plane, upright_spacing, upright_view
from medray.data.readers import read_volume

Save = Callable[..., Path]
CORONAL = ([1, 0, 0, 0, 0, -1], [0.0, 3.0, 0.0])  # row and column direction and step between slices, LPS
SAGITTAL = ([0, 1, 0, 0, 0, -1], [3.0, 0.0, 0.0])
AXIAL = ([1, 0, 0, 0, 1, 0], [0.0, 0.0, 3.0])


def _volume(spacing: tuple[float, ...], turned: float = 0.0, shape: tuple[int, ...] = (8, 9, 10)) -> Volume:
    """Axes Right, Superior, Anterior (coronal slices stacked along the last), turned about the vertical by degrees."""
    angle = np.deg2rad(turned)
    axes = np.array([[np.cos(angle), 0, -np.sin(angle)], [np.sin(angle), 0, np.cos(angle)], [0.0, 1.0, 0.0]])
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    return Volume(np.zeros((1, *shape)), affine)


@pytest.mark.parametrize(
    ("turned", "plane"),
    [(0, "coronal"), (30, "coronal"), (-38, "coronal"), (45, ""), (60, "sagittal"), (90, "sagittal")],
)
def test_the_plane_of_oblique_slices(turned: float, plane: str) -> None:
    assert slice_plane(_volume((1, 1, 4), turned)) == plane


def test_slices_are_told_by_their_thickness() -> None:
    assert slice_plane(_volume((4, 1, 1))) == "sagittal"
    assert slice_plane(_volume((1, 4, 1))) == "axial"
    assert slice_plane(_volume((1, 1, 1))) == ""  # isotropic: any plane is as good
    assert slice_plane(canonical(_volume((1, 1, 4), 20))) == "coronal"  # whatever the order of the axes
    assert slice_plane(Volume(np.zeros((1, 4, 4)), np.eye(4), header={"format": "raster"})) == ""


@pytest.fixture
def save_turned(save_series: Save) -> Callable[..., Path]:
    """A DICOM series of 3 x 4 pixels in a plane; the pixels of slice 0 are 0 to 11 in reading order."""

    def save(folder: Path, plane: tuple[list[float], list[float]], slices: int = 3) -> Path:
        save_series(folder, [float(n) for n in range(slices)])
        for number, path in enumerate(sorted(folder.glob("*.dcm"))):
            data = pydicom.dcmread(path)
            data.ImageOrientationPatient = plane[0]
            data.ImagePositionPatient = [number * step for step in plane[1]]
            data.RescaleSlope, data.RescaleIntercept = 1, 0
            data.PixelData = (np.arange(12, dtype=np.uint16) + 100 * number).tobytes()
            data.save_as(path)
        return folder

    return save


READ: NDArray[np.int64] = np.arange(12).reshape(3, 4)


@pytest.mark.parametrize(("plane", "name"), [(CORONAL, "coronal"), (SAGITTAL, "sagittal"), (AXIAL, "axial")])
def test_a_dicom_slice_is_turned_as_its_picture(
    tmp_path: Path, save_turned: Callable[..., Path], plane: tuple[list[float], list[float]], name: str
) -> None:
    folder = save_turned(tmp_path / "series", plane)
    assert slice_plane(read_volume(folder)) == name
    one = read_volume(next(iter(sorted(folder.glob("*.dcm")))))
    assert (one.shape, slice_plane(one)) == ((4, 3), name)  # columns first
    assert_array_equal(upright_view(one.array, one)[0], READ)
    assert upright_spacing(one) == pytest.approx((0.5, 0.25))
    result = np.zeros((1, *one.shape))
    upright_view(result, one)[0] = READ  # what a network found, on the file's own grid
    assert_array_equal(result, one.array)


def test_a_slice_stored_against_the_habit_is_turned_round(tmp_path: Path, save_turned: Callable[..., Path]) -> None:
    folder = save_turned(tmp_path, ([-1, 0, 0, 0, 0, 1], [0.0, 3.0, 0.0]))  # from left to right, and from below
    one = read_volume(next(iter(sorted(folder.glob("*.dcm")))))
    assert_array_equal(upright_view(one.array, one)[0], READ[::-1, ::-1])


def test_pictures_stay_as_they_are(tmp_path: Path) -> None:
    picture = Volume(READ[None], np.diag([2.0, 3.0, 1.0, 1.0]), header={"format": "phantom"})
    assert not has_position(picture)
    assert upright_view(picture.array, picture) is picture.array
    assert upright_spacing(picture) == (2.0, 3.0)
    with pytest.raises(ValueError, match="2D image"):
        upright_view(np.zeros((1, 2, 2, 2)), _volume((1, 1, 4)))
