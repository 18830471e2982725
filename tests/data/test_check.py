"""Every kind of bad case is found, named in one line, and set aside or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medray.data.case import Case, Volume
from medray.data.check import check_cases, label_values
from medray.data.sources import open_source
from medray.errors import UserError

Save = Callable[..., Path]
RNG = np.random.default_rng(0)


def _image() -> NDArray[np.float32]:
    return RNG.random((5, 6, 7)).astype(np.float32)


def _label() -> NDArray[np.uint8]:
    label = np.zeros((5, 6, 7), np.uint8)
    label[1:3, 1:4, 2] = 1
    label[3, 3, 3] = 2
    return label


@pytest.fixture
def folder(tmp_path: Path, save_nifti: Save) -> Path:
    """Two good cases, a and z; tests put bad ones between them."""
    for name in ("a", "z"):
        save_nifti(tmp_path / "mr_images" / f"{name}.nii.gz", _image())
        save_nifti(tmp_path / "mr_labels" / f"{name}.nii.gz", _label())
    return tmp_path


def _shift() -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[0, 3] = 12.0
    return affine


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _bad(name: str, folder: Path, save: Save) -> None:
    image, label = folder / "mr_images" / "m.nii.gz", folder / "mr_labels" / "m.nii.gz"
    save(image, _image())
    save(label, _label())
    if name == "truncated":
        _truncate(image)
    elif name == "nan":
        values = _image()
        values[0, 0, 0] = np.nan
        save(image, values)
    elif name == "shape":
        save(label, _label()[:4])
    elif name == "place":
        save(label, _label(), _shift())
    elif name == "dimension":
        save(image, RNG.random((5, 6, 7, 3)).astype(np.float32))
    elif name == "flat":
        save(image, RNG.random((5, 6, 1)).astype(np.float32))
    elif name == "empty label":
        save(label, np.zeros((5, 6, 7), np.uint8))
    elif name == "unknown value":
        save(label, _label() * 5)
    elif name == "fraction":
        save(label, _label() * 0.3)
    elif name == "no label":
        label.unlink()
    elif name == "gone":
        pass  # removed by the test after the source was opened
    elif name == "duplicate":
        for kind in ("images", "labels"):
            (folder / f"mr_{kind}" / "m.nii.gz").write_bytes((folder / f"mr_{kind}" / "a.nii.gz").read_bytes())


SENTENCES = {
    "truncated": "m.nii.gz is truncated or damaged: Compressed file ended before the end-of-stream marker was reached",
    "nan": "mr_images/m.nii.gz: 1 of 210 values are NaN or infinite",
    "shape": "m.nii.gz has the shape 4 x 6 x 7, its image 5 x 6 x 7; label and image must lie on one grid",
    "place": "m.nii.gz lies elsewhere than its image, up to 12.0 mm apart; save it with the image's affine",
    "dimension": "m.nii.gz is 4D (5 x 6 x 7 x 3) where a 2D or 3D image is expected",
    "flat": "m.nii.gz is 2D (5 x 6) where a 3D image is expected",
    "empty label": "m.nii.gz is an empty label map, every value is 0",
    "unknown value": "m.nii.gz holds the label value 5; known are 1, 2",
    "fraction": "m.nii.gz holds the value 0.3 where a label map has whole numbers only",
    "no label": "it has no label; its fields are image",
    "gone": "mr_images/m.nii.gz does not exist",
    "duplicate": "its files have the same content as those of case mr/a",
}


@pytest.mark.parametrize("name", list(SENTENCES))
def test_each_bad_case_is_named_and_set_aside(folder: Path, save_nifti: Save, name: str) -> None:
    _bad(name, folder, save_nifti)
    source = open_source(str(folder))
    if name == "gone":
        (folder / "mr_images" / "m.nii.gz").unlink()
    good, bad = check_cases(
        source.cases, required=("image", "label"), spatial_dims=3, policy="quarantine", known_labels={1, 2}
    )
    assert [case.id for case in good] == ["mr/a", "mr/z"]
    assert [one.case for one in bad] == ["mr/m"]
    assert SENTENCES[name] in bad[0].reason
    assert "\n" not in bad[0].reason
    assert Path(bad[0].file).name == "m.nii.gz"
    with pytest.raises(UserError) as caught:
        check_cases(source.cases, required=("image", "label"), spatial_dims=3, known_labels={1, 2})
    assert str(caught.value).startswith("case mr/m: ")
    assert str(caught.value).endswith("(1 of 3 cases; --bad-samples quarantine goes on without it)")


def test_an_empty_label_map_passes_where_healthy_patients_are_expected(folder: Path, save_nifti: Save) -> None:
    _bad("empty label", folder, save_nifti)
    good, bad = check_cases(open_source(str(folder)).cases, required=("image", "label"), empty_labels=True)
    assert (len(good), bad) == (3, ())


def test_good_cases_pass_and_progress_counts(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    source = open_source(str(folder))
    good, bad = check_cases(
        source.cases,
        required=("image",),
        progress=lambda *counts: seen.append(counts),
        known_labels={1, 2, 3},
    )
    assert good == source.cases
    assert bad == ()
    assert seen == [(1, 2), (2, 2)]


def test_many_bad_cases_take_a_line_each_and_end(folder: Path, save_nifti: Save) -> None:
    for index in range(13):
        save_nifti(folder / "mr_images" / f"b{index:02d}.nii.gz", np.full((2, 2, 2), np.nan, np.float32))
    with pytest.raises(UserError) as caught:
        check_cases(open_source(str(folder)).cases, required=("image",))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("case mr/b00: ")
    assert "(13 of 15 cases are bad; --bad-samples quarantine goes on without them)" in lines[0]
    assert len(lines) == 11
    assert lines[-1].strip() == "and 3 more"


def test_nothing_left_is_an_error_even_in_quarantine(tmp_path: Path, save_nifti: Save) -> None:
    save_nifti(tmp_path / "a.nii.gz", np.full((2, 2, 2), np.nan, np.float32))
    with pytest.raises(UserError, match=r"^no case is usable\. case a: .*8 of 8 values are NaN"):
        check_cases(open_source(str(tmp_path)).cases, required=("image",), policy="quarantine")


@dataclass(frozen=True)
class _Made:
    array: tuple[int, ...]
    text: str

    def load(self) -> Volume:
        return Volume(np.array(self.array, np.uint8).reshape(1, 2, 2), np.eye(4))

    def fingerprint(self) -> str:
        return self.text


def _pair(moving_label: tuple[int, ...], fixed_label: tuple[int, ...]) -> Case:
    image = (1, 2, 3, 4)
    arrays = {"moving": image, "fixed": image, "moving_label": moving_label, "fixed_label": fixed_label}
    return Case("p", "p", {name: _Made(array, name) for name, array in arrays.items()})


def test_pair_without_a_common_organ() -> None:
    required = ("moving", "fixed")
    assert check_cases([_pair((0, 1, 2, 0), (0, 2, 3, 0))], required=required)[1] == ()
    with pytest.raises(UserError, match="case p: its moving_label and fixed_label have no organ in common"):
        check_cases([_pair((0, 1, 1, 0), (0, 2, 3, 0))], required=required)


def test_label_values_of_overlapping_masks() -> None:
    masks = np.zeros((3, 4, 4), np.uint8)
    masks[0, 1, 1] = masks[2, 1, 1] = 1
    assert label_values(Volume(masks, np.eye(4))) == {1, 3}
    assert label_values(Volume(np.array([[[0, 4], [9, 0]]]), np.eye(4))) == {4, 9}
