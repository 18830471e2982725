"""One string opens a phantom, a folder or a manifest; a wrong one is told what is known."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from medray.data import sources
from medray.data.case import Case, Volume
from medray.data.fields import FileRef, source_fingerprint
from medray.data.sources import open_source
from medray.errors import UserError

Save = Callable[..., Path]
IMAGE = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


@dataclass(frozen=True)
class _Constant:
    value: float

    def load(self) -> Volume:
        return Volume(np.full((1, 2, 2), self.value), np.eye(4))

    def fingerprint(self) -> str:
        return f"constant:{self.value}"


def _cases(
    n: int = 2,
    level: float = 1.0,
    kind: Literal["soft", "hard"] = "soft",
    flat: bool = False,
    noise: float | None = None,
) -> tuple[Case, ...]:
    if n < 1:
        raise ValueError(f"n must be 1 or more, got {n}")
    return tuple(
        Case(f"c{i}", f"p{i}", {"image": _Constant(level + i)}, {"kind": kind, "flat": str(flat), "noise": str(noise)})
        for i in range(n)
    )


@pytest.fixture(autouse=True)
def toy_phantom(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("toy_phantom_for_tests")
    module.cases = _cases  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sources, "GENERATORS", {"toy": "toy_phantom_for_tests:cases", "other": "nowhere:cases"})


def test_phantom_parameters_have_the_signatures_types() -> None:
    source = open_source("phantom:toy?n=3&level=2&kind=hard&flat=true&noise=0.5")
    assert [case.id for case in source.cases] == ["c0", "c1", "c2"]
    assert source.cases[2].volume("image").array[0, 0, 0] == 4.0
    assert dict(source.cases[0].attributes) == {"kind": "hard", "flat": "True", "noise": "0.5"}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("phantom:tooy", "there is no phantom 'tooy'; known are other, toy"),
        (
            "phantom:toy?m=3",
            "phantom:toy has no parameter 'm'; known are n=2, level=1.0, kind=soft, flat=False, noise=None",
        ),
        ("phantom:toy?n=2.5", "phantom:toy: n=2.5 is not a whole number"),
        ("phantom:toy?level=x", "phantom:toy: level=x is not a number"),
        ("phantom:toy?flat=maybe", "phantom:toy: flat=maybe is not true or false"),
        ("phantom:toy?kind=odd", "phantom:toy: kind=odd is not one of soft, hard"),
        ("phantom:toy?n=0", "phantom:toy: n must be 1 or more, got 0"),
        ("phantom:toy?n", "'toy?n': parameters are written ?name=value&name=value"),
        ("phantom:toy?n=1&n=2", "'toy?n=1&n=2' gives the parameter n twice"),
        ("gs://bucket/scans", "gs://bucket/scans: data is read from local folders and from s3:// only; "),
        ("", "the data source is empty; give a folder, a manifest"),
    ],
)
def test_wrong_specs(spec: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        open_source(spec)
    assert str(caught.value).startswith(sentence)


def test_fingerprint_follows_content_not_place(tmp_path: Path, save_nifti: Save) -> None:
    for folder in ("one", "two"):
        for name in ("a", "b"):
            save_nifti(tmp_path / folder / f"{name}.nii", IMAGE)
    first, second = open_source(str(tmp_path / "one")), open_source(str(tmp_path / "two"))
    assert first.fingerprint == second.fingerprint
    assert len(first.fingerprint) == 64
    save_nifti(tmp_path / "two" / "b.nii", IMAGE + 1)
    assert open_source(str(tmp_path / "two")).fingerprint != first.fingerprint
    assert open_source("phantom:toy?n=2").fingerprint != open_source("phantom:toy?n=3").fingerprint


def test_big_files_are_judged_by_their_ends(tmp_path: Path) -> None:
    data = np.zeros(6 << 20, np.uint8)
    prints = []
    for index, position in enumerate((None, 0, -1)):
        changed = data.copy()
        if position is not None:
            changed[position] = 1
        np.save(tmp_path / f"{index}.npy", changed)
        prints.append(source_fingerprint([_file_case(tmp_path / f"{index}.npy")]))
    assert len(set(prints)) == 3


def _file_case(path: Path) -> Case:
    return Case("a", "a", {"image": FileRef(str(path))})


def test_cases_travel_to_workers(tmp_path: Path, save_nifti: Save) -> None:
    save_nifti(tmp_path / "a.nii.gz", IMAGE)
    source = open_source(str(tmp_path))
    again = pickle.loads(pickle.dumps(source))
    assert again == source
    np.testing.assert_array_equal(again.cases[0].volume("image").array, IMAGE[None])


def _manifest(folder: Path, text: str, name: str = "index.csv") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_manifest(tmp_path: Path, save_nifti: Save, save_series: Save) -> None:
    save_nifti(tmp_path / "img" / "a.nii.gz", IMAGE)
    save_nifti(tmp_path / "img" / "b.nii.gz", IMAGE)
    save_nifti(tmp_path / "lab" / "a.nii.gz", (IMAGE > 3).astype(np.float32))
    save_series(tmp_path / "dicom" / "one", [0.0, 2.0])
    np.savez(tmp_path / "k.npz", kspace=np.ones((2, 3, 3), np.complex64), mask=np.ones((3, 3)))
    (tmp_path / "points.csv").write_text("x,y\n1,2\n")
    spec = _manifest(
        tmp_path,
        "case,patient,image,label,kspace,nuclei,grade,split\n"
        "a,1,img/a.nii.gz,lab/a.nii.gz,k.npz#kspace,points.csv,3,train\n"
        "b,2,img/b.nii.gz,,,,0,test\n"
        "c,3,dicom/one,,,,,\n",
    )
    source = open_source(spec)
    assert [case.patient for case in source.cases] == ["1", "2", "3"]
    first, second, third = source.cases
    assert set(first.fields) == {"image", "label", "kspace", "nuclei"}
    assert dict(first.attributes) == {"grade": "3", "split": "train"}
    assert set(second.fields) == {"image"}
    assert dict(third.attributes) == {}
    assert first.volume("label").array.dtype == np.uint8
    assert first.load("kspace").dtype == np.complex64
    assert first.load("nuclei")["y"].tolist() == [2.0]
    assert third.volume("image").shape == (4, 3, 2)


def test_manifest_as_parquet_and_with_semicolons(tmp_path: Path, save_nifti: Save) -> None:
    save_nifti(tmp_path / "a.nii.gz", IMAGE)
    table = pyarrow.table({"case": ["a"], "patient": [17], "image": ["a.nii.gz"], "age": [61.5], "site": [None]})
    pyarrow.parquet.write_table(table, tmp_path / "index.parquet")
    case = open_source(str(tmp_path / "index.parquet")).cases[0]
    assert (case.id, case.patient, dict(case.attributes)) == ("a", "17", {"age": "61.5"})
    spec = _manifest(tmp_path, "\ufeffcase;patient;image\na;17;a.nii.gz\n")
    assert open_source(spec).cases[0].patient == "17"


def test_system_says_how_a_field_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "psf.npy", np.ones((2, 3, 4, 5)))
    spec = _manifest(tmp_path, "case,patient,psf\na,1,psf.npy\n")
    assert open_source(spec, fields={"psf": "array"}).cases[0].load("psf").shape == (2, 3, 4, 5)
    with pytest.raises(UserError, match="4D"):
        open_source(spec).cases[0].load("psf")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", " is empty; a manifest needs the columns case and patient"),
        (
            "name,image\na,a.nii\n",
            " has no column 'case'; a manifest needs the columns case and patient, it has name, image",
        ),
        ("case,image\na,a.nii\n", " has no column 'patient'; "),
        ("case,patient,grade\na,1,2\n", " has no column that names files; add one such as image"),
        ("case,patient,image\na,1,a.nii\nb,2,gone.nii\n", ", row 2, column image: "),
        ("case,patient,image\na,1,a.nii\na,2,a.nii\n", ", row 2: case 'a' was given in row 1 already"),
        ("case,patient,image\na,1,a.nii\n,2,a.nii\n", ", row 2: the column case is empty"),
        (
            "case,patient,image\na,1,a.nii\nb,2,unknown\n",
            ", row 2, column image: 'unknown' is not a file of a known kind",
        ),
        ("case,patient,image\na,1,a.nii\nb,2\n", ", row 2: 2 cells where the header has 3 columns"),
        ("case,patient,image\na,1,a.nii\nb,2,\n", ", row 2: case 'b' has no file; fill one of image"),
        ("case,case,image\na,1,a.nii\n", " has the column 'case' twice"),
        ("case,patient,image\na,1,gs://b/a.nii\n", ", row 1, column image: gs://b/a.nii: files are read from local"),
    ],
)
def test_faulty_manifests(tmp_path: Path, save_nifti: Save, text: str, sentence: str) -> None:
    save_nifti(tmp_path / "a.nii", IMAGE)
    spec = _manifest(tmp_path, text)
    with pytest.raises(UserError) as caught:
        open_source(spec)
    assert str(caught.value).startswith(spec + sentence)


def test_broken_parquet_and_single_file(tmp_path: Path, save_nifti: Save) -> None:
    (tmp_path / "index.parquet").write_bytes(b"PAR1 junk")
    with pytest.raises(UserError, match=r"index\.parquet is truncated or not a Parquet table"):
        open_source(str(tmp_path / "index.parquet"))
    path = save_nifti(tmp_path / "a.nii", IMAGE)
    with pytest.raises(UserError, match=r"a\.nii is a single file; a data source is a folder"):
        open_source(str(path))
