"""Axial slices as cases: which are kept, where they lie, and what their fields show."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medray.data.auxiliary import pair_modalities
from medray.data.case import Case, Volume
from medray.data.check import check_cases
from medray.data.fields import FileRef
from medray.data.sliced import SliceField, slices_as_cases
from medray.data.sources import open_source
from medray.data.splits import split_by_patient
from medray.errors import UserError

Save = Callable[..., Path]
SHAPE = (6, 5, 8)
RAMP = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


@dataclass(frozen=True)
class _Made:
    """A volume with a name; (6, 5, 8) unless the array is given."""

    name: str
    array: Any = None
    affine: Any = None

    def __hash__(self) -> int:
        return hash(self.name)

    def load(self) -> Volume:
        array = RAMP if self.array is None else self.array
        return Volume(array[None], np.eye(4) if self.affine is None else self.affine, source=self.name)

    def fingerprint(self) -> str:
        return self.name


def _label(**pixels: int) -> NDArray[np.uint8]:
    """A label map whose slice zN has so many pixels of value 1, along the first axis."""
    label = np.zeros(SHAPE, dtype=np.uint8)
    for name, count in pixels.items():
        label[..., int(name[1:])] = (np.arange(SHAPE[0] * SHAPE[1]) < count).reshape(SHAPE[:2])
    return label


def test_slices_with_enough_foreground_are_kept() -> None:
    case = Case("scan", "p1", {"image": _Made("im"), "label": _Made("la", _label(z1=3, z4=4, z6=9))}, {"site": "x"})
    found = slices_as_cases([case], min_label_px=4)
    assert [one.id for one in found] == ["scan/z=004", "scan/z=006"]
    assert {one.patient for one in found} == {"p1"}
    assert found[0].attributes == {"site": "x", "slice": "004"}
    np.testing.assert_array_equal(found[1].volume("image").array, RAMP[None, ..., 6])
    assert found[1].volume("label").array.sum() == 9
    assert [one.id for one in slices_as_cases([case], min_label_px=1, every=2)] == ["scan/z=001", "scan/z=006"]


def test_slices_without_a_lesion_may_be_cases_too() -> None:
    body = np.full(SHAPE, 100.0, dtype=np.float32)
    body[..., 0] = 0.0
    case = Case("scan", "p1", {"image": _Made("body", body), "label": _Made("lesion", _label(z1=3))})
    found = slices_as_cases([case], min_label_px=0)
    assert [int(one.attributes["slice"]) for one in found] == list(range(1, SHAPE[2]))
    assert [int(one.volume("label").array.sum()) for one in found][:2] == [3, 0]


def test_without_a_label_slices_that_show_the_body_are_kept() -> None:
    body = np.zeros(SHAPE, dtype=np.float32)
    body[1:4, 1:4, 2:5] = 100.0  # 9 of 30 pixels
    body[2, 2, 5] = 100.0
    cases = [Case("scan", "p", {"image": _Made("body", body)})]
    assert [one.id[-1] for one in slices_as_cases(cases, occupied=0.25)] == ["2", "3", "4"]
    assert [one.id[-1] for one in slices_as_cases(cases, occupied=0.03)] == ["2", "3", "4", "5"]
    assert slices_as_cases(cases, occupied=0.31) == []


def test_a_slice_lies_where_it_was_in_the_scanner_however_the_volume_is_stored() -> None:
    """Stored (Inferior, Left, Anterior), 2 mm thick: axial slices are cut across the first axis, counted from below."""
    affine = np.array([[0.0, -1.0, 0.0, 7.0], [0.0, 0.0, 1.5, 3.0], [-2.0, 0.0, 0.0, 40.0], [0, 0, 0, 1]])
    case = Case("scan", "p", {"image": _Made("turned", None, affine)})
    found = slices_as_cases([case], occupied=0.0)
    assert len(found) == SHAPE[0]
    below = found[0].volume("image")
    assert below.shape == (SHAPE[1], SHAPE[2])
    stored = (5, 1, 2)  # the lowest slice is the last one stored
    right = SHAPE[1] - 1 - stored[1]  # Left becomes Right
    assert below.array[0, right, 2] == RAMP[stored]
    np.testing.assert_allclose(below.affine @ [right, 2, 0, 1], affine @ [*stored, 1])


def test_the_auxiliary_is_sampled_on_the_main_grid() -> None:
    """World x along the main's first axis, sampled from a volume twice as fine and shifted by half a voxel."""
    fine = np.eye(4)
    fine[0, 0], fine[0, 3] = 0.5, -0.75
    x = np.broadcast_to((np.arange(16) * 0.5 - 0.75)[:, None, None], (16, 5, 8)).astype(np.float32)
    halves = np.zeros((16, 5, 8), dtype=np.uint8)
    halves[8:] = 4  # world x above 3
    fields = {"image": _Made("im"), "auxiliary": _Made("x", x, fine), "label": _Made("half", halves, fine)}
    (found,) = slices_as_cases([Case("scan", "p", fields)], min_label_px=1, every=8)
    auxiliary, label = found.volume("auxiliary"), found.volume("label")
    np.testing.assert_array_equal(auxiliary.affine, found.volume("image").affine)
    np.testing.assert_allclose(auxiliary.array[0, :, 2], np.arange(6), atol=0.02)
    assert label.array.dtype == np.uint8
    np.testing.assert_array_equal(label.array[0, :, 0], [0, 0, 0, 4, 4, 4])
    assert found.attributes["classes"] == "ET"


@pytest.mark.parametrize("enhancing", [3, 4])
def test_classes_are_the_values_of_the_slice(enhancing: int) -> None:
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[..., 2] = 1
    label[:3, :, 3], label[3:, :, 3] = 2, enhancing
    label[0, 0, 5] = 2
    case = Case("scan", "p", {"image": _Made("im"), "label": _Made(f"brats {enhancing}", label)})
    found = {one.attributes["slice"]: one.attributes["classes"] for one in slices_as_cases([case], min_label_px=1)}
    assert found == {"002": "NCR", "003": "ET;ED", "005": "ED"}


def test_a_plain_mask_and_an_atlas_name_no_classes() -> None:
    for name, values in (("mask", (1, 1)), ("atlas", (2, 17))):
        label = np.zeros(SHAPE, dtype=np.uint8)
        label[0, 0, 2], label[1, 0, 2] = values
        case = Case("scan", "p", {"image": _Made("im"), "label": _Made(name, label)})
        (found,) = slices_as_cases([case], min_label_px=1)
        assert "classes" not in found.attributes


def test_flat_cases_and_unreadable_ones_pass(tmp_path: Path) -> None:
    flat = Case("flat", "a", {"image": _Made("flat", RAMP[..., 0])})
    picture = Case("picture", "b", {"image": FileRef(str(tmp_path / "missing.png"))})
    broken = Case("broken", "c", {"image": FileRef(str(tmp_path / "missing.nii.gz"))})
    assert slices_as_cases([flat, picture, broken]) == [flat, picture, broken]
    with pytest.raises(UserError, match=r"missing\.nii\.gz"):
        check_cases([broken], required=("image",))


def test_consecutive_slices_decode_their_volume_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    load = _Made.load
    monkeypatch.setattr(_Made, "load", lambda self: loads.append(self.name) or load(self))
    fields = {"image": _Made("im once"), "label": _Made("la once", _label(z1=3, z4=4, z6=9))}
    found = slices_as_cases([Case("scan", "p", fields)], min_label_px=1)
    loads.clear()
    for one in found:
        one.load("image"), one.load("label")
    assert sorted(loads) == ["im once", "la once"]


def test_slices_pass_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    found = slices_as_cases([Case("scan", "p", {"image": _Made("im cut")})], occupied=0.0)
    monkeypatch.setattr(SliceField, "load", lambda self: pytest.fail("read"))
    assert slices_as_cases(found) == found


def test_slices_travel_and_are_told_apart() -> None:
    case = Case("scan", "p", {"image": _Made("im"), "auxiliary": _Made("other")})
    found = slices_as_cases([case], occupied=0.0)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again[3].volume("image").array, found[3].volume("image").array)
    prints = [one.fields[name].fingerprint() for one in found for name in ("image", "auxiliary")]
    assert len(set(prints)) == 2 * SHAPE[2]
    assert prints == [one.fields[name].fingerprint() for one in again for name in ("image", "auxiliary")]


def test_a_field_that_is_not_a_volume_is_named() -> None:
    plane = slices_as_cases([Case("scan", "p", {"image": _Made("im")})], occupied=0.0)[0].fields["image"].plane  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="flat is not 3D"):
        SliceField(_Made("flat", RAMP[..., 0]), plane).load()


@pytest.mark.parametrize("wrong", [{"min_label_px": -1}, {"every": 0}, {"occupied": 2.0}, {"fields": ()}])
def test_numbers_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="slices need"):
        slices_as_cases([], **wrong)


def _brats(root: Path, save_nifti: Save, patients: int) -> Path:
    random = np.random.default_rng(0)
    for number in range(patients):
        name = f"BraTS18_{number}"
        label = np.zeros((20, 20, 5))
        label[4:12, 4:12, 1:4] = 2
        label[6:10, 6:10, 2] = 4
        image = random.normal(size=label.shape).astype(np.float32)
        for modality in ("t1", "t1ce", "t2", "flair"):
            save_nifti(root / name / f"{name}_{modality}.nii.gz", image + len(modality))
        save_nifti(root / name / f"{name}_seg.nii.gz", label.astype(np.uint8))
    return root


def test_a_folder_as_of_brats(tmp_path: Path, save_nifti: Save) -> None:
    source = open_source(str(_brats(tmp_path, save_nifti, 5)))
    pairs = pair_modalities(source.cases, "t1ce", "flair")
    assert [case.id for case in pairs] == [f"BraTS18_{number}" for number in range(5)]
    cases = slices_as_cases(pairs, min_label_px=50)
    assert len(cases) == 15
    assert check_cases(cases, required=("image", "auxiliary", "label"), spatial_dims=2, known_labels=(1, 2, 4))[1] == ()
    assert [case.attributes["classes"] for case in cases[:3]] == ["ED", "ET;ED", "ED"]
    shown = cases[0].volume("auxiliary").array - cases[0].volume("image").array
    np.testing.assert_allclose(shown, len("flair") - len("t1ce"), atol=1e-5)
    splits = split_by_patient(cases, test=0.2, validation=0.2)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [9, 3, 3]


@pytest.mark.real_data
def test_brains_of_ms_patients(real_data: Path) -> None:
    if not (real_data / "ms_brain_mni").is_dir():
        pytest.skip(f"{real_data} has no ms_brain_mni")
    source = open_source(str(real_data / "ms_brain_mni"))
    pairs = pair_modalities(source.cases, "t1post", "flair")
    assert [case.id for case in pairs] == ["patient07", "patient26"]
    cases = slices_as_cases(pairs, min_label_px=20)
    by_patient = {name: [case for case in cases if case.patient == name] for name in ("patient07", "patient26")}
    assert min(map(len, by_patient.values())) > 10
    for case in cases[::8]:
        image, auxiliary, label = (case.volume(name) for name in ("image", "auxiliary", "label"))
        assert image.shape == auxiliary.shape == label.shape == (182, 218)
        np.testing.assert_array_equal(image.affine, auxiliary.affine)
        inside = label.array[0] > 0
        assert inside.sum() >= 20
        brain = (auxiliary.array[0] > auxiliary.array.mean()) & ~inside
        assert auxiliary.array[0][inside].mean() > auxiliary.array[0][brain].mean()  # lesions are bright in FLAIR
        assert "classes" not in case.attributes
