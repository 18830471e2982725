"""HParams events: what TensorBoard reads back is what the trial was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from made_up_sweeps import made_up_sweep
from optuna.trial import TrialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from tuning.records import read_sweep, read_trials
from tuning.report.curves import curve_plot
from tuning.report.results import read_results
from tuning.space import Choice, Dimension, Uniform
from tuning.tensorboard import write_hparams

DIMENSIONS = (
    Dimension("feature_lr", Uniform(1e-4, 1e-1, log=True)),
    Dimension("feature_every", Uniform(1, 9, whole=True)),
    Dimension("grid_spacing", Choice(((20, 10, 7), (12, 8)))),
    Dimension("shared_weights", Choice((True, False))),
    Dimension("converged_px", Choice((0, 0.5))),
)


def written(folder: Path, number: int) -> EventAccumulator:
    events = EventAccumulator(str(folder / f"trials/{number:04d}"))
    events.Reload()
    return events


def plugin(events: EventAccumulator, tag: str) -> Any:
    return metadata.parse_session_start_info_plugin_data(events.SummaryMetadata(tag).plugin_data.content)


def test_settings_and_objectives_come_back_with_their_types(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    objectives = {"dice": "max", "tre_px": "min"}
    states = [TrialState.COMPLETE, TrialState.FAIL]
    study = made_up_sweep(folder, objectives=objectives, dimensions=DIMENSIONS, states=states)
    for _ in range(2):  # a second time replaces the first
        for trial in read_trials(study, DIMENSIONS):
            write_hparams(folder, trial, objectives)
    assert len(list((folder / "trials/0000").glob("events*"))) == 1

    finished, failed = read_trials(study, DIMENSIONS)
    events = written(folder, 0)
    start = plugin(events, metadata.SESSION_START_INFO_TAG)
    assert start.hparams["feature_lr"].number_value == finished.config["feature_lr"]
    assert start.hparams["grid_spacing"].string_value == " ".join(map(str, finished.config["grid_spacing"]))
    assert start.hparams["shared_weights"].bool_value == finished.config["shared_weights"]
    assert start.group_name == "trial 0"
    for metric, value in zip(objectives, finished.values, strict=True):
        assert abs(events.Scalars(metric)[-1].value - value) < 1e-5
    assert [event.step for event in events.Scalars("curve/dice")] == list(finished.curve)
    assert failed.values == ()
    assert "dice" not in written(folder, 1).Tags()["scalars"]


def test_curves_carry_the_name_of_the_metric_that_the_scheduler_goes_by(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    study = made_up_sweep(folder, objectives={"dice": "max"}, dimensions=DIMENSIONS, states=[TrialState.COMPLETE])
    saved = json.loads((folder / "sweep.json").read_text())
    saved["settings"]["stop_on"] = "loss"
    (folder / "sweep.json").write_text(json.dumps(saved))
    (trial,) = read_trials(study, DIMENSIONS)
    write_hparams(folder, trial, {"dice": "max"})
    assert "curve/loss" in written(folder, 0).Tags()["scalars"]
    plot = curve_plot(read_results(folder, study))
    assert plot is not None
    assert "loss over training" in plot.summary


def test_the_experiment_names_ranges_and_choices(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    study = made_up_sweep(folder, dimensions=DIMENSIONS, states=[TrialState.FAIL])
    (trial,) = read_trials(study, read_sweep(folder).dimensions)
    write_hparams(folder, trial, {"dice": "max"})
    events = written(folder, 0)
    content = events.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    experiment = metadata.parse_experiment_plugin_data(content)
    infos = {info.name: info for info in experiment.hparam_infos}
    assert list(infos) == [dimension.name for dimension in DIMENSIONS]
    assert infos["feature_lr"].domain_interval.max_value == 0.1
    spacings = infos["grid_spacing"].domain_discrete.values
    assert {one.string_value for one in spacings} == {"20 10 7", "12 8"}
    assert infos["shared_weights"].type == api_pb2.DATA_TYPE_BOOL
    assert infos["converged_px"].type == api_pb2.DATA_TYPE_FLOAT64
    assert [info.name.tag for info in experiment.metric_infos] == ["dice"]
    end = metadata.parse_session_end_info_plugin_data(
        events.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
    )
    assert end.status == api_pb2.STATUS_FAILURE
