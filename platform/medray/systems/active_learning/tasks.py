"""The three tasks of M-VAAL by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from medray.systems.active_learning.classification_tasks import MultiClassTask, MultiLabelTask
from medray.systems.active_learning.network_task import NetworkTask
from medray.systems.active_learning.segmentation_task import SegmentationTask
from medray.systems.active_learning.task_settings import TaskSettings

TaskName = Literal["segmentation", "multi_label", "multi_class"]

_TASKS: dict[TaskName, type[NetworkTask[Any]]] = {
    "segmentation": SegmentationTask,
    "multi_label": MultiLabelTask,
    "multi_class": MultiClassTask,
}


def make_task(name: TaskName, settings: TaskSettings, classes: Sequence[str]) -> NetworkTask[Any]:
    """A task of a campaign.

    Args:
        name: which.
        settings: of its network.
        classes: names of what is told apart; for segmentation of the foreground.

    Raises:
        ValueError: settings that the task's network cannot have.
    """
    return _TASKS[name](settings, classes)
