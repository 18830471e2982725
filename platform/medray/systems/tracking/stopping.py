"""When to stop following: rules that need no ground truth, applied to a path that has been walked.

The paper's tracker walks 200 steps or to the known end. On new images nobody knows the end, so a prediction stops where
the policy stays unsure, where it comes back onto its own path, and where it walks along the border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from envs.axon.polyline import arc_lengths
from envs.axon.traces import Trace
from medray.metrics.tracing import COVERED_PX, DENSE_PX, densified, distance_to_line

FloatArray = NDArray[np.float64]

IN_A_ROW = 3
"""Steps in a row that a rule must hold for: one step at a crossing or a gap stops nothing."""
_OWN_PATH_PX = 1.5
_APART_PX = 10.0
"""Path length that must lie between two points before their being close means a return."""
_BORDER_PX = 1.0
_KEPT_PCT = 98.0


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What ends a trace.

    Attributes:
        entropy: a trace ends before it stays above this, nats; infinity never ends it.
    """

    entropy: float = float("inf")


@dataclass(frozen=True)
class Stop:
    """Where and why a trace ends; ``last`` is the index of the last point that stays."""

    last: int
    why: str


def stop_of(
    points: FloatArray, entropy: FloatArray, size: Sequence[int], rules: Rules, *, since: int = 0
) -> Stop | None:
    """The first stop along a path, None if nothing stops it.

    Args:
        points: (n, 2) positions, x and y, px.
        entropy: (n - 1,) of the step that leaves each point but the last, nats.
        size: width and height of the image, px.
        rules: what ends it.
        since: points before this one are known to stop nothing.
    """
    start = max(0, since - IN_A_ROW)
    upper = np.asarray(size) - 1
    late = points[start:]
    at_border = np.asarray(((late <= _BORDER_PX) | (late >= upper - _BORDER_PX)).any(axis=1))
    found = {
        "entropy": _first_run(np.asarray(entropy[start:] > rules.entropy)),
        "own path": _first_run(_returned(points, start)),
        "left the image": _first_run(at_border),
    }
    stops = [Stop(start + first, why) for why, first in found.items() if first is not None]
    stop = min(stops, key=lambda one: one.last, default=None)
    return Stop(_turn_before(points, stop.last), stop.why) if stop and stop.why == "own path" else stop


def entropy_limit(traces: Sequence[Trace], truths: Sequence[FloatArray]) -> float:
    """The entropy that a prediction may not stay above: 98 % of the traces that stay on their track never do.

    Args:
        traces: on images with ground truth.
        truths: the line (m, 2) that each should follow.

    Returns:
        nats; infinity where no trace stayed on its track, so nothing is known.
    """
    highest = []
    for trace, truth in zip(traces, truths, strict=True):
        known = trace.entropy[np.isfinite(trace.entropy)]
        if len(known) >= IN_A_ROW and (distance_to_line(trace.points, truth) < COVERED_PX).all():
            highest.append(np.lib.stride_tricks.sliding_window_view(known, IN_A_ROW).min(axis=1).max())
    return float(np.percentile(highest, _KEPT_PCT)) if highest else float("inf")


def _first_run(holds: NDArray[np.bool_]) -> int | None:
    """Where the first `IN_A_ROW` in a row begin."""
    if len(holds) < IN_A_ROW:
        return None
    runs = np.lib.stride_tricks.sliding_window_view(holds, IN_A_ROW).all(axis=1)
    return int(runs.argmax()) if runs.any() else None


def _returned(points: FloatArray, start: int) -> NDArray[np.bool_]:
    """Which points from ``start`` on lie on the path that led to them, more than `_APART_PX` of it ago."""
    arc = arc_lengths(points)
    dense = densified(points)
    ago = np.interp(np.arange(len(dense)), _places(points), arc)
    near = cdist(points[start:], dense) <= _OWN_PATH_PX
    return np.asarray((near & (arc[start:, None] - ago > _APART_PX)).any(axis=1))


def _places(points: FloatArray) -> NDArray[np.intp]:
    """Where the points of a path are among those of `densified`."""
    lengths = np.hypot(*np.diff(points, axis=0).T)
    pieces = np.maximum(np.ceil(lengths / DENSE_PX - 1e-9).astype(int), 1)
    return np.concatenate([[0], np.cumsum(pieces)])


def _turn_before(points: FloatArray, last: int) -> int:
    """Where a path that came back turned round by more than 90 degrees, if it did so in its last `_APART_PX`."""
    steps = np.diff(points[: last + 1], axis=0)
    turns = np.flatnonzero((steps[1:] * steps[:-1]).sum(axis=1) < 0) + 1
    arc = arc_lengths(points[: last + 1])
    recent = turns[arc[turns] >= arc[-1] - _APART_PX]
    return int(recent[-1]) if len(recent) else last
