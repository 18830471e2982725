"""Tracing from a start point and a direction by following a ridge, step by step, with prediction and correction.

The peer of trackers that know only where to begin, in the line of Aylward & Bullitt, IEEE TMI 2002. The image's Hessian
says at each pixel how strong a ridge is and which way it runs. A step looks ahead along a fan of rays: a ray scores by
the strength of ridges that run its own way, less what its turn costs. After the predicted step a correction draws the
point to the middle of the ridge across its way, below the size of a pixel. All traces of an image advance together.

Points are (x, y) in pixels. The defaults were chosen on the odd-numbered of the 16 DRIVE photographs that
tests/benchmarks/bench_tracing.py reads; it reports the even-numbered ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from envs.axon.ridges import Ridges, find_ridges
from envs.axon.traces import Trace

FloatArray = NDArray[np.float64]

_SATURATION = 0.12  # ridge strength of an image from 0 to 1 that counts as certain
_SHARPNESS = 0.01  # rays whose scores differ by less than this share the turn
_PROFILE_STEP_PX = 0.5


@dataclass(frozen=True, kw_only=True)
class FollowOptions:
    """How a ridge is followed.

    Attributes:
        sigmas_px: scales of the ridges.
        step_px: length of a step.
        fan_deg: largest turn per step to either side.
        num_rays: of the fan.
        look_px: how far a ray looks ahead, in whole pixels.
        turn_cost: taken from the score (0 to 1) of a ray that turns by 60 degrees; it grows with the turn's square.
        reach_px: how far to either side the middle of the ridge is looked for.
        correction: share of the way to that middle that is gone in one step.
        min_score: below this the ridge counts as lost.
        max_gap: steps a lost ridge is awaited; they are taken back when it does not return.
        max_length_px: where a trace ends at the latest.
    """

    sigmas_px: tuple[float, ...] = (1.0, 1.5)
    step_px: float = 3.0
    fan_deg: float = 45.0
    num_rays: int = 25
    look_px: int = 7
    turn_cost: float = 1.0
    reach_px: float = 2.5
    correction: float = 0.7
    min_score: float = 0.2
    max_gap: int = 4
    max_length_px: float = 400.0

    def __post_init__(self) -> None:
        if not 0 < self.step_px <= self.max_length_px:
            raise ValueError(f"step_px must be above 0 and at most max_length_px, got {self.step_px}; try 3")
        if self.num_rays < 3 or self.look_px < 1 or self.max_gap < 0:
            raise ValueError("num_rays is at least 3, look_px at least 1 and max_gap at least 0")


_DEFAULTS = FollowOptions()


def follow_ridges(
    image: NDArray[Any], starts: FloatArray, headings: FloatArray, options: FollowOptions = _DEFAULTS
) -> list[Trace]:
    """Follow the ridge that sets out from each start in its direction.

    Args:
        image: (H, W), 0 to 1, structures bright (`envs.axon.preparation.prepare`).
        starts: (b, 2).
        headings: (b, 2) unit vectors.
        options: see there.

    Returns:
        A trace for each start, without entropy. It stopped by ``ridge lost``, ``left the image`` or ``length``.

    Raises:
        ValueError: a start that is not in the image, or a heading that is not a unit vector.
    """
    _check(image.shape, starts, headings)
    ridges = find_ridges(image, options.sigmas_px)
    fan = _Fan(ridges, options)
    num_steps = int(options.max_length_px / options.step_px)
    points, ways = starts.astype(np.float64), headings.astype(np.float64)
    path = np.full((num_steps + 1, *points.shape), np.nan)
    path[0] = points
    lengths = np.full(len(points), num_steps + 1)
    stopped = np.full(len(points), "length", dtype=object)
    gaps = np.zeros(len(points), dtype=int)
    moving = np.arange(len(points))
    for step in range(1, num_steps + 1):
        if len(moving) == 0:
            break
        turned, score = fan.turn(points[moving], ways[moving])
        ahead = points[moving] + options.step_px * turned
        shift = options.correction * to_middle(ridges.strength, ahead, turned, options.reach_px)
        ahead += shift[:, None] * _across(turned)
        gaps[moving] = np.where(score < options.min_score, gaps[moving] + 1, 0)
        lost = gaps[moving] > options.max_gap
        left = ((ahead < -0.5) | (ahead > np.array(image.shape[::-1]) - 0.5)).any(axis=1)
        stopped[moving[lost]], stopped[moving[left]] = "ridge lost", "left the image"
        lengths[moving[lost]] = np.maximum(step - options.max_gap, 1)  # the steps into the gap are taken back
        lengths[moving[left]] = step
        ways[moving] = _unit(ahead - points[moving])
        points[moving], path[step, moving] = ahead, ahead
        moving = moving[~(lost | left)]
    return [
        Trace(path[:length, number].copy(), np.full(length, np.nan), str(stopped[number]))
        for number, length in enumerate(lengths.tolist())
    ]


def to_middle(strength: NDArray[Any], points: FloatArray, ways: FloatArray, reach_px: float) -> FloatArray:
    """How far (n,) the middle of a ridge is from each point, across the way it runs there, in px.

    The centroid of the fourth power of the ridge's strength along a profile of 2 ``reach_px``, weighted towards its
    middle so that a stronger neighbor does not draw.

    Args:
        strength: (H, W).
        points: (n, 2).
        ways: (n, 2) unit vectors; the distance counts along (-y, x) of them.
        reach_px: to either side.
    """
    offsets = np.arange(-reach_px, reach_px + _PROFILE_STEP_PX / 2, _PROFILE_STEP_PX)
    places = points[:, None] + offsets[:, None] * _across(ways)[:, None]
    profile = ndimage.map_coordinates(strength, [places[..., 1], places[..., 0]], order=1, mode="constant")
    weights = profile.astype(np.float64) ** 4 * np.exp(-((offsets / reach_px) ** 2))
    return np.asarray((weights * offsets).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-12))


class _Fan:
    """Rays ahead of a point and what they score."""

    def __init__(self, ridges: Ridges, options: FollowOptions) -> None:
        self.margin = options.look_px + 2
        certain = np.minimum(ridges.strength / _SATURATION, 1)
        along_x, along_y = ridges.direction
        # strength times the outer product of the direction: its sign, which means nothing, is gone
        tensor = np.stack([certain * along_x**2, 2 * certain * along_x * along_y, certain * along_y**2], axis=-1)
        self.tensor = np.pad(tensor, ((self.margin,) * 2, (self.margin,) * 2, (0, 0)))
        self.turns = np.radians(np.linspace(-options.fan_deg, options.fan_deg, options.num_rays))
        self.cost = options.turn_cost * (self.turns / np.radians(60)) ** 2
        self.ahead = np.arange(1, options.look_px + 1)

    def turn(self, points: FloatArray, ways: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The way to go on from each point (n, 2), a unit vector, and the best ray's score (n,)."""
        rays = _turned(ways[:, None], self.turns)  # (n, rays, 2)
        places = points[:, None, None] + self.ahead[:, None] * rays[:, :, None]
        cells = np.rint(places).astype(int) + self.margin
        tensor = self.tensor[cells[..., 1], cells[..., 0]].mean(axis=2)
        x, y = rays[..., 0], rays[..., 1]
        score = tensor[..., 0] * x**2 + tensor[..., 1] * x * y + tensor[..., 2] * y**2 - self.cost
        best = score.max(axis=1)
        share = np.exp((score - best[:, None]) / _SHARPNESS)
        turn = (share * self.turns).sum(axis=1) / share.sum(axis=1)
        return _turned(ways, turn), best


def _turned(ways: FloatArray, angle: FloatArray) -> FloatArray:
    """Vectors (..., 2) turned by angles that fit their leading axes, from x towards y."""
    cosine, sine = np.cos(angle), np.sin(angle)
    x, y = ways[..., 0], ways[..., 1]
    return np.stack([x * cosine - y * sine, x * sine + y * cosine], axis=-1)


def _across(ways: FloatArray) -> FloatArray:
    return np.stack([-ways[:, 1], ways[:, 0]], axis=1)


def _unit(vectors: FloatArray) -> FloatArray:
    return np.asarray(vectors / np.maximum(np.hypot(*vectors.T), 1e-9)[:, None])


def _check(shape: Sequence[int], starts: FloatArray, headings: FloatArray) -> None:
    outside = ((starts < -0.5) | (starts > np.array([shape[1], shape[0]]) - 0.5)).any(axis=1)
    if outside.any():
        x, y = starts[outside.argmax()]
        raise ValueError(
            f"start point {int(outside.argmax()) + 1} at x={x:g}, y={y:g} px is outside the image of "
            f"{shape[1]} x {shape[0]} px"
        )
    if starts.shape != headings.shape or not np.allclose(np.hypot(*headings.T), 1, atol=1e-3):
        raise ValueError("every start needs a heading, a vector (x, y) of length 1")
