"""How many workers a run has: a fixed number, or any number in a range as nodes leave and join.

Ray Train restarts its worker group on whatever is left, and the loop goes on from the newest whole checkpoint with the
same global batches. What is here makes Ray notice within seconds; docs/reliability.md has the measurements.
"""

from __future__ import annotations

import os
from typing import Any

from medray.engine.options import RunOptions

_QUICK_RESIZE = {
    # A new group is first tried at the old size, since Ray's table of free resources is up to 20 s old; a placement
    # group on a lost node never comes to be, and by default Ray gives it a minute.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",
    # How often the controller asks its workers how they are.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
}
_RESIZE_MONITOR_S = 10.0
"""How often a healthy run looks whether it could have more workers."""


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
