"""The axon tracker on the vessels of real photographs: they load, peers trace them, a few rounds of learning run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from medray.data.case import Splits
from medray.data.sources import open_source
from medray.engine.workbench import InProcessWorkbench
from medray.system import Trained
from medray.systems.tracking.axon_presets import PRESETS
from medray.systems.tracking.axon_tracker import AxonTrackerConfig
from medray.systems.tracking.axon_tracker_system import AxonTracker
from medray.systems.tracking.scenes import CaseScenes, Preparation

pytestmark = pytest.mark.real_data


@pytest.fixture
def vessels() -> Path:
    beside = Path(__file__).resolve().parents[4] / "shared" / "data"
    folder = Path(os.environ.get("MEDRAY_REAL_DATA", beside)) / "retina_drive"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MEDRAY_REAL_DATA")
    return folder


@pytest.mark.parametrize(("method", "least"), [("minimal_path", 92.0), ("ridge_following", 85.0)])
def test_peers_follow_vessels(vessels: Path, tmp_path: Path, method: str, least: float) -> None:
    config = AxonTrackerConfig(method=method, intensity="local")  # type: ignore[arg-type]
    case = open_source(str(vessels)).cases[0]
    system = AxonTracker(config)
    assert not system.problems([case], {})
    found = system.evaluate(InProcessWorkbench(tmp_path, quiet=True), Trained(weights=None), [case])
    assert found.summary["ruled_coverage_pct"] > least
    assert found.summary["num_branches"] > 60


def test_fine_tuning_runs_on_vessels(vessels: Path, tmp_path: Path) -> None:
    tiny = {"channels": (4, 4), "hidden": 16, "num_iterations": 2, "episodes_per_iteration": 8, "num_envs": 8,
            "num_validation": 8, "max_steps": 40, "folds": 0, "fold": 0}  # fmt: skip
    config = replace(AxonTrackerConfig(**PRESETS["finetune"].config), **tiny)
    first, second = open_source(str(vessels)).cases[:2]
    scenes = CaseScenes([first], Preparation(config.polarity, config.intensity))
    line = scenes[0].centreline
    assert line is not None
    columns, rows = line.round().astype(int).T
    assert scenes[0].image[rows, columns].mean() > scenes[0].image.mean() + 0.1  # dark vessels have become bright
    work = InProcessWorkbench(tmp_path, quiet=True, tensorboard=False)
    trained = AxonTracker(config).train(work, Splits((first,), (), (second,)))
    found = AxonTracker(config).evaluate(work, trained, [second])
    assert 0 < found.summary["coverage_pct"] < 100
