"""The modalities of a patient become the channels of one case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medray.data.auxiliary import pair_modalities
from medray.data.case import Case
from medray.data.channels import by_patient, of_modality
from medray.data.fields import FileRef
from medray.data.sources import open_source
from medray.errors import UserError


def _folder(root: Path, patients: dict[str, tuple[str, ...]]) -> Path:
    import nibabel as nib

    for patient, names in patients.items():
        (root / patient).mkdir(parents=True)
        for number, name in enumerate(names):
            data = np.full((4, 4, 4), number, dtype=np.uint8)
            nib.save(nib.Nifti1Image(data, np.eye(4)), root / patient / f"{name}.nii.gz")
    return root


def test_the_images_of_a_patient_become_fields_of_one_case(tmp_path: Path) -> None:
    source = open_source(str(_folder(tmp_path, dict.fromkeys(("p1", "p2"), ("t1", "t2", "flair", "lesion")))))
    cases = by_patient(source.cases, ("flair", "t1"))
    assert [case.id for case in cases] == ["p1", "p2"]
    assert all(set(case.fields) == {"flair", "t1", "label"} for case in cases)
    assert cases[1].volume("t1").array.max() == 0
    assert cases[1].volume("flair").array.max() == 2


def test_who_lacks_a_modality_is_left_for_the_checks_to_name(tmp_path: Path) -> None:
    source = open_source(str(_folder(tmp_path, {"p1": ("t1", "flair"), "p2": ("flair",)})))
    cases = by_patient(source.cases, ("flair", "t1"))
    assert set(cases[1].fields) == {"flair"}


def test_a_modality_that_nobody_has_is_named(tmp_path: Path) -> None:
    source = open_source(str(_folder(tmp_path, {"p1": ("t1", "flair")})))
    with pytest.raises(UserError, match=r"no dwi images; it has flair, t1"):
        by_patient(source.cases, ("dwi", "t1"))


def test_cases_that_are_grouped_already_pass() -> None:
    case = Case("a", "p", {"flair": FileRef("f.nii.gz"), "t1": FileRef("t.nii.gz")}, {"site": "x"})
    assert by_patient([case], ("flair", "t1")) == [case]


def test_cases_of_one_modality() -> None:
    found = [Case(f"{name}/a", "a", {}, {"modality": name}) for name in ("t1", "t2")]
    assert of_modality(found, "t2") == found[1:]
    assert of_modality(found, "") == found
    with pytest.raises(UserError, match="no flair images; it has t1, t2"):
        of_modality(found, "flair")


def test_two_modalities_become_main_and_auxiliary(tmp_path: Path) -> None:
    folder = _folder(tmp_path, {"p1": ("flair", "t1", "t2", "lesion"), "p2": ("t1",), "p3": ("flair",)})
    cases = {case.id: case for case in pair_modalities(open_source(str(folder)).cases, "t1", "flair")}
    assert {name: set(case.fields) for name, case in cases.items()} == {
        "p1": {"image", "auxiliary", "label"},
        "p2": {"image"},
        "p3": {"auxiliary"},  # for the checks to name
    }
    assert [cases["p1"].volume(name).array.max() for name in ("auxiliary", "image", "label")] == [0, 1, 3]
    alone = {case.id: set(case.fields) for case in pair_modalities(open_source(str(folder)).cases, "t1", "")}
    assert alone == {"p1": {"image", "label"}, "p2": {"image"}}
    with pytest.raises(UserError, match="no t1ce images; it has flair, t1"):
        pair_modalities(open_source(str(folder)).cases, "t1ce", "flair")


def test_fields_of_a_manifest_and_cases_that_are_paired_already() -> None:
    file = FileRef("a.nii.gz")
    named = Case("named", "a", {"t1": file, "flair": file})
    ready = Case("ready", "b", {"image": file, "auxiliary": file}, {"modality": "t1"})
    picture = Case("picture", "c", {"image": file})
    found = pair_modalities([named, ready, picture], "t1", "flair")
    assert found[:2] == [ready, picture]
    assert (found[2].id, set(found[2].fields)) == ("named", {"image", "auxiliary"})
