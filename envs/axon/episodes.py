"""How an episode begins: which scene, which end, which way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.axon.options import TrackingOptions
from envs.axon.polyline import heading_of
from envs.axon.scene import Scene, Scenes


@dataclass(frozen=True)
class Beginning:
    """Start point, unit heading and far end of an episode, (2,) each, px; heading and end nan where unknown."""

    scene: int
    start: NDArray[np.float64]
    heading: NDArray[np.float64]
    end: NDArray[np.float64]


def begin(rng: np.random.Generator, scenes: Scenes, options: TrackingOptions, scene: int | None = None) -> Beginning:
    """Draw an episode: a scene (unless it is given), an end of its centreline, errors of the start and heading.

    Raises:
        ValueError: the scene has no centreline, so nothing says where to start.
    """
    index = int(rng.integers(len(scenes))) if scene is None else scene
    start, heading, end = ends_of(scenes[index], backwards=bool(options.either_end and rng.integers(2)))
    if options.start_noise_px:
        size = np.array(scenes[index].image.shape[::-1])
        start = np.clip(start + options.start_noise_px * rng.standard_normal(2), 0, size - 1)
    if options.heading_noise_deg:
        turn = np.deg2rad(options.heading_noise_deg) * rng.standard_normal()
        cos, sin = np.cos(turn), np.sin(turn)
        heading = np.array([[cos, -sin], [sin, cos]]) @ heading
    return Beginning(index, start, heading, end)


def ends_of(
    scene: Scene, *, backwards: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Start, unit heading over the first 5 px, and far end of a scene's centreline.

    Raises:
        ValueError: it has none.
    """
    if scene.centreline is None:
        raise ValueError(f"{scene.name or 'the scene'} has no centreline: give a start point and a heading")
    line = scene.centreline[::-1] if backwards else scene.centreline
    return line[0].copy(), heading_of(line), line[-1].copy()
