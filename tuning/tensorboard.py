"""A sweep in TensorBoard's HParams tab: `tensorboard --logdir` on its folder shows settings and objectives per trial.

Each trial has an event file of its own in its folder, beside those that its runs write while they train.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuning.records import TrialRecord, read_sweep
from tuning.space import Choice, Dimension, Value

_SUFFIX = ".hparams"
_STATUS = {"finished": "STATUS_SUCCESS", "failed": "STATUS_FAILURE", "running": "STATUS_RUNNING"}


def write_hparams(folder: Path, trial: TrialRecord, objectives: Mapping[str, str]) -> None:
    """Write a trial's settings, its curve and, once it is finished, its objectives; what it wrote before goes.

    Args:
        folder: of the sweep.
        trial: one of its own, in any state.
        objectives: metric -> "max" or "min".

    Raises:
        UserError: the folder is not a sweep's.
    """
    # torch's writer, since TensorBoard's own needs TensorFlow; both take over a second to import
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from torch.utils.tensorboard import FileWriter
    from torch.utils.tensorboard.summary import scalar

    record = read_sweep(folder)
    watched = record.settings.get("stop_on") or next(iter(objectives))
    dimensions = {dimension.name: dimension for dimension in record.dimensions}
    place = folder / trial.folder
    for old in place.glob(f"events.out.tfevents.*{_SUFFIX}"):
        old.unlink()
    settings = {name: _value(dimensions[name], value) for name, value in trial.config.items()}
    writer = FileWriter(str(place), filename_suffix=_SUFFIX)
    writer.add_summary(_experiment(list(dimensions.values()), objectives))
    writer.add_summary(hparams_pb(settings, trial_id=f"trial {trial.number}"))
    for metric, value in zip(objectives, trial.values, strict=False):
        writer.add_summary(scalar(metric, value), 0)
    for step, value in trial.curve.items():
        if math.isfinite(value):
            writer.add_summary(scalar(f"curve/{watched}", value), step)
    if trial.state in _STATUS:
        writer.add_summary(_end(_STATUS[trial.state]))
    writer.close()


def _experiment(dimensions: list[Dimension], objectives: Mapping[str, str]) -> Any:
    """What all trials have in common. Each file has it, since TensorBoard reads the first that it finds."""
    from tensorboard.plugins.hparams.summary_v2 import HParam, Metric, hparams_config_pb

    return hparams_config_pb(
        hparams=[HParam(dimension.name, _domain(dimension)) for dimension in dimensions],
        metrics=[
            Metric(metric, description=f"{'lower' if mode == 'min' else 'higher'} is better")
            for metric, mode in objectives.items()
        ],
    )


def _domain(dimension: Dimension) -> Any:
    """What TensorBoard needs to offer the right filter: a list of values, or a range."""
    from tensorboard.plugins.hparams.summary_v2 import Discrete, IntInterval, RealInterval

    values = dimension.values
    if isinstance(values, Choice):
        return Discrete([_value(dimension, value) for value in values.values])
    low, high = values.corners
    return IntInterval(low, high) if values.whole else RealInterval(low, high)


def _value(dimension: Dimension, value: Value) -> bool | float | str:
    """A setting as TensorBoard takes it: of one type throughout, so choices of mixed types go by their text."""
    if not isinstance(dimension.values, Choice):
        return float(value)
    kinds = {type(one) for one in dimension.values.values}
    if kinds <= {int, float}:
        return float(value)
    return bool(value) if kinds == {bool} else str(dimension.values.encode(value))


def _end(status: str) -> Any:
    """How a trial ended. TensorBoard's own function for it needs TensorFlow."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.Status.Value(status))
    described = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
    return Summary(value=[Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=described)])
