"""Square windows cut from many images at once, at subpixel positions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.axon.options import WINDOW_PX

_HALF = WINDOW_PX // 2
_OFFSETS = np.arange(-_HALF, _HALF + 1, dtype=np.float64)


class Windows:
    """Where to look: a window of 11 x 11 samples around each of N positions, for bilinear interpolation.

    The same windows can be cut from several stacks of images (`cut`), for instance the image and the path.

    Args:
        centres: (N, 2) as (x, y), px, in padded images: every sample must lie inside.
        spacing: px between samples.
        width: of the padded images.
    """

    def __init__(self, centres: NDArray[np.float64], spacing: float, width: int) -> None:
        if spacing == 1.0:  # neighbours share their pixels
            first = np.floor(centres).astype(np.intp)
            fraction = (centres - first).astype(np.float32)
            around = np.arange(-_HALF, _HALF + 2)
            self._low, self._high = slice(0, WINDOW_PX), slice(1, WINDOW_PX + 1)
            columns, rows = first[:, :1] + around, first[:, 1:] + around
            self._fx, self._fy = fraction[:, 0, None, None], fraction[:, 1, None, None]
        else:
            at = centres[:, :, None] + spacing * _OFFSETS
            low = np.floor(at).astype(np.intp)
            fraction = (at - low).astype(np.float32)
            both = np.stack([low, low + 1], axis=3).reshape(len(centres), 2, 2 * WINDOW_PX)
            self._low, self._high = slice(0, None, 2), slice(1, None, 2)
            columns, rows = both[:, 0], both[:, 1]
            self._fx, self._fy = fraction[:, 0, None, :], fraction[:, 1, :, None]
        self._index = rows[:, :, None] * width + columns[:, None, :]

    def cut(self, images: NDArray[np.generic], which: NDArray[np.intp]) -> NDArray[np.float32]:
        """(N, 11, 11) from a stack of padded images (M, H, W), the one at ``which`` (N,) for each window."""
        size = images.shape[1] * images.shape[2]
        # Positions are kept inside, so no index is ever clipped; the mode spares the check of each, which took longest.
        block = (
            images.reshape(-1)
            .take(self._index + (which * size)[:, None, None], mode="clip")
            .astype(np.float32, copy=False)
        )
        upper = block[:, self._low]
        rows = upper + (block[:, self._high] - upper) * self._fy
        left = rows[:, :, self._low]
        return left + (rows[:, :, self._high] - left) * self._fx


def sample(images: NDArray[np.float32], which: NDArray[np.intp], points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Bilinear samples (N, P) of padded images (M, H, W) at points (N, P, 2); ``which`` (N,) names each row's image."""
    width, size = images.shape[2], images.shape[1] * images.shape[2]
    first = np.floor(points).astype(np.intp)
    fraction = (points - first).astype(np.float32)
    index = first[..., 1] * width + first[..., 0] + (which * size)[:, None]
    flat = images.reshape(-1)
    fx, fy = fraction[..., 0], fraction[..., 1]
    corners = [flat.take(index + step, mode="clip") for step in (0, 1, width, width + 1)]
    top = corners[0] + (corners[1] - corners[0]) * fx
    bottom = corners[2] + (corners[3] - corners[2]) * fx
    return top + (bottom - top) * fy
