"""Each documented layout is found without being named, and what fits none is told in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medray.data.auxiliary import auxiliary_from
from medray.data.case import Case, Source
from medray.data.check import check_cases
from medray.data.sources import open_source
from medray.errors import UserError

Save = Callable[..., Path]
IMAGE = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
LABEL = (IMAGE > 5).astype(np.uint8)


def _png(path: Path, value: int = 7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 5), value, np.uint8)).save(path)


def _ids(source: Source) -> list[str]:
    return [case.id for case in source.cases]


def _case(source: Source, name: str) -> Case:
    return next(case for case in source.cases if case.id == name)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("mr_images", "mr_labels"),
        ("mr", "mr_labels"),
        ("mr", "mr_masks"),
        ("mr/images", "mr/labels"),
        ("mr/images", "mr/masks"),
    ],
)
def test_modality_folders(tmp_path: Path, save_nifti: Save, images: str, labels: str) -> None:
    for modality in ("mr", "us"):
        for name in ("a", "b"):
            save_nifti(tmp_path / images.replace("mr", modality) / f"{name}.nii.gz", IMAGE)
        save_nifti(tmp_path / labels.replace("mr", modality) / "a.nii.gz", LABEL)
    source = open_source(str(tmp_path))
    assert _ids(source) == ["mr/a", "mr/b", "us/a", "us/b"]
    assert {case.patient for case in source.cases} == {"a", "b"}
    assert _case(source, "us/a").attributes["modality"] == "us"
    assert set(_case(source, "us/a").fields) == {"image", "label"}
    assert set(_case(source, "us/b").fields) == {"image"}
    assert _case(source, "mr/a").volume("label").array.dtype == np.uint8
    assert source.bad == ()


def test_orphan_label_is_reported(tmp_path: Path, save_nifti: Save) -> None:
    save_nifti(tmp_path / "ct_images" / "a.nii.gz", IMAGE)
    orphan = save_nifti(tmp_path / "ct_labels" / "b.nii.gz", LABEL)
    source = open_source(str(tmp_path))
    assert _ids(source) == ["ct/a"]
    assert [(bad.case, bad.file) for bad in source.bad] == [("ct/b", str(orphan))]
    assert source.bad[0].reason == f"label {orphan} has no image of the same name"


@pytest.mark.parametrize("labels", ["labels", "masks", "instances"])
def test_images_and_labels(tmp_path: Path, labels: str) -> None:
    for name in ("sub-01_slice1", "sub-01_slice2", "x"):
        _png(tmp_path / "images" / f"{name}.png")
        _png(tmp_path / labels / f"{name}.png", 1)
    source = open_source(str(tmp_path))
    assert _ids(source) == ["sub-01_slice1", "sub-01_slice2", "x"]
    assert [case.patient for case in source.cases] == ["sub-01", "sub-01", "x"]  # a BIDS name tells the patient
    assert all(set(case.fields) == {"image", "label"} for case in source.cases)
    assert not source.cases[0].attributes


@pytest.mark.parametrize("suffix", ["_label", "_seg", "-mask"])
def test_label_beside_its_image(tmp_path: Path, save_nifti: Save, suffix: str) -> None:
    for name in ("case1", "case2"):
        save_nifti(tmp_path / f"{name}.nii.gz", IMAGE)
    save_nifti(tmp_path / f"case1{suffix}.nii.gz", LABEL)
    source = open_source(str(tmp_path))
    assert _ids(source) == ["case1", "case2"]
    assert set(_case(source, "case1").fields) == {"image", "label"}
    assert set(_case(source, "case2").fields) == {"image"}


def test_images_whose_own_names_end_like_labels(tmp_path: Path) -> None:
    for name in ("a_seg", "b_seg"):
        _png(tmp_path / "images" / f"{name}.png")
        _png(tmp_path / "labels" / f"{name}.png", 1)
    source = open_source(str(tmp_path))
    assert _ids(source) == ["a_seg", "b_seg"]
    assert all(set(case.fields) == {"image", "label"} for case in source.cases)
    assert source.bad == ()


def test_several_masks_of_one_image(tmp_path: Path) -> None:
    _png(tmp_path / "benign (1).png")
    _png(tmp_path / "benign (1)_mask.png", 1)
    _png(tmp_path / "benign (1)_mask_1.png", 1)
    source = open_source(str(tmp_path))
    assert set(source.cases[0].fields) == {"image", "label", "label_1"}


def test_patient_folders(tmp_path: Path, save_nifti: Save) -> None:
    for patient in ("p1", "p2"):
        save_nifti(tmp_path / patient / "t1.nii.gz", IMAGE)
        save_nifti(tmp_path / patient / f"{patient}_flair.nii.gz", IMAGE)  # with the patient's name in front
    save_nifti(tmp_path / "p1" / "label.nii.gz", LABEL)
    save_nifti(tmp_path / "p2" / "lesion.nii.gz", LABEL)
    save_nifti(tmp_path / "p2" / "t1_seg.nii.gz", LABEL)
    source = open_source(str(tmp_path))
    assert _ids(source) == ["flair/p1", "flair/p2", "t1/p1", "t1/p2"]
    assert [case.patient for case in source.cases] == ["p1", "p2", "p1", "p2"]
    assert [case.attributes["modality"] for case in source.cases] == ["flair", "flair", "t1", "t1"]
    own = _case(source, "t1/p2").fields["label"]
    shared = _case(source, "flair/p2").fields["label"]
    assert str(own).count("t1_seg") == 1
    assert str(shared).count("lesion") == 1
    assert set(_case(source, "t1/p1").fields) == {"image", "label"}


def test_ready_made_pairs(tmp_path: Path, save_nifti: Save) -> None:
    for name in ("moving", "fixed", "moving_label"):
        save_nifti(tmp_path / "p1" / f"{name}.nii.gz", LABEL)
    source = open_source(str(tmp_path))
    assert _ids(source) == ["p1"]
    assert set(source.cases[0].fields) == {"moving", "fixed", "moving_label"}
    assert source.cases[0].volume("moving_label").array.dtype == np.uint8


def test_unlabelled_modalities_and_classes(tmp_path: Path) -> None:
    for folder in ("ct", "mr"):
        _png(tmp_path / "pools" / folder / "a.png")
    source = open_source(str(tmp_path / "pools"))
    assert [case.attributes["modality"] for case in source.cases] == ["ct", "mr"]
    for folder in ("covid", "normal"):
        for name in ("a", "b"):
            _png(tmp_path / "classes" / folder / f"{folder}_{name}.png")
    source = open_source(str(tmp_path / "classes"))
    assert _ids(source) == ["covid/covid_a", "covid/covid_b", "normal/normal_a", "normal/normal_b"]
    assert [case.attributes["class"] for case in source.cases] == ["covid", "covid", "normal", "normal"]


def test_sites_with_images_and_masks(tmp_path: Path) -> None:
    for site in ("hospital_a", "hospital_b"):
        _png(tmp_path / site / "images" / "1.png")
        _png(tmp_path / site / "masks" / "1.png", 1)
    source = open_source(str(tmp_path))
    assert _ids(source) == ["hospital_a/1", "hospital_b/1"]
    assert source.cases[1].attributes["folder"] == "hospital_b"
    assert set(source.cases[1].fields) == {"image", "label"}


def test_split_folders(tmp_path: Path) -> None:
    for role in ("train", "val", "test"):
        _png(tmp_path / role / "images" / f"{role}.png")
        _png(tmp_path / role / "labels" / f"{role}.png", 1)
    source = open_source(str(tmp_path))
    assert {case.id: case.attributes["split"] for case in source.cases} == {
        "train/train": "train",
        "validation/val": "validation",
        "test/test": "test",
    }


def test_classes_with_several_masks_as_of_covid_qu_ex(tmp_path: Path) -> None:
    for split in ("Train", "Val", "Test"):
        for folder, stem in (("COVID-19", "covid_1"), ("Non-COVID", "non_COVID (1)"), ("Normal", "Normal (1)")):
            for kind, value in (("images", 90), ("lung masks", 255), ("infection masks", 0)):
                _png(tmp_path / split / folder / kind / f"{stem} {split}.png", value)
    lost = tmp_path / "Test" / "Normal" / "lung masks" / "other.png"
    _png(lost, 255)
    source = open_source(str(tmp_path))
    assert len(source.cases) == 9
    case = _case(source, "validation/Non-COVID/non_COVID (1) Val")
    assert case.attributes == {"class": "Non-COVID", "folder": "Non-COVID", "split": "validation"}
    assert set(case.fields) == {"image", "lung_mask", "infection_mask"}
    assert case.fields["lung_mask"].kind == "label"  # type: ignore[attr-defined]
    assert [(bad.case, bad.file) for bad in source.bad] == [("Normal/other", str(lost))]
    assert source.bad[0].reason == f"lung mask {lost} has no image of the same name"
    arranged = auxiliary_from(source.cases, "lung_mask")
    assert {frozenset(case.fields) for case in arranged} == {frozenset({"image", "auxiliary"})}
    assert check_cases(arranged[:1], required=("image", "auxiliary"), spatial_dims=2)[1] == ()
    assert arranged[0].volume("auxiliary").array.max() == 255


def test_another_field_as_the_auxiliary_image(tmp_path: Path) -> None:
    _png(tmp_path / "images" / "a.png")
    (case,) = open_source(str(tmp_path)).cases
    with pytest.raises(UserError, match="no lung_mask that could be the auxiliary image; it has image"):
        auxiliary_from([case], "lung_mask")
    shown = [replace(case, attributes={"modality": name}) for name in ("t1", "flair")]
    with pytest.raises(UserError, match="it has image of the modalities flair, t1, of which the main one has to be"):
        auxiliary_from(shown, "flair")
    ready = Case("b", "b", {"image": case.fields["image"], "auxiliary": case.fields["image"]})
    assert auxiliary_from([ready, case], "lung_mask") == [ready, case]


def test_sub_folders_named_as_fields(tmp_path: Path) -> None:
    for name in ("1", "2"):
        _png(tmp_path / "mri" / f"{name}.png")
        _png(tmp_path / "tear" / f"{name}.png", 1)
    _png(tmp_path / "tear" / "3.png", 1)
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "2.json").write_text("[]")
    source = open_source(f"{tmp_path}?image=mri&label=tear&lines=lines")
    assert _ids(source) == ["1", "2"]
    assert set(source.cases[1].fields) == {"image", "label", "lines"}
    assert source.cases[1].load("lines") == []
    assert source.bad[0].case == "3"
    with pytest.raises(UserError, match=r"mra does not exist; image=mra names a sub-folder of"):
        open_source(f"{tmp_path}?image=mra")


def test_two_files_of_one_name(tmp_path: Path) -> None:
    _png(tmp_path / "a.png")
    _png(tmp_path / "a.bmp")
    source = open_source(str(tmp_path))
    assert _ids(source) == ["a"]
    assert source.bad[0].reason == f"{tmp_path}/a.png has the same name as another image of its folder"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/none does not exist; a data source is a folder, a manifest"):
        open_source(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r" is empty; expected one of: mr_images/ \+ mr_labels/; "):
        open_source(str(tmp_path))
    (tmp_path / "notes.txt").write_text("no images here")
    with pytest.raises(UserError) as caught:
        open_source(str(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path} holds no images in a known layout; expected one of: mr_images/")
    assert "\n" not in str(caught.value)
