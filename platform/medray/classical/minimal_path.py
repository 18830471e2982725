"""Tracing between two given points by the cheapest path over an image's ridges.

The peer of trackers that are told where a structure starts and ends, as Vaa3D's default tracer is (Peng et al., Nature
Biotechnology 2010). A pixel costs 1 / (0.05 + v), v its ridge strength (Sato et al., 1998) on a scale that saturates: a
faint structure must cost little more than a strong one, or paths take detours along the strong one. Since the top of a
saturated ridge is flat, paths are then smoothed and drawn to the middle of the ridge. Settings were chosen on the
odd-numbered DRIVE photographs of tests/benchmarks/bench_tracing.py.

The graph search is `skimage.graph.MCP_Geometric`. Points are (x, y) in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.graph import MCP_Geometric

from envs.axon.ridges import find_ridges
from medray.classical.ridge_following import to_middle

FloatArray = NDArray[np.float64]
FloatImage = NDArray[np.float32]

PATH_SIGMAS_PX, MIDDLE_SIGMAS_PX = (1.0, 1.5), (1.0, 2.0, 3.0)
_SATURATION = 0.085  # ridge strength of an image from 0 to 1 that counts as certain
_POWER, _BASE = 0.7, 0.05
_SMOOTH_PX, _REACH_PX = 2.0, 2.0
_DRAWS = 2  # the second makes up for what smoothing cut off bends
_MARGIN_PX = 40  # around the two points, and half their distance more


def path_cost(image: NDArray[Any]) -> FloatImage:
    """Cost of crossing each pixel of an image (H, W) from 0 to 1 with bright structures; see the module's text."""
    strength = find_ridges(image, PATH_SIGMAS_PX).strength
    return np.asarray(1 / (_BASE + np.minimum(strength / _SATURATION, 1) ** _POWER), dtype=np.float32)


def minimal_paths(image: NDArray[Any], starts: FloatArray, ends: FloatArray) -> list[FloatArray]:
    """The cheapest path between each start and its end. The cost is computed once for all of them.

    Args:
        image: (H, W), 0 to 1, structures bright (`envs.axon.preparation.prepare`).
        starts: (b, 2).
        ends: (b, 2).

    Returns:
        For each pair a polyline (n, 2) with points about 1 px apart, which begins and ends at the given points.

    Raises:
        ValueError: not as many ends as starts, or a point that is not in the image.
    """
    if len(starts) != len(ends):
        raise ValueError(f"every path needs a start and an end, got {len(starts)} starts and {len(ends)} ends")
    first, last = _pixels(starts, image.shape), _pixels(ends, image.shape)
    cost = path_cost(image)
    middle = find_ridges(image, MIDDLE_SIGMAS_PX).strength
    paths = []
    for start, end, begin, finish in zip(first, last, starts, ends, strict=True):
        paths.append(_refined(_cheapest(cost, start, end), middle, begin, finish))
    return paths


def _cheapest(cost: FloatImage, start: tuple[int, int], end: tuple[int, int]) -> FloatArray:
    """The pixels (n, 2) of a path, as x and y. The search is kept to where a structure between the two may run."""
    ends = np.array([start, end])
    margin = _MARGIN_PX + int(np.hypot(*(ends[1] - ends[0])) / 2)
    low = np.maximum(ends.min(axis=0) - margin, 0)
    high = ends.max(axis=0) + margin + 1
    search = MCP_Geometric(cost[low[0] : high[0], low[1] : high[1]])
    first, last = (tuple((one - low).tolist()) for one in ends)
    search.find_costs([first], [last])
    return np.asarray(np.array(search.traceback(last), dtype=np.float64) + low)[:, ::-1]


def _refined(path: FloatArray, strength: FloatImage, start: FloatArray, end: FloatArray) -> FloatArray:
    """A path of pixels, smoothed and drawn to the middle of the ridge, between the given points."""
    if len(path) < 3:
        return np.stack([start, end])
    line = ndimage.gaussian_filter1d(path, _SMOOTH_PX, axis=0, mode="nearest")
    for _ in range(_DRAWS):
        along = np.gradient(line, axis=0)
        along /= np.maximum(np.hypot(*along.T), 1e-9)[:, None]
        shift = ndimage.gaussian_filter1d(to_middle(strength, line, along, _REACH_PX), _SMOOTH_PX, mode="nearest")
        line = line + shift[:, None] * np.stack([-along[:, 1], along[:, 0]], axis=1)
    line[0], line[-1] = start, end
    return line


def _pixels(points: FloatArray, shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Row and column of the pixel that each point lies in."""
    cells = np.rint(points[:, ::-1]).astype(int)
    for number, (row, column) in enumerate(cells.tolist()):
        if not (0 <= row < shape[0] and 0 <= column < shape[1]):
            x, y = points[number]
            raise ValueError(
                f"point {number + 1} at x={x:g}, y={y:g} px is outside the image of {shape[1]} x {shape[0]} px"
            )
        yield row, column
