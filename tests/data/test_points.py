"""Points and pictures in every form a user may have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from medray.data.case import Case, Volume
from medray.data.fields import FileRef, kind_of
from medray.data.pictures import rgb_pixels
from medray.data.points import as_points, centroids, point_outside, points_of
from medray.errors import UserError

EXPECTED = [[2.0, 10.0], [4.5, 20.0]]  # rows 2 and 4.5, columns 10 and 20


def _points(path: Path, field: str = "points") -> Any:
    return points_of(Case("a", "a", {field: FileRef(str(path), kind_of(field, str(path)))}))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "x,y\n10,2\n20,4.5\n"),
        ("a.csv", "id,Row,Col\n1,2,10\n2,4.5,20\n"),
        ("a.csv", "x_px,y_px,score\n10,2,.9\n20,4.5,.8\n"),
        ("a.json", json.dumps([{"x": 10, "y": 2}, {"x": 20, "y": 4.5}])),
        ("a.json", json.dumps([[10, 2], [20, 4.5]])),
        ("a.json", json.dumps({"points": [[10, 2], [20, 4.5]]})),
        ("a.json", json.dumps({"x": [10, 20], "y": [2, 4.5]})),
    ],
)
def test_tables_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert _points(tmp_path / name).tolist() == EXPECTED


def test_matlab_counts_from_one(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "img1_detection.mat", {"detection": np.array([[11, 3], [21, 5.5]]), "other": 1.0})
    assert _points(tmp_path / "img1_detection.mat").tolist() == EXPECTED


def test_matlab_objects_are_not_unpickled_and_damage_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(b"not a mat file at all, but long enough to be looked at " * 4)
    with pytest.raises(UserError, match=r"a\.mat is truncated, damaged or not a MATLAB file"):
        _points(tmp_path / "a.mat")
    scipy.io.savemat(tmp_path / "b.mat", {"name": "text only"})
    with pytest.raises(UserError, match=r"b\.mat holds no numeric matrix"):
        _points(tmp_path / "b.mat")


def test_instances_stand_for_their_centroids(tmp_path: Path) -> None:
    instances = np.zeros((6, 8), dtype=np.uint16)
    instances[0:2, 0:4] = 7
    instances[4, 6] = 300
    assert centroids(instances).tolist() == [[0.5, 1.5], [4.0, 6.0]]
    np.save(tmp_path / "a.npy", instances)
    assert _points(tmp_path / "a.npy", "instances").tolist() == [[0.5, 1.5], [4.0, 6.0]]
    assert centroids(np.zeros((3, 3), dtype=int)).shape == (0, 2)


@pytest.mark.parametrize("text", ["x,y\n", "row,col\n"])
def test_no_nuclei_is_no_mistake(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert _points(tmp_path / "a.csv").shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b\n1,2\n", r"a\.csv: points are in the columns x and y, or row and col, found a, b"),
        ("x,y\n1,left\n", r"a\.csv: the column y holds something that is not a number"),
        ("x,y\n1,2\n3,nan\n", r"a\.csv: point 2 has a coordinate that is not finite"),
    ],
)
def test_a_table_that_is_none_is_told(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        _points(tmp_path / "a.csv")


def test_pairs_of_three_are_refused() -> None:
    with pytest.raises(UserError, match="a list of x and y"):
        as_points([[1, 2, 3]])


def test_the_point_outside_is_named_with_the_image() -> None:
    points = np.array([[2.0, 3.0], [9.6, 1.0], [0.0, 99.0]])
    sentence = point_outside(points, (10, 20))
    assert sentence.startswith("point 2 at x=1, y=9.6 px is outside its image of 20 x 10 px (width x height) (2 such")
    assert point_outside(points[:1], (10, 20)) == ""
    assert point_outside(np.array([[9.4, 19.4], [-0.4, 0.0]]), (10, 20)) == ""  # within the border pixels


def _volume(array: Any) -> Volume:
    return Volume(np.asarray(array), np.eye(4), "a.png")


def test_pictures_become_eight_bit_color() -> None:
    gray = rgb_pixels(_volume(np.full((1, 2, 3), 65535, dtype=np.uint16)))
    assert gray.shape == (2, 3, 3)
    assert (gray == 255).all()
    assert rgb_pixels(_volume(np.full((3, 2, 2), 0.5, dtype=np.float32)))[0, 0].tolist() == [128, 128, 128]


@pytest.mark.parametrize(
    ("array", "color", "sentence"),
    [
        (np.zeros((1, 4, 4), np.uint8), True, "is a grayscale image where an RGB image is expected"),
        (np.zeros((3, 4, 4), np.uint8), True, "is a grayscale image where an RGB image is expected"),
        (np.zeros((2, 4, 4), np.uint8), False, "has 2 channels where a picture has 1"),
        (np.zeros((1, 4, 4, 4), np.uint8), False, "is 3D"),
        (np.full((1, 4, 4), -5, np.int16), False, "values from -5 to -5"),
        (np.full((1, 4, 4), 40.0, np.float32), False, "values from 40 to 40"),
    ],
)
def test_what_is_no_picture_is_told(array: Any, color: bool, sentence: str) -> None:
    with pytest.raises(UserError, match=f"a.png {sentence}" if "values" not in sentence else sentence):
        rgb_pixels(_volume(array), color=color)
