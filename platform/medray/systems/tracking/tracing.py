"""Following structures with a trained policy: many at once, deterministic, in plain PyTorch and NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from envs.axon.episodes import Beginning, ends_of
from envs.axon.options import TrackingOptions
from envs.axon.scene import Scene, Scenes
from envs.axon.traces import Trace
from envs.axon.trackers import Trackers
from medray.policy import PolicyProblem, act
from medray.systems.tracking.stopping import Rules, stop_of

FloatArray = NDArray[np.float64]

AT_ONCE = 256
_MAX_PIXELS = 1 << 28
"""Of the maps of paths, one for every tracker at once."""
_LOOK_EVERY = 16
"""Steps between two looks at whether the rules stop a tracker."""


def from_first_ends(scenes: Sequence[Scene]) -> list[Beginning]:
    """Each scene's centreline from its first point to its last."""
    found = []
    for index, scene in enumerate(scenes):
        start, heading, end = ends_of(scene)
        found.append(Beginning(index, start, heading, end))
    return found


def for_tracing(options: TrackingOptions, *, max_steps: int | None = None) -> TrackingOptions:
    """The rules of training without what is there to train: errors of the start, early ends."""
    steps = options.max_steps if max_steps is None else max_steps
    return replace(options, lost_px=0.0, start_noise_px=0.0, heading_noise_deg=0.0, max_steps=steps)


def follow(
    problem: PolicyProblem,
    actor: nn.Module,
    scenes: Scenes,
    beginnings: Sequence[Beginning],
    options: TrackingOptions,
    rules: Rules | None = None,
) -> list[Trace]:
    """Trace from every beginning with the policy's mean.

    Args:
        problem: the actor's.
        actor: in evaluation mode, on any device.
        scenes: their centrelines are not looked at.
        beginnings: where to start; an end that is nan is not known, and nothing stops there.
        options: of training; see `for_tracing`.
        rules: what ends a trace besides its end and the number of steps; without them nothing does, as in the paper.

    Returns:
        traces in the order of the beginnings. The entropy at a point is that of the step that leaves it, in nats on the
        unit box, the sum over both axes; the last point has none.
    """
    if not beginnings:
        return []
    options = for_tracing(options)
    plain = _WithoutTruth(scenes)
    size = max(scenes[index].image.size for index in {b.scene for b in beginnings})
    at_once = max(1, min(AT_ONCE, _MAX_PIXELS // size))
    found: list[Trace] = []
    for first in range(0, len(beginnings), at_once):
        part = beginnings[first : first + at_once]
        found += _Chunk(problem, actor, plain, part, options, rules).run()
    return found


@dataclass(frozen=True)
class _WithoutTruth:
    """Scenes without their centrelines, whose maps would cost more than the images."""

    scenes: Scenes

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int, /) -> Scene:
        return replace(self.scenes[index], centreline=None)


class _Chunk:
    """Trackers that run side by side until each has stopped."""

    def __init__(
        self,
        problem: PolicyProblem,
        actor: nn.Module,
        scenes: Scenes,
        beginnings: Sequence[Beginning],
        options: TrackingOptions,
        rules: Rules | None,
    ) -> None:
        self.problem, self.actor, self.options, self.rules = problem, actor, options, rules
        count = len(beginnings)
        self.trackers = Trackers(scenes, count, options)
        starts, ends = np.stack([b.start for b in beginnings]), np.stack([b.end for b in beginnings])
        # Where a loop starts beside its own end, reaching that end says nothing.
        ends = np.where(np.linalg.norm(starts - ends, axis=1, keepdims=True) > 2 * options.reach_px, ends, np.nan)
        headings = np.stack([b.heading for b in beginnings])
        self.trackers.place(np.arange(count), [b.scene for b in beginnings], starts, headings, ends)
        self.sizes = [self.trackers.scene(i).image.shape[::-1] for i in range(count)]
        self.points = np.full((options.max_steps + 1, count, 2), np.nan)
        self.entropy = np.full((options.max_steps + 1, count), np.nan)
        self.points[0] = self.trackers.position
        self.stopped: dict[int, Trace] = {}

    def run(self) -> list[Trace]:
        """All to their ends."""
        running = np.arange(len(self.trackers))
        for step in range(1, self.options.max_steps + 1):
            views = {name: value[running] for name, value in self.trackers.observe().items()}
            actions, self.entropy[step - 1, running] = act(self.problem, self.actor, views)
            outcome = self.trackers.move(running, actions)
            self.points[step, running] = self.trackers.position[running]
            if self.rules is not None and step % _LOOK_EVERY == 0:
                self._look(running, step)
            for tracker in running[outcome.terminated]:
                self._end(tracker, step, "end reached")
            for tracker in running[outcome.truncated]:
                self._end(tracker, step, "steps")
            running = np.array([i for i in running if i not in self.stopped], np.intp)
            if not len(running):
                break
        return [self.stopped[i] for i in range(len(self.trackers))]

    def _look(self, running: NDArray[np.intp], step: int) -> None:
        """Whether the rules have stopped a tracker since the last look."""
        assert self.rules is not None
        for tracker in running:
            stop = self._stop(tracker, step)
            if stop is not None:
                self.stopped[int(tracker)] = stop

    def _end(self, tracker: int, step: int, why: str) -> None:
        if int(tracker) in self.stopped:
            return
        by_rule = self._stop(tracker, step) if self.rules is not None else None
        self.stopped[int(tracker)] = by_rule or self._trace(tracker, step, why)

    def _stop(self, tracker: int, step: int) -> Trace | None:
        assert self.rules is not None
        path, entropy = self.points[: step + 1, tracker], self.entropy[:step, tracker]
        stop = stop_of(path, entropy, self.sizes[tracker], self.rules, since=max(0, step - _LOOK_EVERY))
        return self._trace(tracker, stop.last, stop.why) if stop else None

    def _trace(self, tracker: int, last: int, why: str) -> Trace:
        entropy = self.entropy[: last + 1, tracker].copy()
        entropy[-1] = np.nan
        return Trace(self.points[: last + 1, tracker].copy(), entropy, why)
