"""Large images through a network tile by tile, without seams and without ever holding more than some rows.

MONAI's `sliding_window_inference` needs the whole image, the whole result and a map of weights as floating point in
memory, moves the last window of a row off its grid, and gives pixels that only zero weights reach a value of nan. Here
tiles stay on their grid (networks with strides give the same answer for the same pixel then), read beyond the border by
reflection, and the result comes in bands of finished rows that a caller can write to a file. Where both apply they
agree, which a test holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ReadRegion = Callable[[int, int, int, int], NDArray[Any]]
"""(top, left, height, width), inside the image, to its pixels (height, width, channels)."""
Predict = Callable[[NDArray[Any]], Tensor]
"""A tile (tile, tile, channels), as read, to the network's answer for it, (channels, tile, tile)."""
Blend = Literal["pyramid", "printed", "flat"]


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How an image is cut.

    Attributes:
        tile: side of what the network sees, px.
        kept: side of the middle of its answer that is used, px; what surrounds it has seen the tile's border.
        step: from one tile to the next, px; below ``kept`` the answers overlap.
        blend: weight of an answer where several overlap. ``pyramid`` falls off from the middle of the kept part to its
            border; ``printed`` is equation 2 of de Bel et al. (MIDL 2019), min(|x - xc|, |y - yc|), which is zero on
            the middle cross; ``flat`` is the mean.
    """

    tile: int
    kept: int
    step: int
    blend: Blend = "flat"

    def __post_init__(self) -> None:
        if not 0 < self.step <= self.kept <= self.tile or (self.tile - self.kept) % 2:
            raise ValueError(
                f"a tiling needs 0 < step <= kept <= tile with an even margin, got step {self.step}, kept {self.kept}, "
                f"tile {self.tile}"
            )

    @property
    def margin(self) -> int:
        """From the border of a tile to its kept part, px."""
        return (self.tile - self.kept) // 2

    def starts(self, length: int) -> range:
        """Where the kept parts begin along an axis of that many pixels; the last one reaches its end."""
        return range(0, max(1, length - self.kept + self.step), self.step)

    def weights(self) -> Tensor:
        """(kept, kept), above 0."""
        if self.blend == "flat":
            return torch.ones(self.kept, self.kept)
        off = (torch.arange(self.kept) - (self.kept - 1) / 2).abs()
        if self.blend == "printed":
            return torch.minimum(off[:, None], off[None]) + 1e-3
        return self.kept / 2 - torch.maximum(off[:, None], off[None])


def tiled_bands(
    read: ReadRegion, shape: Sequence[int], predict: Predict, tiling: Tiling
) -> Iterator[tuple[int, Tensor]]:
    """The network's answer for a whole image, in bands of finished rows from top to bottom.

    Args:
        read: gives any region of the image.
        shape: (H, W, ...) of the image.
        predict: the network, on one tile.
        tiling: how to cut.

    Yields:
        The first row of a band, and the band, (channels, rows, W), float32. Together they cover the image.
    """
    height, width = int(shape[0]), int(shape[1])
    weights = tiling.weights()
    columns = tiling.starts(width)
    total: Tensor | None = None
    # The columns of tiles are the same in every band, so one row of weights per overlap is enough.
    count = torch.zeros(tiling.kept, columns[-1] + tiling.kept)
    rows = tiling.starts(height)
    for top in rows:
        for left in columns:
            tile = read_reflected(read, (height, width), top - tiling.margin, left - tiling.margin, tiling.tile)
            inner = slice(tiling.margin, tiling.margin + tiling.kept)
            answer = predict(tile)[:, inner, inner].float()
            if total is None:
                total = torch.zeros(len(answer), *count.shape)
            total[:, :, left : left + tiling.kept] += answer * weights
            count[:, left : left + tiling.kept] += weights
        assert total is not None
        done = tiling.kept if top == rows[-1] else tiling.step
        band = total[:, :done, :width] / count[:done, :width]
        yield top, band[:, : height - top]
        total, count = _shifted(total, done), _shifted(count, done)


def _shifted(values: Tensor, rows: int) -> Tensor:
    """Everything ``rows`` rows up, zeros below."""
    moved = torch.zeros_like(values)
    moved[..., : values.shape[-2] - rows, :] = values[..., rows:, :]
    return moved


def read_reflected(read: ReadRegion, shape: Sequence[int], top: int, left: int, side: int) -> NDArray[Any]:
    """A square region that may reach beyond the image, which is mirrored at its border pixels, (side, side, C)."""
    rows, columns = reflect(np.arange(top, top + side), shape[0]), reflect(np.arange(left, left + side), shape[1])
    region = read(int(rows.min()), int(columns.min()), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)
    inside = top >= 0 and left >= 0 and top + side <= shape[0] and left + side <= shape[1]
    return region if inside else region[rows - rows.min()][:, columns - columns.min()]


def reflect(positions: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    """Positions on an axis mirrored at 0 and at ``length - 1``, as often as it takes.

    >>> reflect(np.arange(-2, 6), 4).tolist()
    [2, 1, 0, 1, 2, 3, 2, 1]
    """
    period = max(1, 2 * (length - 1))
    wrapped = positions % period
    return np.minimum(wrapped, period - wrapped) if length > 1 else np.zeros_like(positions)
