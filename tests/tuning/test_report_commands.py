"""The command that a sweep gives for its best trial is one that the job understands, and means the same."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up_sweeps import made_up_sweep

from medray import registry
from medray.cli.flags import parse_training
from tuning.records import SweepRecord, TrialRecord, read_sweep, read_trials
from tuning.report.commands import reproduce_command


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepRecord, TrialRecord]:
    folder: Path = tmp_path_factory.mktemp("suts") / "sweep"
    study = made_up_sweep(folder)
    record = read_sweep(folder)
    return record, read_trials(study, record.dimensions)[0]


@pytest.mark.parametrize(
    ("system", "preset", "variant", "common", "config"),
    [
        (
            "suts",
            "demo",
            "mind",
            {"moving": "ct", "same_start": "false", "smooth_weights": "0.01 0.02"},
            {"grid_spacing": (12, 8), "strides": (1, 1), "shared_weights": True, "damping": 1e-07, "spacing_mm": ()},
        ),
        ("mvaal", "demo", "vaal", {"task": "multi_label"}, {"gamma_3": 0.2, "task_size": None, "budget": 7}),
        (
            "axon_tracker",
            "smoke",
            "gaussian",
            {"channels": "8 16", "bf16": "true"},
            {"lr": 3.3333333333333335e-05, "lambda_": 0.875, "lr_end": None, "history": False, "reward": "sum"},
        ),
    ],
)
def test_the_job_reads_the_command_back(
    made_up: tuple[SweepRecord, TrialRecord],
    system: str,
    preset: str,
    variant: str,
    common: dict[str, str],
    config: dict[str, Any],
) -> None:
    record, trial = made_up
    record = replace(
        record, system=system, preset=preset, variant=variant, data="a folder/of 'scans'", fields_set=common
    )
    words = shlex.split(reproduce_command(record, replace(trial, config=config), seed=4))
    assert words[:3] == ["python", f"jobs/{system}.py", "train"]
    asked = parse_training(registry.load(system), words[3:], prog="", description="")
    assert (asked.preset, asked.variant, asked.options.seed) == (preset, variant, 4)
    assert asked.options.data == "a folder/of 'scans'"
    assert {name: getattr(asked.config, name) for name in config} == config
    for name, text in common.items():
        value = getattr(asked.config, name)
        assert (" ".join(map(str, value)) if isinstance(value, tuple) else str(value)).lower() == text


def test_what_was_searched_beats_what_was_set(made_up: tuple[SweepRecord, TrialRecord]) -> None:
    record, trial = made_up
    record = replace(record, fields_set={"feature_lr": "0.5"})
    assert reproduce_command(record, trial, 0).count("--config.feature-lr") == 1
