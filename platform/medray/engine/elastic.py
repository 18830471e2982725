"""How many workers a run has: a fixed number, or any number in a range as nodes leave and join.

Ray Train restarts its worker group on whatever is left, and the loop goes on from the newest whole checkpoint with the
same global batches. What is here makes Ray notice within seconds; docs/reliability.md has the measurements.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

from medray.engine.options import RunOptions

_QUICK_RESIZE = {
    # After a loss a group is first tried at the old size; by default Ray waits a minute for the lost node's share.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3",
    # How often the controller asks its workers how they are.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
}
_RESIZE_MONITOR_S = 5.0
"""How often a healthy run looks whether it could have more workers."""
_NODE_WATCH_S = 1.0


def scaling_config(options: RunOptions) -> Any:
    """The `ray.train.ScalingConfig` of a run.

    Call it before the trainer is built: for an elastic run it also sets, unless the user has, the environment variables
    that Ray Train hands from this process to its controller.
    """
    from ray.train import ScalingConfig

    if not options.min_workers:
        return ScalingConfig(num_workers=options.num_workers, use_gpu=options.use_gpu)
    for name, value in _QUICK_RESIZE.items():
        os.environ.setdefault(name, value)
    return ScalingConfig(
        num_workers=(options.min_workers, options.num_workers),
        use_gpu=options.use_gpu,
        elastic_resize_monitor_interval_s=_RESIZE_MONITOR_S,
    )
