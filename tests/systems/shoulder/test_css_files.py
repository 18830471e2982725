"""CSS-Net's slices from files and its results on files: sizes, planes, masks, measures, bad input."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medray.data.case import Case, Volume
from medray.data.fields import FileRef
from medray.data.readers import read_volume
from medray.data.sources import open_source
from medray.engine.options import LoopOptions
from medray.engine.workbench import InProcessWorkbench
from medray.system import PredictRequest, Trained
from medray.systems.shoulder.css_config import CssConfig
from medray.systems.shoulder.css_prediction import longest_extent, other_plane, slices_of
from medray.systems.shoulder.css_presets import SMALL
from medray.systems.shoulder.css_reading import Page, drawn_on, page_of
from medray.systems.shoulder.css_system import CssNet

TINY: dict[str, Any] = {**SMALL, "size_px": 32, "widths": (16, 16), "dilations": (1, 2), "num_epochs": 1}
CORONAL = np.array([[0.5, 0, 0, 0], [0, 0, 4.0, 0], [0, 0.5, 0, 0], [0, 0, 0, 1.0]])


@dataclass(frozen=True)
class Held:
    """A field that is read already."""

    volume: Volume

    def load(self) -> Volume:
        return self.volume

    def fingerprint(self) -> str:
        return self.volume.source


def save(path: Path, array: np.ndarray[Any, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Six patients with a slice each; tendon and tear overlap in a pixel."""
    random = np.random.default_rng(0)
    for number in range(6):
        image = random.integers(0, 60000, (40, 48)).astype(np.uint16)
        tendon, tear = np.zeros((40, 48), np.uint8), np.zeros((40, 48), np.uint8)
        tendon[10:14, 10:20] = 255
        tear[12:14, 19:23] = 255
        for name, array in (("mri", image), ("tendon", tendon), ("tear", tear)):
            save(tmp_path / "data" / name / f"{number:04d}.png", array)
    return tmp_path / "data"


def test_a_square_holds_the_whole_page_with_its_aspect_and_gives_it_back() -> None:
    page = Page(np.arange(20 * 10, dtype=np.float32).reshape(1, 20, 10), (1.0, 2.0))
    square = page.as_square(20, 1)
    assert square.shape == (1, 20, 20)
    wide = Page(np.ones((1, 16, 32), np.float32), (1.0, 1.0)).as_square(32, 0)[0]
    assert wide[8:24].all()
    assert not wide[:8].any()
    one = np.zeros((1, 20, 10), np.float32)
    one[0, 5:15, 2:8] = 1
    there_and_back = Page(one, (1.0, 2.0)).from_square(Page(one, (1.0, 2.0)).as_square(20, 1))
    assert np.abs(there_and_back - one).max() < 0.51
    assert np.abs(there_and_back - one).mean() < 0.06


def test_masks_in_folders_become_one_label_in_which_the_tear_wins(folders: Path) -> None:
    system = CssNet(CssConfig(**TINY))
    cases = system.arrange(open_source(str(folders), fields=system.field_kinds).cases)
    label = cases[0].volume("label").array[0]
    assert label[13, 19] == 2
    assert (label == 1).sum() == 4 * 10 - 2
    assert (label == 2).sum() == 8
    assert cases[0].volume("image").array.dtype == np.uint16
    assert not system.problems(cases, {})


def test_it_learns_from_folders_and_predicts_on_the_files_own_pixels(folders: Path, tmp_path: Path) -> None:
    system = CssNet(CssConfig(**TINY))
    source = open_source(str(folders), fields=system.field_kinds)
    cases = tuple(system.arrange(source.cases))
    splits = system.split(type(source)(source.spec, cases, ""), 0)
    work = InProcessWorkbench(tmp_path / "run", LoopOptions(), quiet=True, tensorboard=False)
    trained = system.train(work, splits)
    found = system.evaluate(work, trained, splits.test)
    assert np.isfinite(list(found.summary.values())).all()
    out = tmp_path / "found.png"
    told = system.predict(trained, PredictRequest(inputs=[folders / "mri" / "0000.png"], out=out))
    assert read_volume(out).shape == (40, 48)
    measured = json.loads(told.files["measurements"].read_text())
    assert {"tear_area_px", "tendon_area_px", "tear_length_px"} <= set(measured)


def test_a_volume_is_cut_into_its_coronal_slices(tmp_path: Path) -> None:
    import nibabel as nib

    array = np.random.default_rng(0).random((40, 3, 44)).astype(np.float32)
    affine = np.diag([0.5, 4.0, 0.5, 1.0])
    path = tmp_path / "volume.nii.gz"
    nib.save(nib.Nifti1Image(array, affine), path)  # type: ignore[attr-defined, no-untyped-call]
    volume = read_volume(path)
    slices = list(slices_of(volume))
    assert len(slices) == 3
    page = page_of(slices[1])
    assert page.array.shape == (1, 44, 40)
    assert page.array[0, 0, 0] == pytest.approx(array[-1, 1, -1])  # superior up, the patient's right on the left
    told = CssNet(CssConfig(**TINY)).predict(Trained(weights=None), PredictRequest([path], tmp_path / "out.nii.gz"))
    assert read_volume(tmp_path / "out.nii.gz").shape == (40, 3, 44)
    assert told.metrics["num_slices"] == 3
    rows = list(csv.DictReader(told.files["slices"].open()))
    assert [row["slice"] for row in rows] == ["0", "1", "2"]
    assert "tear_area_mm2" in rows[0]


def test_the_length_of_a_tear_by_hand() -> None:
    mask = np.zeros((8, 8), bool)
    assert longest_extent(mask, (0.5, 0.5)) == 0.0
    mask[2, 1:6] = True
    assert longest_extent(mask, (0.5, 0.5)) == pytest.approx(2.5)
    assert longest_extent(mask.T, (0.5, 2.0)) == pytest.approx(2.5)


def test_a_scanners_axial_slice_is_refused_and_a_coronal_one_is_not() -> None:
    axial = Volume(np.zeros((1, 40, 40)), np.diag([0.5, 0.5, 4.0, 1.0]), "a.dcm", {"format": "dicom"})
    assert "axial" in other_plane(axial)
    assert other_plane(Volume(np.zeros((1, 40, 40)), CORONAL, "b.dcm", {"format": "dicom"})) == ""


def test_a_steep_oblique_slice_of_nifti_is_turned_as_that_of_dicom() -> None:
    turn = np.deg2rad(45.0)
    steep = np.eye(4)
    steep[:3, :3] = np.array([[-np.cos(turn), 0, -np.sin(turn)], [-np.sin(turn), 0, np.cos(turn)], [0, -1, 0]])
    pixels = np.random.default_rng(0).random((1, 48, 40))  # columns to the patient's left, rows downward
    pages = [page_of(Volume(pixels, steep, "a", {"format": name})).array for name in ("nifti", "dicom")]
    np.testing.assert_array_equal(pages[0], pages[1])
    np.testing.assert_array_equal(pages[0], pixels.transpose(0, 2, 1))


def test_a_picture_mask_lies_on_an_image_exported_with_a_made_up_position() -> None:
    pixels = np.zeros((1, 40, 40), np.float32)
    pixels[0, 3:6, 20:30] = 1
    image = Volume(pixels, np.diag([-0.5, 0.5, 1.0, 1.0]), "a.nii", {"format": "nifti"})
    mask = Volume((pixels > 0).astype(np.uint8), np.eye(4), "a.png", {"format": "raster"})
    (case,) = drawn_on([Case("a", "a", {"image": Held(image), "label": Held(mask)})])
    label = case.volume("label")
    np.testing.assert_array_equal(page_of(label).array > 0, page_of(image).array > 0)
    np.testing.assert_array_equal(label.affine, image.affine)


@pytest.mark.parametrize(
    ("image", "label", "sentence"),
    [
        (np.zeros((40, 40), np.uint8), np.full((40, 40), 7, np.uint8), "7"),
        (np.arange(4800, dtype=np.uint8).reshape(40, 40, 3), np.zeros((40, 40), np.uint8), "color"),
        (np.zeros((20, 40), np.uint8), np.zeros((20, 40), np.uint8), "smaller than the 32 px"),
    ],
)
def test_each_problem_has_its_sentence(
    image: np.ndarray[Any, Any], label: np.ndarray[Any, Any], sentence: str, tmp_path: Path
) -> None:
    fields = {
        "image": FileRef(str(save(tmp_path / "a.png", image))),
        "label": FileRef(str(save(tmp_path / "b.png", label)), "label"),
    }
    (bad,) = CssNet(CssConfig(**TINY)).problems([Case("a", "a", fields)], {})
    assert sentence in bad.reason


@pytest.mark.real_data
def test_the_real_slices_are_learnt_from(real_data: Path, tmp_path: Path) -> None:
    system = CssNet(CssConfig(**{**TINY, "size_px": 64, "batch_size": 2, "validation_fraction": 0.0}))
    source = open_source(str(real_data / "shoulder_mri"), fields=system.field_kinds)
    cases = tuple(system.arrange(source.cases))
    assert not system.problems(cases, {})
    splits = system.split(type(source)(source.spec, cases, ""), 0)
    work = InProcessWorkbench(tmp_path / "run", LoopOptions(), quiet=True, tensorboard=False)
    found = system.evaluate(work, system.train(work, splits), splits.test)
    assert found.rows
    assert np.isfinite(list(found.summary.values())).all()
