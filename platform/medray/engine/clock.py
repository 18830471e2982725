"""Where the time of a step goes."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from medray.engine.world import World
from medray.learner import SumCount

Part = Literal["data", "compute", "checkpoint"]


class StepClock:
    """Adds up the parts of the steps between two looks.

    What passes inside `World`'s operations counts as communication and is taken off the part it happened in. On a GPU,
    compute is the time until the host goes on; every update waits for its gradients, so little stays outside.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._reset()

    def _reset(self) -> None:
        self._parts: dict[Part, float] = {"data": 0.0, "compute": 0.0, "checkpoint": 0.0}
        self._steps = 0
        self._began = time.perf_counter()
        self._communication_s = self._world.communication_s

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Count the block as this part."""
        began, talked = time.perf_counter(), self._world.communication_s
        try:
            yield
        finally:
            spent_s = time.perf_counter() - began
            self._parts[name] += spent_s - (self._world.communication_s - talked)

    def step(self) -> None:
        """A step is over."""
        self._steps += 1

    def read(self) -> dict[str, SumCount]:
        """Milliseconds per step by part, and memory, since the last time; then starts over.

        ``checkpoint_ms`` is what training waited for checkpoints, not what writing them took in the background.
        """
        steps = max(self._steps, 1)
        parts: dict[str, float] = dict(self._parts.items())
        parts["communication"] = self._world.communication_s - self._communication_s
        parts["step"] = time.perf_counter() - self._began
        found = {f"{name}_ms": SumCount(1000.0 * seconds, steps) for name, seconds in parts.items()}
        found["memory_mb"] = SumCount(_peak_memory_mb(), 1)
        if self._world.device.type == "cuda":
            found["gpu_memory_mb"] = SumCount(torch.cuda.max_memory_allocated(self._world.device) / 2**20, 1)
        self._reset()
        return found


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
