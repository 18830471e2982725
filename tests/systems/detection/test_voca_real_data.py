"""VOCA on real nuclei: they load, and a short training finds most of them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from medray.data.points import points_of
from medray.data.sources import open_source
from medray.engine.workbench import InProcessWorkbench
from medray.systems.detection.voca import VocaConfig
from medray.systems.detection.voca_system import Voca

pytestmark = pytest.mark.real_data


@pytest.fixture
def nuclei() -> Path:
    beside = Path(__file__).resolve().parents[4] / "shared" / "data"
    folder = Path(os.environ.get("MEDRAY_REAL_DATA", beside)) / "nuclei_dsb2018"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MEDRAY_REAL_DATA")
    return folder


def test_nuclei_load_train_and_are_found(nuclei: Path, tmp_path: Path) -> None:
    preset = Voca.presets["nuclei"]
    small = {"channels": (8, 16, 32, 64), "crop_px": 63, "crop_stride_px": 64, "num_epochs": 5}
    system = Voca(replace(VocaConfig(**preset.config), **small))
    cases = system.arrange(open_source(str(nuclei)).cases)[:24]
    assert system.required_fields(cases, training=True) == ("image", "label")
    assert not system.problems(cases, {})
    assert sum(len(points_of(case)) for case in cases) > 300
    splits = system.split(replace(open_source(str(nuclei)), cases=tuple(cases)), 0)
    work = InProcessWorkbench(tmp_path, quiet=True, tensorboard=False)
    found = system.evaluate(work, system.train(work, splits), splits.test)
    assert found.summary["f1"] > 0.6
