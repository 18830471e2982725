"""How well polylines follow known centrelines: coverage, error, loss of track, entropy on and off track.

After Dai et al., MIDL 2019 (section 4.3 and its footnote 11). Points are (x, y) in pixels.

Coverage is the share of ground-truth keypoints with a traced point within 3 px; a trace is first densified to 0.5 px,
so that long steps cost nothing. Error is the distance of each traced point, as it was traced, to the nearest place on
the ground-truth polyline. A place before its start or past its end is measured to that end point: a tracer
that runs the wrong way is wrong. One that follows a real structure on past the end of the branch is not: `until_end`
cuts its trace where it came closest to the end. Periods of more than 5 consecutive points that are more than 11 px off
count as lost and are left out of the error; the raw error keeps them.

Sums and counts of branches and images are added before they are divided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from medray.metrics.statistics import ratio

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]

COVERED_PX = 3.0
LOST_PX, LOST_STEPS = 11.0, 5
DENSE_PX = 0.5
_PAIRS_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class TraceScore:
    """Counts of one or more traces; scores of several are added.

    Attributes:
        keypoints: of the ground truth.
        covered: keypoints with a traced point within 3 px.
        points: traced, as they were (not densified).
        lost: those in periods of lost track.
        error_sum: distances of the points that are not lost, px.
        error_squares: their squares, px^2.
        raw_error_sum: distances of all points, px.
        raw_error_squares: their squares, px^2.
    """

    keypoints: int = 0
    covered: int = 0
    points: int = 0
    lost: int = 0
    error_sum: float = 0.0
    error_squares: float = 0.0
    raw_error_sum: float = 0.0
    raw_error_squares: float = 0.0

    def __add__(self, other: TraceScore) -> TraceScore:
        return TraceScore(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def metrics(self) -> dict[str, float]:
        """coverage_pct, error_px and error_sd_px (without lost periods), raw_error_px, raw_error_sd_px, lost_pct."""
        kept = self.points - self.lost
        return {
            "coverage_pct": 100 * ratio(self.covered, self.keypoints),
            "error_px": ratio(self.error_sum, kept),
            "error_sd_px": _spread(self.error_sum, self.error_squares, kept),
            "raw_error_px": ratio(self.raw_error_sum, self.points),
            "raw_error_sd_px": _spread(self.raw_error_sum, self.raw_error_squares, self.points),
            "lost_pct": 100 * ratio(self.lost, self.points),
        }


def score_trace(trace: FloatArray, truth: FloatArray) -> TraceScore:
    """Score one trace against the branch it should follow.

    Args:
        trace: (n, 2), at least one point. Cut it with `until_end` first if the tracer did not know the end.
        truth: (m, 2), the branch's polyline; its points are the keypoints.
    """
    return score_union([trace], truth, [truth])


def score_traces(traces: Sequence[FloatArray], truths: Sequence[FloatArray]) -> TraceScore:
    """The sum of `score_trace` over pairs of a trace and its branch."""
    return sum((score_trace(trace, truth) for trace, truth in zip(traces, truths, strict=True)), TraceScore())


def score_union(traces: Sequence[FloatArray], keypoints: FloatArray, truths: Sequence[FloatArray]) -> TraceScore:
    """Score all traces of an image together, as the paper does: any trace may cover any keypoint.

    Args:
        traces: polylines (n, 2).
        keypoints: (k, 2) of all branches.
        truths: the branches' polylines; a traced point is measured to the nearest of them.
    """
    score = TraceScore(keypoints=len(keypoints), covered=int(covered(keypoints, traces).sum()))
    for trace in traces:
        distance = np.min([distance_to_line(trace, truth) for truth in truths], axis=0)
        lost = lost_track(distance)
        kept = distance[~lost]
        score += TraceScore(
            points=len(trace),
            lost=int(lost.sum()),
            error_sum=float(kept.sum()),
            error_squares=float((kept**2).sum()),
            raw_error_sum=float(distance.sum()),
            raw_error_squares=float((distance**2).sum()),
        )
    return score


def covered(keypoints: FloatArray, traces: Iterable[FloatArray], radius: float = COVERED_PX) -> Mask:
    """Which keypoints (k, 2) have a point of a densified trace within ``radius``, inclusive: (k,)."""
    dense = [densified(trace) for trace in traces if len(trace)]
    if not dense or not len(keypoints):
        return np.zeros(len(keypoints), dtype=bool)
    gap, _ = cKDTree(np.concatenate(dense)).query(keypoints, distance_upper_bound=radius + 1e-9)
    return np.asarray(np.isfinite(gap))


def densified(line: FloatArray, spacing: float = DENSE_PX) -> FloatArray:
    """A polyline (n, 2) with points put into its segments so that none is longer than ``spacing``."""
    if len(line) < 2:
        return line
    lengths = np.hypot(*np.diff(line, axis=0).T)
    pieces = np.maximum(np.ceil(lengths / spacing - 1e-9).astype(int), 1)
    places = np.repeat(np.arange(len(lengths)), pieces)
    within = np.arange(len(places)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    share = (within / pieces[places])[:, None]
    return np.concatenate([line[places] * (1 - share) + line[places + 1] * share, line[-1:]])


def distance_to_line(points: FloatArray, line: FloatArray) -> FloatArray:
    """Distance (n,) of points (n, 2) to the nearest place on a polyline (m, 2), its segments and ends included."""
    if len(line) == 1:
        return np.asarray(np.hypot(*(points - line[0]).T))
    rows = max(_PAIRS_AT_ONCE // len(line), 1)
    parts = [_to_segments(points[row : row + rows], line)[1].min(axis=1) for row in range(0, len(points), rows)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _to_segments(points: FloatArray, line: FloatArray) -> tuple[FloatArray, FloatArray]:
    """For points (n, 2) and each segment of a line (m, 2): the nearest place along it, 0 to 1, and the distance."""
    starts, steps = line[:-1], np.diff(line, axis=0)
    away_x = points[:, :1] - starts[:, 0]
    away_y = points[:, 1:] - starts[:, 1]
    squares = np.maximum((steps**2).sum(axis=1), 1e-24)
    share = np.clip((away_x * steps[:, 0] + away_y * steps[:, 1]) / squares, 0, 1)
    return share, np.hypot(away_x - share * steps[:, 0], away_y - share * steps[:, 1])


def lost_track(distance: FloatArray, threshold: float = LOST_PX, steps: int = LOST_STEPS) -> Mask:
    """Which points of a trace (n,) are in a period of more than ``steps`` points farther off than ``threshold``."""
    off = np.concatenate([[False], distance > threshold, [False]])
    changes = np.flatnonzero(off[1:] != off[:-1])
    lost = np.zeros(len(distance), dtype=bool)
    for begin, end in zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True):
        lost[begin:end] = end - begin > steps
    return lost


def until_end(trace: FloatArray, end: FloatArray, radius: float = COVERED_PX) -> FloatArray:
    """A trace up to where it came closest to the branch's end, if it came within ``radius`` of it.

    The first time it does counts, to the closest place of that visit: a point on one of the trace's segments, which
    becomes the last. So a tracer is not blamed for following a real structure further than it was drawn. Where a branch
    starts beside its own end, the trace has to leave that neighborhood first.

    Args:
        trace: (n, 2).
        end: (2,).
        radius: px.

    Returns:
        (k, 2), k <= n. What belongs to its points are the first k values of what belonged to the trace's.
    """
    if len(trace) < 2:
        return trace
    share, distance = (values[0] for values in _to_segments(end[None], trace))
    near = distance <= radius
    if np.hypot(*(trace[0] - end)) <= radius:
        near &= np.cumsum(~near) > 0
    if not near.any():
        return trace
    first = int(near.argmax())
    visit = int(np.argmin([*near[first:], False]))
    closest = first + int(distance[first : first + visit].argmin())
    last = trace[closest] + share[closest] * (trace[closest + 1] - trace[closest])
    head = trace[: closest + 1] if share[closest] > 0 else trace[:closest]
    return np.concatenate([head, last[None]])


def until_length(trace: FloatArray, length_px: float) -> FloatArray:
    """The points of a trace (n, 2) whose arc length from its start is at most ``length_px``; the start always.

    A tracer that missed the end of a branch may go on forever, and its error then says when it was stopped rather than
    how it traced. Comparisons here judge a trace only as far as its branch is long.
    """
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(trace, axis=0).T))])
    return trace[along <= max(length_px, 0.0)]


def _spread(total: float, squares: float, count: int) -> float:
    """Standard deviation (population) from sums; nan where nothing was counted."""
    if not count:
        return float("nan")
    return float(np.sqrt(max(squares / count - (total / count) ** 2, 0.0)))
