"""Tracing by cheapest paths over an image's ridges: between two given points, or as far as a given length.

The peers of trackers that are told where a structure starts and ends (the default tracer of Vaa3D, Peng et al., Nature
Biotechnology 2010) or where it starts. A pixel costs 1 / (0.05 + v), v its ridge strength (Sato et al., 1998) on a
scale that saturates: a faint structure must cost little more than a strong one, or paths take detours along the strong
one. Since the top of a saturated ridge is flat, paths are then smoothed and drawn to the middle of the ridge.

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
_BEHIND_PX = 8.0


def path_cost(image: NDArray[Any]) -> FloatImage:
    """Cost of crossing each pixel of an image (H, W) from 0 to 1 with bright structures; see the module's text."""
    strength = find_ridges(image, PATH_SIGMAS_PX).strength
    return np.asarray(1 / (_BASE + np.minimum(strength / _SATURATION, 1) ** _POWER), dtype=np.float32)


def minimal_paths(image: NDArray[Any], starts: FloatArray, ends: FloatArray) -> list[FloatArray]:
    """The cheapest path between each start and its end. The cost is computed once for all of them.

    Args:
        image: (H, W), 0 to 1, structures bright (`envs.axon.intensity.prepare`).
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
    search = MCP_Geometric(path_cost(image))
    middle = find_ridges(image, MIDDLE_SIGMAS_PX).strength
    paths = []
    for start, end, begin, finish in zip(first, last, starts, ends, strict=True):
        search.find_costs([start], [end])
        path = np.array(search.traceback(end), dtype=np.float64)[:, ::-1]
        paths.append(_refined(path, middle, begin, finish))
    return paths


def geodesic_fronts(
    image: NDArray[Any], starts: FloatArray, headings: FloatArray, lengths_px: Sequence[float]
) -> list[FloatArray]:
    """From each start, the cheapest of all paths of a given length that set out in a given direction.

    The front is where paths first reach the length; the path to its cheapest point is returned. The half disc of 8 px
    behind the start is closed.

    Args:
        image: (H, W), 0 to 1, structures bright.
        starts: (b, 2).
        headings: (b, 2) unit vectors.
        lengths_px: (b,) of the paths.

    Returns:
        For each start a polyline (n, 2) with points about 1 px apart; a single point where there is no way out.

    Raises:
        ValueError: a start that is not in the image.
    """
    cost = path_cost(image)
    middle = find_ridges(image, MIDDLE_SIGMAS_PX).strength
    paths = []
    for start, pixel, heading, length in zip(starts, _pixels(starts, image.shape), headings, lengths_px, strict=True):
        path = _front(cost, pixel, heading, float(length))
        paths.append(_refined(path, middle, start, path[-1]))
    return paths


def _front(cost: FloatImage, start: tuple[int, int], heading: FloatArray, length_px: float) -> FloatArray:
    """The cheapest path (n, 2) of this length, in x and y of pixel centers."""
    reach = int(length_px) + 2
    low = np.maximum(np.array(start) - reach, 0)
    window = cost[low[0] : start[0] + reach + 1, low[1] : start[1] + reach + 1].astype(np.float64)
    rows, columns = np.indices(window.shape)
    dy, dx = rows + low[0] - start[0], columns + low[1] - start[1]
    window[(dx * heading[0] + dy * heading[1] < 0) & (np.hypot(dx, dy) <= _BEHIND_PX)] = -1  # no way through
    search = MCP_Geometric(window)
    own = (start[0] - int(low[0]), start[1] - int(low[1]))
    totals, steps = search.find_costs([own])
    walked = _walked(np.asarray(steps), np.asarray(search.offsets, dtype=np.int64))
    totals = np.asarray(totals)
    front = np.where(walked >= length_px, totals, np.inf)
    if not np.isfinite(front).any():
        front = np.where(np.isfinite(totals), -walked, np.inf)  # the window's edge is nearer: as far as it goes
    goal = np.unravel_index(int(front.argmin()), front.shape)
    path = np.array(search.traceback(tuple(int(index) for index in goal)), dtype=np.float64)
    return (path + low)[:, ::-1]


def _walked(steps: NDArray[Any], offsets: NDArray[Any]) -> FloatArray:
    """Length of the path to each pixel, from the number of the step that led to it; pointer doubling."""
    height, width = steps.shape
    known = steps >= 0
    moves = np.where(known[..., None], offsets[np.where(known, steps, 0)], 0)
    place = np.arange(height * width) - (moves[..., 0] * width + moves[..., 1]).ravel()
    length = np.hypot(moves[..., 0], moves[..., 1]).ravel()
    while (further := length[place]).any():
        length = length + further
        place = place[place]
    return length.reshape(height, width)


def _refined(path: FloatArray, strength: FloatImage, start: FloatArray, end: FloatArray) -> FloatArray:
    """A path of pixels, smoothed and drawn to the middle of the ridge, between the given points."""
    if len(path) < 3:
        return np.stack([start, end])
    smooth = ndimage.gaussian_filter1d(path, _SMOOTH_PX, axis=0, mode="nearest")
    along = np.gradient(smooth, axis=0)
    along /= np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    shift = to_middle(strength, smooth, along, _REACH_PX)
    shift = ndimage.gaussian_filter1d(shift, _SMOOTH_PX, mode="nearest")
    drawn = smooth + shift[:, None] * np.stack([-along[:, 1], along[:, 0]], axis=1)
    drawn[0], drawn[-1] = start, end
    return drawn


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
