"""The data layer on real scans: MR and ultrasound prostates, multi-modal brains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medray.data.check import check_cases
from medray.data.geometry import Grid, canonical, make_grid, placement, resample
from medray.data.readers import read_volume
from medray.data.sources import open_source
from medray.data.splits import split_by_patient
from medray.data.writers import write_volume

pytestmark = pytest.mark.real_data


def _set(folder: Path, name: str) -> Path:
    if not (folder / name).is_dir():
        pytest.skip(f"{folder} has no {name}")
    return folder / name


def test_prostates(real_data: Path) -> None:
    source = open_source(str(_set(real_data, "prostate_mr_us")))
    assert {case.attributes["modality"] for case in source.cases} == {"mr", "us"}
    assert len({case.patient for case in source.cases}) * 2 == len(source.cases)
    good, bad = check_cases(source.cases, required=("image", "label"), spatial_dims=3)
    assert (len(good), bad, source.bad) == (len(source.cases), (), ())
    splits = split_by_patient(source.cases)
    assert not {case.patient for case in splits.train} & {case.patient for case in splits.test}
    cases = {case.id: case for case in source.cases}
    mr, us = cases["mr/case000000"].volume("label"), cases["us/case000000"].volume("label")
    assert mr.array.shape == (3, 64, 64, 60)  # gland and two landmarks
    assert mr.array.dtype == np.uint8
    grid = make_grid([mr, us], spacing_mm=0.8, align="center")
    place = placement(us, mr, "center")
    both = [resample(mr, grid, order=0).array[0] > 0, resample(us, grid, order=0, place=place).array[0] > 0]
    assert 2 * (both[0] & both[1]).sum() / (both[0].sum() + both[1].sum()) > 0.5


def test_brain_comes_back_from_another_orientation(real_data: Path, tmp_path: Path) -> None:
    path = _set(real_data, "ms_brain_mni") / "patient07" / "t1.nii.gz"
    volume = read_volume(path)
    turned = canonical(volume)
    assert turned.affine[0, 0] == 1.0
    again = read_volume(write_volume(turned, tmp_path / "t1.mha"))
    np.testing.assert_array_equal(resample(again, Grid.of(volume), order=0).array, volume.array)


def test_deformed_brains(real_data: Path) -> None:
    source = open_source(f"deformed:{_set(real_data, 'ms_brain_mni')}?moving=t1&fixed=flair&every=40")
    assert {case.patient for case in source.cases} == {"patient07", "patient26"}
    lengths = []
    for case in source.cases:
        mask = case.volume("mask").array[0] > 0
        field = case.volume("displacement").array
        lengths.append(float(np.sqrt((field**2).sum(axis=0))[mask].mean()))
        labels = [case.volume(name).array[0] for name in ("moving_label", "fixed_label")]
        back = ndimage.map_coordinates(labels[0], np.indices(mask.shape) + field, order=0)
        assert (back == labels[1])[mask].mean() > 0.93
        assert (labels[0] == labels[1])[mask].mean() < 0.75
    assert 3.0 < np.mean(lengths) < 6.0
