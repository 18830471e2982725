import numpy as np
import pytest
from PIL import Image

from medray.data.sources import open_source
from medray.errors import UserError


def picture(path, value=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / "images" / f"{name}.png", ord(name))
        picture(tmp_path / "masks" / f"{name}.png")
    return tmp_path


def attributes(folder):
    return {case.id: (case.patient, dict(case.attributes)) for case in open_source(str(folder)).cases}


def test_rows_become_attributes_of_the_cases_they_name(folder):
    (folder / "labels.csv").write_text("id;patient;grade;sex\nb;p1;4;F\na;p1;0;\n")
    assert attributes(folder) == {"a": ("p1", {"grade": "0"}), "b": ("p1", {"grade": "4", "sex": "F"})}


def test_a_case_without_a_row_stays_as_it_is_and_a_row_without_an_image_is_told(folder):
    (folder / "labels.csv").write_text("case,grade\nb,4\nzz,1\n")
    source = open_source(str(folder))
    assert attributes(folder) == {"a": ("a", {}), "b": ("b", {"grade": "4"})}
    assert [(bad.case, bad.reason.split(" of ")[0]) for bad in source.bad] == [("zz", "row 2")]


def test_a_row_of_several_images_names_them(tmp_path):
    for name in ("train/images/a", "train/images/b", "test/images/b"):
        picture(tmp_path / f"{name}.png", ord(name[-1]) + len(name))
    (tmp_path / "labels.csv").write_text("case,grade\nb,3\ntrain,2\ntest,1\n")
    told = {bad.case: bad.reason for bad in open_source(str(tmp_path)).bad}
    assert "several images (test/b, train/b), name one" in told["b"]
    assert "several images (train/a, train/b), name one" in told["train"]
    assert "no image in the folder" in told["test"]


def test_the_table_is_part_of_the_data(folder):
    before = open_source(str(folder)).fingerprint
    (folder / "labels.csv").write_text("case,grade\nb,4\n")
    assert open_source(str(folder)).fingerprint != before


def test_cases_in_folders_are_named_by_their_id_or_by_its_last_part(tmp_path):
    for name in ("train/images/a", "train/images/b", "test/images/b", "test/images/c"):
        picture(tmp_path / f"{name}.png", ord(name[-1]) + len(name))
    (tmp_path / "labels.csv").write_text("case,grade\nc,3\ntrain/b,1\n")
    grades = {name: known[1].get("grade") for name, known in attributes(tmp_path).items()}
    assert grades == {"test/b": None, "test/c": "3", "train/a": None, "train/b": "1"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,grade\na,1\n", "has no column case or id, which says whose row it is; it has name, grade"),
        ("id,grade\na,1\na,2\n", "row 2: case 'a' has a row already"),
        ("id,grade\na\n", "row 1: 1 cells where the header has 2 columns"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_sentence(folder, text, sentence):
    (folder / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        open_source(str(folder))
