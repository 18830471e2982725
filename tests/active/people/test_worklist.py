"""A round's folder says all that an annotator needs, and is written once."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from annotating import AXIAL, Annotator, Campaign, Held, films, query, slices, square, with_fields
from PIL import Image

from medray.active.answers import with_label
from medray.active.exchange import open_exchange
from medray.active.people.pictures import off_picture, picture
from medray.active.people.rules import LabelRules
from medray.active.people.worklist import safe_name, write_worklist
from medray.data.case import Case, Volume
from medray.data.fields import FileRef
from medray.data.sliced import slices_as_cases
from medray.data.writers import write_volume
from medray.errors import UserError

MASKS = LabelRules("mask", ("lesion",))


def write(folder: Path, cases: dict[str, Case], names: list[str], rules: LabelRules = MASKS, number: int = 0) -> None:
    write_worklist(open_exchange(str(folder)), query(number, names), cases, rules)


def test_the_table_lists_the_most_wanted_first_with_empty_answers(tmp_path: Path) -> None:
    cases = films(tmp_path / "data", ["a", "b/1"])
    write(tmp_path / "x", cases, ["b/1", "a"], number=3)
    first, second = Annotator(tmp_path / "x", 3).rows()
    assert (first["case"], first["patient"], first["score"]) == ("b/1", "patient b/1", "-1")
    assert first["picture"] == f"images/{safe_name('b/1')}.png"
    assert first["files"] == f"{tmp_path}/data/{safe_name('b/1')}.png"
    assert (second["case"], second["score"]) == ("a", "-0.875")
    assert {row[name] for row in (first, second) for name in ("label", "status", "note")} == {""}


def test_excel_sees_that_the_table_is_utf8(tmp_path: Path) -> None:
    write(tmp_path / "x", films(tmp_path, ["Müller 1"]), ["Müller 1"])
    raw = (tmp_path / "x/round-000/worklist.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    assert raw.count(b"\r\n") == 2


@pytest.mark.parametrize("scores", [(float("nan"),), ()])
def test_scores_that_nobody_gave_are_empty(tmp_path: Path, scores: tuple[float, ...]) -> None:
    asked = replace(query(0, ["a"]), scores=scores)
    write_worklist(open_exchange(str(tmp_path / "x")), asked, films(tmp_path, ["a"]), MASKS)
    (row,) = Annotator(tmp_path / "x").rows()
    assert row["score"] == ""


def test_a_slice_tells_its_volume_and_number_and_takes_the_mask_of_the_volume(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 100, (12, 16, 5))
    volume = Volume(voxels[None].astype(np.int16), AXIAL, header={"sform_code": 1})
    path = write_volume(volume, tmp_path / "p1_t1.nii.gz")
    of_volumes = [Case("p1", "p1", {"image": FileRef(str(path))})]
    cases = {case.id: case for case in slices_as_cases(of_volumes, occupied=0)}
    campaign = Campaign(tmp_path, MASKS, cases, ["p1/z=002"])
    (row,) = campaign.annotator.rows()
    assert row["files"] == f"{path} slice 2 from below, the first is 0"
    campaign.annotator.save_volume("p1/z=002", voxels > 60, AXIAL)
    (answer,) = campaign.collect().answers
    case = with_label(cases["p1/z=002"], answer, "mask")
    assert np.array_equal(case.volume("label").array > 0, case.volume("image").array > 60)


def test_fields_without_a_file_are_where_their_picture_is(tmp_path: Path) -> None:
    write(tmp_path, slices(["a"]), ["a"])
    assert Annotator(tmp_path).rows()[0]["files"] == "images/a.png"


@pytest.mark.parametrize("names", [("A", "a"), ("a/b", "a_b"), ("a b", "a/b"), ("x" * 200, "x" * 201), ("é", "è")])
def test_different_cases_have_different_file_names_everywhere(names: tuple[str, str]) -> None:
    safe = [safe_name(name) for name in names]
    assert safe[0].lower() != safe[1].lower()
    assert all(re.fullmatch(r"[a-z0-9_-]{1,80}", name) for name in safe)


@pytest.mark.parametrize("name", ["aux", "com1", "..", "/", " ", "患者", "con.1"])
def test_every_case_has_a_file_name_that_every_system_takes(name: str) -> None:
    safe = safe_name(name)
    assert re.fullmatch(r"[a-z0-9_-]+", safe)
    assert safe not in ("aux", "com1", "con")


def test_pictures_are_whole_and_turned_as_clinicians_read_them(tmp_path: Path) -> None:
    cases = slices(["a"])
    write(tmp_path, cases, ["a"])
    with Image.open(tmp_path / "round-000/images/a.png") as shown:
        pixels = np.asarray(shown)
    # the array's origin is right and front of the patient: the picture's upper left corner; axis 0 runs across
    assert pixels.shape == (16, 12)
    assert pixels.dtype == np.uint8
    assert pixels[:5, :4].min() > pixels[6:, 5:].max()
    assert (tmp_path / "round-000/images/auxiliary/a.png").is_file()


def test_what_is_drawn_on_the_picture_lands_where_the_image_has_it() -> None:
    for cases in (slices(["a"]), slices(["a"], (9, 9))):
        volume = cases["a"].volume("image")
        pixels = np.arange(volume.array[0].size, dtype=np.float32).reshape(volume.shape)
        shown = picture(replace(volume, array=pixels[None]))
        back = off_picture(shown, volume)
        assert (np.diff(back.ravel().astype(int)) >= 0).all()  # ascending again, as the image


def test_films_are_shown_as_they_are(tmp_path: Path) -> None:
    cases = films(tmp_path, ["a"])
    assert picture(cases["a"].volume("image")).shape == (12, 16)


def test_the_page_is_whole_in_itself_and_escaped(tmp_path: Path) -> None:
    name = "<script>alert('x')</script>&\"/1"
    cases = {name: replace(slices(["a"])["a"], id=name, patient="<b>p</b>")}
    write(tmp_path, cases, [name])
    page = (tmp_path / "round-000/index.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;p&lt;/b&gt;" in page
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    assert len(re.findall(r'<img src="data:image/jpeg;base64,', page)) == 2
    assert len(re.findall(r"(?:src|href)=\"(?!data:|images/)", page)) == 0
    assert "12 x 16 px (width x height)" in page


def test_the_guide_names_classes_and_what_to_write_where_there_is_no_answer(tmp_path: Path) -> None:
    cases = films(tmp_path, ["a"])
    write(tmp_path / "m", cases, ["a"], LabelRules("mask", ("core", "edema"), (1, 2)))
    write(tmp_path / "c", cases, ["a"], LabelRules("classes", ("ET", "ED")))
    masks, classes = ((tmp_path / f"{one}/round-000/HOW_TO.txt").read_text() for one in "mc")
    assert "0 background, 1 core, 2 edema" in masks
    assert 'ET, ED; or "none"' in classes
    assert all("cannot label" in text for text in (masks, classes))
    assert (tmp_path / "m/round-000/labels").is_dir()
    assert not (tmp_path / "c/round-000/labels").exists()


def test_asking_again_changes_nothing_that_was_filled_in(tmp_path: Path) -> None:
    cases = films(tmp_path, ["a", "b"])
    write(tmp_path / "x", cases, ["a", "b"])
    annotator = Annotator(tmp_path / "x")
    annotator.fill({"a": {"label": "none"}})
    annotator.draw("b", square())
    before = {path: path.read_bytes() for path in annotator.round.rglob("*") if path.is_file()}
    write(tmp_path / "x", cases, ["a", "b"])
    assert {path: path.read_bytes() for path in annotator.round.rglob("*") if path.is_file()} == before


def test_a_round_that_was_written_in_part_is_completed(tmp_path: Path) -> None:
    cases = films(tmp_path, ["a", "b"])
    write(tmp_path / "x", cases, ["a", "b"])
    annotator = Annotator(tmp_path / "x")
    filled = annotator.fill({"a": {"label": "none"}}).read_bytes()
    (annotator.round / "query.json").unlink()  # killed before the last file
    (annotator.round / "images/b.png").unlink()
    write(tmp_path / "x", cases, ["a", "b"])
    assert (annotator.round / "images/b.png").is_file()
    assert (annotator.round / "worklist.csv").read_bytes() == filled
    assert json.loads((annotator.round / "query.json").read_text())["cases"] == ["a", "b"]


def test_a_table_that_was_taken_away_is_not_written_again(tmp_path: Path) -> None:
    cases = films(tmp_path, ["a"])
    write(tmp_path / "x", cases, ["a"])
    (tmp_path / "x/round-000/worklist.csv").rename(tmp_path / "x/round-000/done.csv")
    write(tmp_path / "x", cases, ["a"])
    assert not (tmp_path / "x/round-000/worklist.csv").exists()


def test_the_folder_of_another_campaign_is_refused(tmp_path: Path) -> None:
    cases = films(tmp_path, ["a", "b"])
    write(tmp_path / "x", cases, ["a"])
    with pytest.raises(UserError, match="asks for other cases than this campaign does"):
        write(tmp_path / "x", cases, ["b"])


def test_big_images_make_small_thumbnails(tmp_path: Path) -> None:
    (case,) = films(tmp_path, ["a"], (1000, 1500)).values()
    volume = case.volume("image")
    write(tmp_path / "x", {"a": with_fields(case, image=Held(volume))}, ["a"])
    page = (tmp_path / "x/round-000/index.html").read_bytes()
    with Image.open(tmp_path / "x/round-000/images/a.png") as whole:
        assert whole.size == (1500, 1000)
    assert len(page) < 200_000
    assert Image.open(io.BytesIO((tmp_path / "x/round-000/images/a.png").read_bytes())).mode == "L"
