"""What the driver and the workers of a run tell each other: please stop, this cannot work, these are my numbers.

A small actor rather than files, since the workers may be on other nodes and the run on storage that is down.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping
from typing import Any

from medray.engine.host import Host
from medray.engine.mirror import Mirror

_ASK_EVERY_S = 0.5


class Desk:
    """Remembers what was said. Runs as an actor on the driver's node: it lives as long as the driver does."""

    def __init__(self) -> None:
        self._stop = self._pause = False
        self._failure: dict[str, str] = {}
        self._news: list[str] = []
        self._notes: list[tuple[str, dict[str, float]]] = []

    def ask_to_stop(self) -> None:
        """By the driver: checkpoint and end."""
        self._stop = True

    def stop_asked(self) -> bool:
        """Whether the driver asked."""
        return self._stop

    def pause(self) -> None:
        """By the driver: checkpoint and end, to go on with other workers."""
        self._pause = True

    def go_on(self) -> None:
        """By the driver: the pause is over."""
        self._pause = False

    def should_end(self) -> bool:
        """Whether the loop should checkpoint and end, for good or for a while."""
        return self._stop or self._pause

    def tell(self, text: str) -> None:
        """By a worker: something the person watching should know."""
        self._news.append(text)

    def news(self) -> list[str]:
        """What was told since the last time."""
        news, self._news = self._news, []
        return news

    def note(self, name: str, metrics: dict[str, float]) -> None:
        """By the first worker: numbers it has logged."""
        self._notes.append((name, metrics))

    def notes(self) -> list[tuple[str, dict[str, float]]]:
        """What was noted since the last time."""
        notes, self._notes = self._notes, []
        return notes

    def report_failure(self, failure: dict[str, str]) -> None:
        """By a worker: a mistake that another try would meet again. The first one counts."""
        self._failure = self._failure or failure

    def failure(self) -> dict[str, str]:
        """What was reported; empty if nothing was."""
        return self._failure


def open_desk() -> Any:
    """Start the actor beside the driver. Should it die or not answer, whoever asks waits for it: it is not the run."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # Should its process be killed, it starts again and calls wait for it; what it knew is told again or not missed.
    lasting = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
    return lasting(Desk).remote()


def close_desk(desk: Any) -> None:
    """End the actor."""
    import ray

    ray.kill(desk)


class _Forward(logging.Handler):
    """Takes a worker's warnings to the driver, whose terminal the person looks at."""

    def __init__(self, desk: Any) -> None:
        super().__init__(logging.WARNING)
        self._desk = desk

    def emit(self, record: logging.LogRecord) -> None:
        self._desk.tell.remote(record.getMessage())


class WorkerHost(Host):
    """A Ray Train worker as the loop's host: asks the desk beside the steps, exports what is logged to Prometheus."""

    def __init__(self, desk: Any, *, run: str, loop: str, mirror: Mirror | None = None) -> None:
        super().__init__(mirror)
        self._desk = desk
        self._tags = {"run": run, "loop": loop}
        self._stop = False
        self._over = threading.Event()
        self._gauges: dict[str, Any] = {}
        self._forward = _Forward(desk)

    def __enter__(self) -> WorkerHost:
        logging.getLogger("medray").addHandler(self._forward)
        threading.Thread(target=self._ask, name="medray-desk", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        logging.getLogger("medray").removeHandler(self._forward)

    def stop_requested(self) -> bool:
        """Whether the driver asked to stop, as of half a second ago."""
        return self._stop

    def observe(self, name: str, metrics: Mapping[str, float]) -> None:
        """Set a gauge ``medray_<name>_<metric>`` for each number; Ray's metrics agent serves them to Prometheus.

        The driver is told too.
        """
        from ray.util.metrics import Gauge

        self._desk.note.remote(name, dict(metrics))
        for key, value in metrics.items():
            metric = "".join(c if c.isalnum() else "_" for c in f"medray_{name}_{key}")
            if metric not in self._gauges:
                self._gauges[metric] = Gauge(metric, description=f"{key} of {name}", tag_keys=("run", "loop"))
            self._gauges[metric].set(float(value), tags=self._tags)

    def _ask(self) -> None:
        import ray

        while not self._over.wait(_ASK_EVERY_S):
            with contextlib.suppress(ray.exceptions.RayError):  # the driver is gone: Ray ends this worker soon
                self._stop = self._stop or ray.get(self._desk.should_end.remote())
