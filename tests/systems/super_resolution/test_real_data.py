"""BliMSR on slices of real CT and MR: it trains, scores and enlarges them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from medray.data.geometry import Grid
from medray.data.readers import read_volume
from medray.data.sources import open_source
from medray.engine.options import LoopOptions
from medray.engine.workbench import InProcessWorkbench
from medray.system import PredictRequest, Trained
from medray.systems.super_resolution.blimsr_config import BlimsrConfig
from medray.systems.super_resolution.blimsr_system import Blimsr
from medray.systems.super_resolution.high_res import IntensityRange, range_of

pytestmark = pytest.mark.real_data

T1 = "ms_brain_mni/patient07/t1.nii.gz"
TINY = {"crop_px": 32, "num_blocks": 1, "num_channels": 8, "disc_channels": 2, "batch_size": 4, "perceptual": "random"}


@pytest.mark.parametrize(("data", "every"), [("ct_small/example_ct_sm.nii.gz", 4), (T1, 24)])
def test_slices_of_real_volumes_are_learnt_from(real_data: Path, tmp_path: Path, data: str, every: int) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / Path(data).name).symlink_to(real_data / data)
    made = Blimsr(BlimsrConfig(**TINY, lr=1e-3, num_epochs=1))  # type: ignore[arg-type]
    source = open_source(str(folder))
    cases = made.arrange(source.cases)[::every]
    assert len(cases) >= 4
    assert not made.problems(cases, {})
    # one patient, so slices stand in for patients here
    cases = [dataclasses.replace(case, patient=case.id) for case in cases]
    work = InProcessWorkbench(tmp_path / "run", LoopOptions(), quiet=True, tensorboard=False)
    splits = made.split(dataclasses.replace(source, cases=tuple(cases)), seed=0)
    trained = made.train(work, splits)
    found = made.evaluate(work, trained, splits.test)
    assert all(math.isfinite(value) for value in found.summary.values())
    assert 8 < found.summary["psnr_db"] < 45
    assert found.summary["psnr_db_bicubic"] > 12


def test_scales_of_real_volumes_are_told_apart(real_data: Path) -> None:
    ct, t1 = (read_volume(real_data / name) for name in ("ct_small/example_ct_sm.nii.gz", T1))
    assert range_of(ct, "auto", (-1024.0, 1024.0)) == IntensityRange(-1024.0, 1024.0)
    found = range_of(t1, "auto", (-1024.0, 1024.0))
    assert -60 < found.low < 1
    assert 300 < found.high < t1.array.max()


def test_a_real_ct_is_enlarged_over_the_same_place(real_data: Path, tmp_path: Path) -> None:
    given, out = real_data / "ct_small" / "example_ct_sm.nii.gz", tmp_path / "fine.nii.gz"
    made = Blimsr(BlimsrConfig(generator="bicubic"))
    told = made.predict(Trained(weights=None), PredictRequest(inputs=[given], out=out))
    coarse, fine = read_volume(given), read_volume(out)
    assert fine.array.size == 16 * coarse.array.size
    assert Grid.of(fine).corners() == pytest.approx(Grid.of(coarse).corners(), abs=1e-2)
    assert told.metrics["spacing0_mm"] == pytest.approx(0.75)
    assert 0 < told.metrics["clipped_percent"] < 5
