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

log = logging.getLogger(__name__)

_QUICK = {
    # After a loss a group is first tried at the old size; by default Ray waits a minute for the lost node's share.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3",
    # How often the controller asks its workers how they are.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
}
_RESIZE_MONITOR_S = 5.0
"""How often a healthy run looks whether it could have more workers."""
_NODE_WATCH_S = 1.0


def scaling_config(options: RunOptions) -> Any:
    """The `ray.train.ScalingConfig` of a run."""
    from ray.train import ScalingConfig

    return ScalingConfig(
        num_workers=(options.min_workers, options.num_workers) if options.min_workers else options.num_workers,
        use_gpu=options.use_gpu,
        elastic_resize_monitor_interval_s=_RESIZE_MONITOR_S,
    )


@contextmanager
def prompt_resizing(options: RunOptions) -> Iterator[None]:
    """Have an elastic run that is started in here notice within seconds when a node leaves or joins.

    Sets what Ray Train reads from this process's environment and hands to its controller, unless the user has set it,
    and has Ray's table of nodes renewed whenever they change.
    """
    if not options.min_workers:
        yield
        return
    added = {name: value for name, value in _QUICK.items() if name not in os.environ}
    os.environ.update(added)
    done = threading.Event()
    watch = threading.Thread(target=_renew_table_of_nodes, args=(done,), name="node-watch", daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()
        for name in added:
            os.environ.pop(name, None)


def _renew_table_of_nodes(done: threading.Event) -> None:
    """Whenever the nodes change, ask for what Ray does by itself only every 20 s, an interval without a setting (2.60).

    Until then a group of the old size is tried again and again. The actor that keeps the table has a method for it, but
    not a public one: where it fails, resizing takes up to 20 s longer and nothing else changes.
    """
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
