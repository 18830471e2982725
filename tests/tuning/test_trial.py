"""What a trial tells Tune, without Tune."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_sweeps import Dial, DialConfig

from medray.engine.options import RunOptions
from medray.engine.run import checked_source
from tuning import trial
from tuning.trial import TrialJob, run_configuration

PHANTOM = "phantom:chest_xray?n=12&size=32"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    monkeypatch.delenv("TUNE_FUNCTION_THREAD_TIMEOUT_S", raising=False)
    monkeypatch.setattr(trial.tune, "report", found.append)
    yield found
    os.environ.pop("TUNE_FUNCTION_THREAD_TIMEOUT_S", None)


def _job(folder: Path, **config: Any) -> TrialJob:
    system, options = Dial(DialConfig(**config)), RunOptions(data=PHANTOM, num_workers=0)
    return TrialJob(
        sweep=str(folder),
        system=Dial,
        config=system.config,
        options=options,
        source=checked_source(system, options, known={}),
        preset="smoke",
        variant="dial",
        command="python -m tuning.sweep dial",
        metrics=("score",),
        stop_on="score",
        num_seeds=1,
        on_gpu=False,
    )


@pytest.mark.parametrize("trouble", ["", "user"])
def test_whatever_becomes_of_a_trial_its_time_is_told_from_the_first_measurement_on(
    tmp_path: Path, told: list[dict[str, Any]], trouble: str
) -> None:
    run_configuration({"number": 0, "config": {"x": 0.9}}, _job(tmp_path, trouble=trouble, pause_s=0.02))
    assert [said.get("step") for said in told] == ([1, None] if trouble else [1, 2, 3, None])
    assert ("failure" in told[-1]) is bool(trouble)
    assert told[0]["seconds"] >= 0.02
    assert told[-1]["seconds"] > told[0]["seconds"]


def test_a_run_has_the_command_of_its_sweep_and_not_of_rays_process(tmp_path: Path, told: list[dict[str, Any]]) -> None:
    run_configuration({"number": 0, "config": {"x": 0.2}}, _job(tmp_path))
    config = json.loads((tmp_path / "trials/0000/seed-0/config.json").read_text())
    assert config["command"] == "python -m tuning.sweep dial"


def test_the_next_trial_waits_for_the_end_of_the_one_before_in_its_process(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    """After Tune's own two seconds it would be taken for failed, and not be tried again."""
    run_configuration({"number": 0, "config": {"x": 0.9}}, _job(tmp_path))
    assert int(os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"]) >= 60
