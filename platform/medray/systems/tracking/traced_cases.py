"""Every branch of every case traced, by a policy or a peer, from its first point in its first direction."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.axon.centrelines import Branch
from envs.axon.episodes import Beginning
from envs.axon.scene import Scene
from envs.axon.traces import Trace
from medray.classical.minimal_path import minimal_paths
from medray.classical.ridge_following import follow_ridges
from medray.data.case import Case
from medray.data.traces import centrelines_of
from medray.metrics.tracing import TraceScore, covered, distance_to_line, score_trace, until_end, until_length
from medray.system import Trained
from medray.systems.tracking.axon_tracker import AxonProblem, AxonTrackerConfig
from medray.systems.tracking.policies import load_actor
from medray.systems.tracking.scenes import Preparation
from medray.systems.tracking.stopping import Rules, stop_of
from medray.systems.tracking.tracing import follow

FloatArray = NDArray[np.float64]
_GROUP = 32
"""Cases that are traced side by side."""
_SLACK_PX = 3.0
"""A trace may be this much longer than its branch."""


@dataclass(frozen=True)
class Job:
    """Cases to trace with one model.

    Attributes:
        cases: with images and centrelines.
        weights: of the actor; None for peers.
        entropy_limit: of the model's own stop rule, nats.
    """

    cases: Sequence[Case]
    weights: Path | None
    entropy_limit: float = float("inf")


def jobs_of(trained: Trained, cases: Sequence[Case]) -> list[Job]:
    """Cases in groups, each with a model that has not seen them where a cross-validation has left one."""
    scored_by: Mapping[str, str] = trained.about.get("scored_by", {})
    limits = trained.about.get("fold_entropy_limits", {})
    jobs = []
    for name in dict.fromkeys(scored_by.get(case.id, "") for case in cases):
        weights = trained.files[name] if name else trained.weights
        limit = limits[name] if name else trained.about.get("entropy_limit")
        own = [case for case in cases if scored_by.get(case.id, "") == name]
        for first in range(0, len(own), _GROUP):
            jobs.append(Job(own[first : first + _GROUP], weights, math.inf if limit is None else limit))
    return jobs


@dataclass(frozen=True)
class TracedCase:
    """The branches of a case and what became of them.

    Attributes:
        case: its id.
        truths: lines (m, 2) to follow.
        traces: one for each, as the paper ends them: at the branch's end or after so many steps.
        ruled: the same, ended by the rules of a prediction and, to be judged, where they are as long as the branch.
        seconds: what tracing took, by branch.
    """

    case: str
    truths: Sequence[FloatArray]
    traces: Sequence[Trace]
    ruled: Sequence[Trace]
    seconds: float

    def scores(self, traces: Sequence[Trace]) -> list[TraceScore]:
        """Of each branch."""
        return [score_trace(one.points, line) for one, line in zip(traces, self.truths, strict=True)]

    def union(self) -> tuple[int, int]:
        """Keypoints of all branches that any trace covers, and how many there are (the paper's count)."""
        keypoints = np.concatenate(list(self.truths))
        return int(covered(keypoints, [one.points for one in self.traces]).sum()), len(keypoints)

    def entropy(self) -> tuple[FloatArray, FloatArray]:
        """Entropy (n,) and distance (n,) of all traced points."""
        apart = [distance_to_line(one.points, line) for one, line in zip(self.traces, self.truths, strict=True)]
        return np.concatenate([one.entropy for one in self.traces]), np.concatenate(apart)


def trace_cases(config: AxonTrackerConfig, job: Job) -> list[TracedCase]:
    """Trace every branch of some cases from its first point, in its first direction."""
    preparation = Preparation(config.polarity, config.intensity)
    scenes = [Scene(preparation.image(case), name=case.id) for case in job.cases]
    branches = [centrelines_of(case).branches for case in job.cases]
    started = time.perf_counter()
    if config.method == "policy":
        traces = _by_policy(config, job, scenes, branches)
    else:
        traces = [_by_peer(config, scene, lines) for scene, lines in zip(scenes, branches, strict=True)]
    seconds = (time.perf_counter() - started) / sum(map(len, branches))
    rules = Rules(entropy=job.entropy_limit) if config.method == "policy" else None  # peers stop by their own
    found = []
    for case, scene, lines, own in zip(job.cases, scenes, branches, traces, strict=True):
        ended = [_ended(trace, line) for trace, line in zip(own, lines, strict=True)]
        ruled = [_ruled(trace, line, scene, rules) for trace, line in zip(ended, lines, strict=True)]
        found.append(TracedCase(case.id, [line.points for line in lines], ended, ruled, seconds))
    return found


def _by_policy(
    config: AxonTrackerConfig, job: Job, scenes: Sequence[Scene], branches: Sequence[Sequence[Branch]]
) -> list[list[Trace]]:
    assert job.weights is not None
    problem = AxonProblem(config, scenes)
    beginnings = [
        Beginning(index, line.start, line.heading, line.end) for index, lines in enumerate(branches) for line in lines
    ]
    traces = iter(follow(problem, load_actor(problem, job.weights), scenes, beginnings, config.options))
    return [[next(traces) for _ in lines] for lines in branches]


def _by_peer(config: AxonTrackerConfig, scene: Scene, lines: Sequence[Branch]) -> list[Trace]:
    starts = np.stack([line.start for line in lines])
    if config.method == "ridge_following":
        return follow_ridges(scene.image, starts, np.stack([line.heading for line in lines]))
    paths = minimal_paths(scene.image, starts, np.stack([line.end for line in lines]))
    return [Trace(path, np.full(len(path), np.nan), "end reached") for path in paths]


def _ended(trace: Trace, line: Branch) -> Trace:
    """A trace without what it followed past the end of the branch."""
    points = until_end(trace.points, line.end)
    entropy = trace.entropy[: len(points)].copy()
    return Trace(points, entropy, trace.stopped if len(points) == len(trace.points) else "end reached")


def _ruled(trace: Trace, line: Branch, scene: Scene, rules: Rules | None) -> Trace:
    """A trace as a prediction ends it, judged no further than the branch is long: see `until_length`."""
    stop = stop_of(trace.points, trace.entropy[:-1], scene.image.shape[::-1], rules) if rules else None
    last = stop.last + 1 if stop else len(trace.points)
    points = until_length(trace.points[:last], line.length_px + _SLACK_PX)
    return Trace(points, trace.entropy[: len(points)], stop.why if stop else trace.stopped)
