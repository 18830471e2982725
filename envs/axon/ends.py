"""Start points without a click: the ends of thin structures, found in an image, and the way into each structure.

Ridges are thresholded with hysteresis and thinned to one pixel; a pixel of that skeleton with a single neighbor is an
end, unless the skeleton forks within 10 px. Its heading points along the skeleton into the structure. Short pieces are
noise or gaps and do not count.

On 16 DRIVE photographs (intensity "local") it finds 94 ends per image. Of the 568 free ends of drawn branches, which
are where an annotator could see a fading vessel no longer, 25 % have one within 5 px and 41 % within 10 px, with a
heading within 45 degrees for 90 % of those; 43 % of all ends found lie on a drawn branch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold
from skimage.morphology import skeletonize

from envs.axon.ridges import find_ridges
from envs.axon.starts import Starts

Mask = NDArray[np.bool_]

SIGMA_PX = 2.0
MIN_STRENGTH = 0.16
MIN_LENGTH_PX = 30
_LOW = 0.5  # of the least strength: where a structure that is strong enough somewhere goes on
_SPUR_PX = 10  # an end that meets a fork sooner is the skeleton's own; also where the heading is taken
_RAYS = 32
_AROUND = np.ones((3, 3), dtype=bool)


def find_ends(image: NDArray[Any], *, min_strength: float = MIN_STRENGTH, min_length_px: int = MIN_LENGTH_PX) -> Starts:
    """Ends of the thin bright structures of an image.

    Args:
        image: (H, W), 0 to 1, structures bright (`envs.axon.preparation.prepare`).
        min_strength: of the ridge somewhere along a structure (`envs.axon.ridges`, at 2 px); half of it elsewhere.
            A line of Gaussian profile reaches 0.3 to 0.4 of its brightness.
        min_length_px: pixels of the connected skeleton that an end belongs to.

    Returns:
        Start points in order of falling ridge strength over the 10 px behind them, with headings into the structure;
        none where there is no structure.
    """
    strength = find_ridges(image, (SIGMA_PX,)).strength
    skeleton = _skeleton(strength, min_strength, min_length_px)
    paths = [_walk(skeleton, int(row), int(column)) for row, column in np.argwhere(_is_end(skeleton))]
    ends = [np.array(path) for path in paths if len(path) == _SPUR_PX]
    if not ends:
        return Starts(np.zeros((0, 2)), np.zeros((0, 2)))
    ends.sort(key=lambda path: -strength[tuple(path.T)].mean())
    steps = np.array([path[-1] - path[0] for path in ends], dtype=np.float64)[:, ::-1]
    return Starts(
        np.array([path[0][::-1] for path in ends], dtype=np.float64),
        steps / np.maximum(np.hypot(*steps.T), 1e-9)[:, None],
    )


def with_headings(image: NDArray[Any], starts: Starts) -> Starts:
    """Start points that all have a heading: where none was given, along the strongest ridge that sets out from there.

    Of 32 rays of 10 px around the point that with the largest mean ridge strength is taken. From a point amid a
    structure that is one of its two ways.

    Args:
        image: (H, W), 0 to 1, structures bright.
        starts: headings that are not nan are kept.
    """
    strength = find_ridges(image, (SIGMA_PX,)).strength
    angles = np.arange(_RAYS) * 2 * np.pi / _RAYS
    rays = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    places = starts.points[:, None, None] + np.arange(1, _SPUR_PX + 1)[:, None] * rays[:, None]  # (n, rays, px, 2)
    along = ndimage.map_coordinates(strength, [places[..., 1], places[..., 0]], order=1, mode="constant")
    strongest = rays[along.mean(axis=2).argmax(axis=1)]
    return Starts(starts.points, np.where(np.isnan(starts.headings), strongest, starts.headings))


def _skeleton(strength: NDArray[np.float32], min_strength: float, min_length_px: int) -> Mask:
    """One pixel wide lines of connected pieces of at least this many pixels."""
    lines = skeletonize(apply_hysteresis_threshold(strength, _LOW * min_strength, min_strength))
    pieces, _ = ndimage.label(lines, _AROUND)
    return np.asarray(lines & (np.bincount(pieces.ravel())[pieces] >= min_length_px))


def _is_end(skeleton: Mask) -> Mask:
    """Skeleton pixels with one neighbor."""
    around = ndimage.convolve(skeleton.astype(np.uint8), _AROUND.astype(np.uint8), mode="constant")
    return np.asarray(skeleton & (around == 2))  # itself and one more


def _walk(skeleton: Mask, row: int, column: int) -> list[tuple[int, int]]:
    """The first 10 pixels of a structure from its end on; fewer where it forks or ends before."""
    path = [(row, column)]
    while len(path) < _SPUR_PX:
        onward = [cell for cell in _neighbors(skeleton, path[-1]) if not any(_touch(cell, old) for old in path[-3:-1])]
        onward = [cell for cell in onward if cell not in path]
        if len(onward) == 2 and _touch(*onward):  # a corner of the staircase, not a fork
            onward = [min(onward, key=lambda cell: abs(cell[0] - path[-1][0]) + abs(cell[1] - path[-1][1]))]
        if len(onward) != 1:
            break
        path += onward
    return path


def _neighbors(skeleton: Mask, cell: tuple[int, int]) -> list[tuple[int, int]]:
    rows = slice(max(cell[0] - 1, 0), cell[0] + 2)
    columns = slice(max(cell[1] - 1, 0), cell[1] + 2)
    found = np.argwhere(skeleton[rows, columns]) + np.array([rows.start, columns.start])
    return [(row, column) for row, column in found.tolist() if (row, column) != cell]


def _touch(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return max(abs(one[0] - other[0]), abs(one[1] - other[1])) <= 1
