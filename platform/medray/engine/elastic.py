"""How many workers a run has: a fixed number, or any number in a range as nodes leave and join.

Ray Train restarts its worker group on whatever is left, and the loop goes on from the newest whole checkpoint with the
same global batches. What is here makes Ray notice within seconds; docs/reliability.md has the measurements.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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

log = logging.getLogger(__name__)


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


@contextmanager
def prompt_resizing(options: RunOptions) -> Iterator[None]:
    """While an elastic run trains, tell Ray Train's table of nodes at once when one leaves or joins.

    The table belongs to an actor that renews it every 20 s, an interval without a setting (Ray 2.60), and until then a
    group of the old size is tried again and again. The actor can be asked to renew it, though not through a public
    interface: where that fails, resizing only takes up to 20 s longer.
    """
    if not options.min_workers:
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_watch_nodes, args=(done,), name="node-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _watch_nodes(done: threading.Event) -> None:
    import ray

    known: set[str] = set()
    while not done.wait(_NODE_WATCH_S):
        try:
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            if known and alive != known:
                table = ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator")
                ray.get(table.get_reserved_resources.remote("", recompute=True), timeout=5)
            known = alive
        except Exception as error:  # tried again in a second; the run does not depend on it
            log.debug("could not have the table of nodes renewed: %s", error)
