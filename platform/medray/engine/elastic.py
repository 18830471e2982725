"""As many workers as the cluster has room for, between a least and a most, as nodes leave and join.

Each size is a Ray Train run of its own, and the loop goes on from the newest whole checkpoint with the same global
batches. Ray Train can resize by itself, but takes up to half a minute to believe that a node is gone (it renews its
table of nodes every 20 s, for which there is no setting), and stops in the middle of a step to grow. Here the driver
starts anew as soon as a worker is lost, and grows after a checkpoint made for it, so growing repeats no step.
docs/reliability.md has the measurements.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from medray.engine.loop import LoopResult
from medray.engine.options import RunOptions

log = logging.getLogger(__name__)

_QUICK = {
    # A group that does not come up stood on a node that is gone; by default Ray waits a minute for it.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3",
    # How often the controller asks its workers how they are.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
}
_LOOK_EVERY_S = 2.0
_SURE_AFTER = 2
"""Looks in a row that must see more room before a healthy run is stopped for it."""

_GIVING_UP_S = 20.0
"""Within this the cluster has declared a node dead, also with Ray's default patience."""
_TRIES_TO_START = 20
"""Groups in a row that do not come up before something else must be wrong."""

Fit = Callable[[int], LoopResult]


class ElasticRun:
    """Fits one size after another until the loop is through.

    Args:
        options: of the run.
        desk: asks the workers to pause.
        fit: trains on so many workers, failing at the first that is lost.
    """

    def __init__(self, options: RunOptions, desk: Any, fit: Fit) -> None:
        self.options, self.desk, self.fit = options, desk, fit

    def run(self) -> LoopResult:
        """The result of the last size.

        Raises:
            TrainingFailedError: more failures than the options allow.
        """
        import ray
        from ray.train import ControllerError, TrainingFailedError

        losses = starts = size = 0
        most = self.options.num_workers
        while True:
            before, size = size, min(most, self._room())
            if before and size != before:
                log.warning("going on with %d instead of %d workers", size, before)
            ray.get(self.desk.go_on.remote())
            try:
                with quick_to_notice(), self._growing(size, after_s=_GIVING_UP_S if starts else 0.0):
                    result = self.fit(size)
            except TrainingFailedError as error:
                if not ray.is_initialized() or ray.get(self.desk.failure.remote()):  # the session is over, or no use
                    raise
                if isinstance(error, ControllerError):  # not even started: on a node that is still being given up
                    starts, most = starts + 1, max(self.options.min_workers, size - 1)
                else:
                    losses, starts, most = losses + 1, 0, self.options.num_workers
                if starts > _TRIES_TO_START or 0 <= self.options.max_failures < losses:
                    raise
                log.warning("a worker was lost; starting again from the newest checkpoint")
                continue
            if result.finished or not ray.is_initialized() or ray.get(self.desk.stop_asked.remote()):
                return result
            starts, most = 0, self.options.num_workers

    def _room(self) -> int:
        """How many workers fit on the nodes that are alive; waits until it is as many as the run needs at least."""
        import ray

        told = False
        while (room := min(self.options.num_workers, capacity(self.options))) < self.options.min_workers:
            if ray.get(self.desk.stop_asked.remote()):
                raise KeyboardInterrupt("stopped while waiting for nodes")
            if not told:
                log.warning("room for %d of at least %d workers; waiting for nodes", room, self.options.min_workers)
                told = True
            time.sleep(_LOOK_EVERY_S)
        return room

    @contextmanager
    def _growing(self, size: int, *, after_s: float) -> Iterator[None]:
        """Ask the workers to pause once there has been room for more of them for a moment.

        Args:
            size: how many there are.
            after_s: not sooner than this, while a node that is gone may still be counted.
        """
        over = threading.Event()

        def watch() -> None:
            seen = 0
            over.wait(after_s)
            while not over.wait(_LOOK_EVERY_S):
                seen = seen + 1 if min(self.options.num_workers, capacity(self.options)) > size else 0
                if seen == _SURE_AFTER:
                    self.desk.pause.remote()
                    return

        thread = threading.Thread(target=watch, name="medray-elastic", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def capacity(options: RunOptions) -> int:
    """How many workers the cluster's nodes that are alive can hold."""
    import ray

    room = 0
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            places = int(has.get("CPU", 0) // options.cpus_per_worker)
            room += min(places, int(has.get("GPU", 0))) if options.use_gpu else places
    return room


@contextmanager
def quick_to_notice() -> Iterator[None]:
    """Ray Train hands the driver's settings to its controller; those the user has set stay."""
    added = {name: value for name, value in _QUICK.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
