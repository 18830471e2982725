"""Centrelines as fields of cases: layouts, packing, what is said about bad ones, and images to trace in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medray.data.case import Case, Volume
from medray.data.check import check_cases
from medray.data.fields import FileRef, kind_of
from medray.data.packing import pack
from medray.data.readers import read_traces, read_volume
from medray.data.shards import decode, encode
from medray.data.sources import open_source
from medray.data.traces import centrelines_of, centrelines_problem, picture_of, pixel_size_mm
from medray.errors import UserError

SWC = "1 2 3 4 0 1 -1\n2 2 6 8 0 1 1\n3 2 6 18 0 1 2\n"
LINE = [[[3.0, 4.0], [6.0, 8.0], [6.0, 18.0]]]


def _image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (30, 40)).astype(np.uint8)).save(path)


def _json(path: Path, points: list[list[list[float]]], **about: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"branches": [{"points": line} for line in points], **about}))


def _lines(case: Case) -> list[list[list[float]]]:
    return [branch.points.tolist() for branch in centrelines_of(case).branches]


@pytest.mark.parametrize("folder", ["centrelines", "Centerlines", "traces"])
def test_images_and_a_folder_of_centrelines(tmp_path: Path, folder: str) -> None:
    for number, name in enumerate("ab"):
        _image(tmp_path / "images" / f"{name}.png", number)
        _image(tmp_path / "vessels" / f"{name}.png", number + 2)
    _json(tmp_path / folder / "a.json", LINE, shape=[30, 40], polarity="dark")
    (tmp_path / folder / "b.swc").write_text(SWC)
    (tmp_path / folder / "c.swc").write_text(SWC)
    source = open_source(str(tmp_path))
    assert [(case.id, sorted(case.fields)) for case in source.cases] == [
        ("a", ["centrelines", "image", "label"]),
        ("b", ["centrelines", "image", "label"]),
    ]
    assert [_lines(case) for case in source.cases] == [LINE, LINE]
    assert centrelines_of(source.cases[0]).polarity == "dark"
    (orphan,) = source.bad
    assert orphan.reason.endswith("c.swc have no image of the same name")


@pytest.mark.parametrize("folder", ["", "images", "cortex"])
def test_swc_beside_its_image(tmp_path: Path, folder: str) -> None:
    _image(tmp_path / folder / "a.png")
    (tmp_path / folder / "a.swc").write_text(SWC)
    (case,) = open_source(str(tmp_path)).cases
    assert sorted(case.fields) == ["centrelines", "image"]
    assert _lines(case) == LINE


def test_a_manifest_and_named_folders_know_them(tmp_path: Path) -> None:
    _image(tmp_path / "pictures" / "a.png")
    _json(tmp_path / "axons" / "a.json", LINE)
    (tmp_path / "index.csv").write_text("case,patient,image,centrelines\na,a,pictures/a.png,axons/a.json\n")
    for spec in (f"{tmp_path}/index.csv", f"{tmp_path}?image=pictures&centrelines=axons"):
        (case,) = open_source(spec).cases
        assert _lines(case) == LINE
    assert kind_of("axon", "a.swc") == "traces"
    assert kind_of("notes", "a.json") == "table"


def test_packed_centrelines_are_the_same(tmp_path: Path) -> None:
    _image(tmp_path / "a.png")
    (tmp_path / "a.swc").write_text(SWC)
    source = open_source(str(tmp_path))
    value = source.cases[0].load("centrelines")
    assert decode(encode(value, "a"), "a") == value
    pack(source, str(tmp_path / "packed"))
    packed = open_source(str(tmp_path / "packed"))
    assert packed.fingerprint == source.fingerprint
    assert _lines(packed.cases[0]) == LINE


def test_bad_files_are_bad_cases_with_a_sentence(tmp_path: Path) -> None:
    _image(tmp_path / "a.png")
    (tmp_path / "a.swc").write_text("1 2 3 4\n")
    (case,) = open_source(str(tmp_path)).cases
    with pytest.raises(UserError, match=r"a\.swc, line 1: '1 2 3 4' where seven numbers are expected"):
        check_cases([case], required=("image", "centrelines"))
    with pytest.raises(UserError, match=r"nowhere\.swc does not exist"):
        read_traces(tmp_path / "nowhere.swc")
    with pytest.raises(UserError, match="case a has no centrelines"):
        centrelines_of(Case("a", "a", {}))


def test_a_point_outside_is_named_with_its_file_and_branch(tmp_path: Path) -> None:
    _json(tmp_path / "a.json", [*LINE, [[1.0, 1.0], [39.0, 29.6]]])
    case = Case("a", "a", {"centrelines": FileRef(str(tmp_path / "a.json"), "traces")})
    problem = centrelines_problem(case, (30, 40))
    assert problem.startswith(f"{tmp_path / 'a.json'}, branch 1, point 1 at x=39, y=29.6 px is outside its image of")
    assert centrelines_problem(case, (31, 40)) == ""
    _json(tmp_path / "a.json", [])
    assert "holds no branch" in centrelines_problem(case, (30, 40))
    (tmp_path / "a.json").write_text("[")
    assert "not readable JSON" in centrelines_problem(case, (30, 40))


def test_volumes_become_planes_with_their_pixel_size(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    _image(tmp_path / "a.png")
    flat = read_volume(tmp_path / "a.png")
    np.testing.assert_array_equal(picture_of(flat), flat.array[0])
    pages = Volume(random.normal(size=(1, 5, 30, 40)), np.diag([1, 2, 3, 1.0]), header={"format": "raster"})
    np.testing.assert_array_equal(picture_of(pages), pages.array[0].max(axis=0).astype(np.float32))
    assert pixel_size_mm(pages) == (3.0, 2.0)
    scan = Volume(random.normal(size=(1, 30, 40, 5)), np.diag([0.5, 2, 3, 1.0]))
    np.testing.assert_array_equal(picture_of(scan, projection="min"), scan.array[0].min(axis=2).astype(np.float32))
    assert pixel_size_mm(scan) == (2.0, 0.5)
    color = Volume(random.normal(size=(3, 30, 40)), np.eye(4), header={"format": "raster"})
    np.testing.assert_array_equal(picture_of(color, color="green"), color.array[1].astype(np.float32))
    with pytest.raises(UserError, match=r"a\.tif has the same value everywhere"):
        picture_of(Volume(np.zeros((1, 30, 40)), np.eye(4), "a.tif"))


@pytest.mark.real_data
def test_vessels_of_the_retina(real_data: Path) -> None:
    if not (real_data / "retina_drive").is_dir():
        pytest.skip(f"{real_data} has no retina_drive")
    source = open_source(str(real_data / "retina_drive"))
    assert len(source.cases) == 16
    assert {tuple(sorted(case.fields)) for case in source.cases} == {("centrelines", "image", "label")}
    assert source.bad == ()
    good, bad = check_cases(source.cases, required=("image", "centrelines", "label"), spatial_dims=2)
    assert (len(good), bad) == (16, ())
    lines = [centrelines_of(case) for case in source.cases]
    assert sum(len(one.branches) for one in lines) == 1294
    assert {one.polarity for one in lines} == {"dark"}
    assert [centrelines_problem(case, (584, 565)) for case in source.cases] == [""] * 16
    label = source.cases[0].volume("label").array[0]
    columns, rows = np.rint(np.concatenate([branch.points for branch in lines[0].branches])).astype(int).T
    assert label[rows, columns].mean() > 0.95
