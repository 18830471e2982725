"""The paper's two data sets as they are on disk, small, from the folder to the sets of a campaign."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from medray.data.case import Source, Splits
from medray.data.check import check_cases
from medray.data.sources import open_source
from medray.systems.active_learning.mvaal_config import PRESETS, MvaalConfig
from medray.systems.active_learning.mvaal_system import Mvaal
from medray.systems.active_learning.pools import class_names_of

PATIENTS, SLICES = 10, 5


def splits_of(folder: Path, config: MvaalConfig) -> Splits:
    """As `engine.run.train` opens a folder."""
    system = Mvaal(config)
    source = open_source(str(folder), fields=system.field_kinds)
    cases = tuple(system.arrange(source.cases))
    good, _ = check_cases(cases, required=system.required_fields(cases, training=True), empty_labels=True)
    assert not system.problems(good, {})
    return system.split(Source(source.spec, good, source.fingerprint), seed=0)


def brats(root: Path) -> Path:
    """Folders as of BraTS2018: in slice k of a patient k * 20 pixels of tumor, of the values 1, 2 and 4."""
    random = np.random.default_rng(0)
    for patient in range(PATIENTS):
        name = f"Brats18_TCIA_{patient:03d}_1"
        (root / name).mkdir(parents=True)
        label = np.zeros((16, 16, SLICES), np.uint8)
        for index in range(SLICES):
            flat = np.zeros(256, np.uint8)
            flat[: index * 20] = np.array([1, 2, 4], np.uint8)[np.arange(index * 20) % 3]
            label[..., index] = flat.reshape(16, 16)
        for modality in ("t1", "t1ce", "t2", "flair"):
            image = random.random((16, 16, SLICES), dtype=np.float32) * 900
            nib.save(nib.Nifti1Image(image, np.eye(4)), root / name / f"{name}_{modality}.nii.gz")
        nib.save(nib.Nifti1Image(label, np.eye(4)), root / name / f"{name}_seg.nii.gz")
    return root


def test_brats_folders(tmp_path: Path) -> None:
    config = replace(MvaalConfig(**PRESETS["paper"].config), min_lesion_px=40)
    splits = splits_of(brats(tmp_path / "brats"), config)
    sides = [{case.patient for case in side} for side in (splits.train, splits.validation, splits.test)]
    assert [len(side) for side in sides] == [6, 2, 2]
    assert {case.attributes["slice"] for case in splits.train} == {"002", "003", "004"}
    case = splits.train[0]
    assert set(case.fields) == {"image", "auxiliary", "label"}
    assert case.volume("image").array.max() > 1
    assert not np.array_equal(case.volume("image").array, case.volume("auxiliary").array)
    assert int((case.volume("label").array != 0).sum()) == 40


def test_brats_names_its_classes(tmp_path: Path) -> None:
    config = replace(MvaalConfig(**PRESETS["paper_multi_label"].config), min_lesion_px=40)
    splits = splits_of(brats(tmp_path / "brats"), config)
    assert class_names_of(splits.train, config) == ("ED", "ET", "NCR")


def test_covid_qu_ex_folders(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split in ("Train", "Val", "Test"):
        for name in ("COVID-19", "Non-COVID", "Normal"):
            for number in range(2):
                for kind in ("images", "lung masks", "infection masks"):
                    folder = tmp_path / split / name / kind
                    folder.mkdir(parents=True, exist_ok=True)
                    film = random.integers(1, 255, (32, 32), dtype=np.uint8)
                    healthy = kind == "infection masks" and name == "Normal"
                    pixels = (
                        film
                        if kind == "images"
                        else np.zeros_like(film)
                        if healthy
                        else np.tri(32, dtype=np.uint8) * 255
                    )
                    Image.fromarray(pixels).save(folder / f"{name.lower()}_{split}_{number}.png")
    config = MvaalConfig(**PRESETS["paper_chest"].config)
    splits = splits_of(tmp_path, config)
    assert [len(side) for side in (splits.train, splits.validation, splits.test)] == [6, 6, 6]
    assert class_names_of(splits.train, config) == ("Normal", "COVID-19", "Non-COVID")
    assert all("auxiliary" in case.fields for case in splits.train)
    mask = splits.train[0].volume("auxiliary").array
    assert set(np.unique(mask)) == {0, 255}
