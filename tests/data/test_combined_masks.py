"""Masks of a file each: found beside their images, put together as one label map, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from medray.data.case import Case
from medray.data.check import check_cases
from medray.data.combined_masks import combine_masks
from medray.data.label_values import unknown_values
from medray.data.sources import open_source
from medray.errors import UserError

VALUES = {"tendon": 1, "tear": 2}
TENDON = np.array([[255, 255, 0], [0, 255, 0]], np.uint8)
TEAR = np.array([[0, 255, 0], [0, 0, 255]], np.uint8)


def _save(path: Path, array: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``mri/``, ``tear/`` and ``tendon/`` with two slices, the second of which shows nothing."""
    for number, name in enumerate(("0031", "0252")):
        _save(tmp_path / "mri" / f"{name}.png", np.full((2, 3), 90 + number, np.uint8))
        _save(tmp_path / "tear" / f"{name}.png", TEAR * (1 - number))
        _save(tmp_path / "tendon" / f"{name}.png", TENDON * (1 - number))
    return tmp_path


def test_folders_of_masks_beside_the_images_are_fields(folder: Path) -> None:
    lost = _save(folder / "tear" / "0999.png", TEAR)
    source = open_source(str(folder))
    assert [(case.id, case.patient) for case in source.cases] == [("0031", "0031"), ("0252", "0252")]
    assert set(source.cases[0].fields) == {"image", "tear", "tendon"}
    assert source.cases[0].attributes == {"modality": "mri"}
    assert_array_equal(source.cases[0].volume("tear").array[0], TEAR // 255)
    assert [(bad.case, bad.reason) for bad in source.bad] == [("0999", f"tear {lost} has no image of the same name")]


def test_a_folder_called_masks_is_the_label(folder: Path) -> None:
    (folder / "tendon").rename(folder / "masks")
    (case, _) = open_source(str(folder)).cases
    assert set(case.fields) == {"image", "tear", "label"}


def test_two_modalities_or_other_names_are_no_masks(folder: Path) -> None:
    for name in ("0031", "0252"):
        _save(folder / "t1" / f"{name}.png", np.full((2, 3), 7, np.uint8))
    assert "tear" not in open_source(str(folder)).cases[0].fields  # mri and t1: images beside images
    other = folder / "other"
    _save(other / "mri" / "a.png", TENDON)
    _save(other / "covid" / "b.png", TENDON)
    assert {case.id for case in open_source(str(other)).cases} == {"mri/a", "covid/b"}


def test_the_later_mask_wins(folder: Path) -> None:
    first, second = combine_masks(open_source(str(folder)).cases, VALUES)
    assert set(first.fields) == {"image", "label"}
    label = first.volume("label")
    assert label.array.dtype == np.uint8
    assert_array_equal(label.array[0], [[1, 2, 0], [0, 1, 2]])  # the pixel that both hold is a tear
    assert_array_equal(second.volume("label").array, 0)
    (swapped, _) = combine_masks(open_source(str(folder)).cases, {"tear": 2, "tendon": 1})
    assert_array_equal(swapped.volume("label").array[0], [[1, 1, 0], [0, 1, 2]])
    assert first.fields["label"].fingerprint() != swapped.fields["label"].fingerprint()
    good, bad = check_cases([first, second], required=("image", "label"), spatial_dims=2, empty_labels=True)
    assert (len(good), bad) == (2, ())


def test_a_manifest_and_named_folders_give_the_same(folder: Path) -> None:
    rows = [f"{name},p1,mri/{name}.png,tear/{name}.png,tendon/{name}.png" for name in ("0031", "0252")]
    (folder / "index.csv").write_text("\n".join(["case,patient,image,tear,tendon", *rows]))
    kinds = {"tear": "label", "tendon": "label"}
    for spec in (f"{folder}/index.csv", f"{folder}?image=mri&tear=tear&tendon=tendon"):
        (case, _) = combine_masks(open_source(spec, fields=kinds).cases, VALUES)  # type: ignore[arg-type]
        assert_array_equal(case.volume("label").array[0], [[1, 2, 0], [0, 1, 2]])
    assert {case.patient for case in open_source(f"{folder}/index.csv").cases} == {"p1"}


def test_what_has_a_label_or_no_mask_stays_and_half_the_masks_are_told(folder: Path) -> None:
    (case, _) = open_source(str(folder)).cases
    alone = Case("a", "a", {"image": case.fields["image"]})
    ready = Case("b", "b", {**alone.fields, "label": case.fields["tear"], "tear": case.fields["tear"]})
    assert combine_masks([alone, ready], VALUES) == [alone, ready]
    (half,) = combine_masks([Case("c", "c", {**alone.fields, "tendon": case.fields["tendon"]})], VALUES)
    with pytest.raises(UserError, match=r"^case c has a tendon mask but no tear mask; save an empty one$"):
        half.load("label")
    with pytest.raises(ValueError, match="1 to 255"):
        combine_masks([alone], {"tendon": 0})


def test_gray_edges_colors_and_other_sizes_are_sentences(folder: Path) -> None:
    _save(folder / "tear" / "0031.png", np.array([[0, 255, 128], [0, 0, 1]], np.uint8))
    _save(folder / "tendon" / "0252.png", np.zeros((3, 3), np.uint8))
    cases = combine_masks(open_source(str(folder)).cases, VALUES)
    with pytest.raises(UserError, match=r"0031\.png holds the value 128; a mask of one structure \(tear\) holds"):
        cases[0].load("label")
    with pytest.raises(UserError, match=r"tear/0252\.png is 2 x 3 where .*tendon/0252\.png, .*, is 3 x 3"):
        cases[1].load("label")
    color = np.zeros((2, 3, 3), np.uint8)
    color[0, 0] = (255, 0, 0)
    _save(folder / "tear" / "0031.png", color)
    _save(folder / "tendon" / "0252.png", TENDON)
    good, bad = check_cases(cases, required=("image", "label"), policy="quarantine", empty_labels=True)
    assert [case.id for case in good] == ["0252"]
    assert "0031.png is a color image where a label map is expected" in bad[0].reason


def test_values_without_a_class_are_named(tmp_path: Path) -> None:
    for name, value in (("a", 2), ("b", 7)):
        _save(tmp_path / "images" / f"{name}.png", TENDON)
        _save(tmp_path / "labels" / f"{name}.png", np.array([[0, 1], [value, 1]], np.uint8))
    cases = open_source(str(tmp_path)).cases
    (bad,) = unknown_values(cases, (1, 2))
    assert bad.case == "b"
    assert bad.reason == f"{tmp_path / 'labels' / 'b.png'} holds the label value 7; known are 0, 1, 2"
    assert unknown_values(cases, (1, 2, 7)) == []
    assert unknown_values(cases, (1, 2), field="lesion") == []


@pytest.mark.real_data
def test_real_slices_with_tears(real_data: Path) -> None:
    root = real_data / "shoulder_mri"
    if not root.is_dir():
        pytest.skip(f"{real_data} has no shoulder_mri")
    source = open_source(str(root))
    cases = combine_masks(source.cases, VALUES)
    assert source.bad == ()
    good, bad = check_cases(cases, required=("image", "label"), spatial_dims=2)
    assert (len(good), bad) == (len(cases), ())
    assert unknown_values(cases, (1, 2)) == []
    for case in cases:
        label = case.volume("label").array
        assert 0 < (label == 2).sum() < (label == 1).sum() < 0.05 * label.size
