"""Pictures of CSS-Net: tendon and tear on the slice, and what substitution makes of a torn slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medray.figures.drawing import PALETTE
from medray.figures.style import empty_figure
from medray.systems.shoulder.css_substitution import TEAR, TENDON

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = {TENDON: PALETTE[4], TEAR: PALETTE[1]}
_NAMES = {TENDON: "supraspinatus tendon", TEAR: "tear"}
_PANEL_INCHES = 2.6
_MARGIN = 0.12  # of the image's side, around what is zoomed on
_BAR_MM = 20.0


@dataclass(frozen=True)
class Marked:
    """A slice and its label maps.

    Attributes:
        image: (H, W).
        found: label map of the same shape.
        truth: another one, where it is known.
        title: the case and its scores.
        spacing: mm along rows and columns; None where unknown.
    """

    image: NDArray[Any]
    found: NDArray[Any]
    truth: NDArray[Any] | None = None
    title: str = ""
    spacing: tuple[float, float] | None = None


def marked_slices(slices: Sequence[Marked]) -> Figure:
    """A row for each slice: the image alone, the whole slice with outlines, and the part around the tendon.

    Found outlines are drawn through, true ones broken. A bar of 20 mm where the pixels' size is known.
    """
    from matplotlib.lines import Line2D

    figure = empty_figure(3 * _PANEL_INCHES, (_PANEL_INCHES + 0.25) * len(slices) + 0.5)
    cells: Any = figure.subplots(len(slices), 3, squeeze=False)
    for row, one in zip(cells, slices, strict=True):
        for axes, outlined, part in zip(row, (False, True, True), (None, None, _around(one)), strict=True):
            _draw(axes, one, part, outlined)
        row[0].set_title(one.title, fontsize=8, loc="left")
    handles = [Line2D([], [], color=_COLORS[value], label=f"{_NAMES[value]}, found") for value in _COLORS]
    if any(one.truth is not None for one in slices):
        handles += [
            Line2D([], [], color=_COLORS[value], linestyle=":", label=f"{_NAMES[value]}, true") for value in _COLORS
        ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=7, frameon=False)
    return figure


def substituted_slices(rows: Sequence[tuple[str, NDArray[Any], NDArray[Any], NDArray[Any]]]) -> Figure:
    """A row for each torn slice: the image, its substituted image, and the difference, around the tear.

    Args:
        rows: name, image, substituted image and true label map, (H, W) each, images in [0, 1].
    """
    figure = empty_figure(3 * _PANEL_INCHES, (_PANEL_INCHES + 0.25) * len(rows))
    cells: Any = figure.subplots(len(rows), 3, squeeze=False)
    for row, (name, image, made, truth) in zip(cells, rows, strict=True):
        part = _around(Marked(image, truth))
        shown = ((image, "gray", 0, 1), (made, "gray", 0, 1), (made - image, "RdBu_r", -1, 1))
        for axes, (page, cmap, low, high) in zip(row, shown, strict=True):
            axes.imshow(page[part], cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
            _contour(axes, truth[part] == TEAR, _COLORS[TEAR], ":")
            axes.set_axis_off()
        row[0].set_title(name, fontsize=8, loc="left")
        row[1].set_title("torn region substituted", fontsize=8)
        row[2].set_title("difference", fontsize=8)
    return figure


def _around(one: Marked) -> tuple[slice, slice]:
    """The part that holds tendon and tear, true and found; the whole slice where there is neither."""
    marked = one.found > 0 if one.truth is None else (one.found > 0) | (one.truth > 0)
    if not marked.any():
        return slice(None), slice(None)
    places = np.argwhere(marked)
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    half = (places.max(axis=0) - places.min(axis=0)).max() / 2 + _MARGIN * max(marked.shape)
    low, high = np.maximum(middle - half, 0).astype(int), (middle + half + 1).astype(int)
    return slice(low[0], high[0]), slice(low[1], high[1])


def _draw(axes: Any, one: Marked, part: tuple[slice, slice] | None, outlined: bool) -> None:
    whole = (slice(None), slice(None)) if part is None else part
    spacing = one.spacing or (1.0, 1.0)
    low, high = np.percentile(one.image, (0.5, 99.5))
    axes.imshow(one.image[whole], cmap="gray", vmin=low, vmax=high, aspect=spacing[0] / spacing[1],
                interpolation="nearest")  # fmt: skip
    axes.set_axis_off()
    if outlined:
        for value, color in _COLORS.items():
            if one.truth is not None:
                _contour(axes, one.truth[whole] == value, color, ":")
            _contour(axes, one.found[whole] == value, color, "-")
    if one.spacing is not None:
        rows, columns = one.image[whole].shape
        length = _BAR_MM / spacing[1]
        if length < columns:
            axes.plot([0.04 * columns, 0.04 * columns + length], [0.94 * rows] * 2, color="white", linewidth=2)
            axes.text(0.04 * columns, 0.9 * rows, f"{_BAR_MM:g} mm", color="white", fontsize=6)


def _contour(axes: Any, mask: NDArray[Any], color: str, style: str) -> None:
    if mask.any() and not mask.all() and min(mask.shape) > 1:
        axes.contour(mask.astype(float), levels=[0.5], colors=[color], linestyles=style, linewidths=1.3)
