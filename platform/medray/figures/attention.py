"""Attention maps over images: rows of 2D images, three planes of a volume, and a volume rendering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medray.figures.drawing import mark_directions, show_plane, to_gray
from medray.figures.segmentation import FOUND, TRUTH
from medray.figures.style import empty_figure
from medray.figures.views import View, views
from medray.metrics.localisation import peak

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]
HEAT_COLORS = "inferno"
_OPACITY = 0.75
_PANEL_INCHES = 2.2


@dataclass(frozen=True)
class AttentionRow:
    """One image and where it was looked at.

    Attributes:
        image: (H, W), any scale.
        heats: what a map is called -> (H, W) in [0, 1]; the same names in all rows.
        truth: true mask, (H, W).
        found: predicted mask, (H, W).
        title: beside the row: the case, its class and the probability given to it.
    """

    image: Array
    heats: Mapping[str, Array]
    truth: Array | None = None
    found: Array | None = None
    title: str = ""


def attention_rows(
    rows: Sequence[AttentionRow],
    *,
    spacing: Sequence[float] | None = None,
    affine: Array | None = None,
    title: str = "",
) -> Figure:
    """Each image alone, under each of its maps, and with the outlines of what is true and what was found.

    Args:
        rows: at least one, with maps of the same names.
        spacing: mm along rows and columns; a bar of 20 mm is drawn where it or ``affine`` is given.
        affine: (4, 4), index to mm, RAS+, where images are to be turned as clinicians read them.
        title: above everything.

    Raises:
        ValueError: no rows, or rows with different maps.
    """
    names = list(rows[0].heats) if rows else []
    if not rows or any(list(row.heats) != names for row in rows):
        raise ValueError(f"rows need maps of the same names, got {[list(row.heats) for row in rows]}")
    figure = empty_figure(_PANEL_INCHES * (2 + len(names)), _PANEL_INCHES * len(rows) + 0.5)
    cells: Any = figure.subplots(len(rows), 2 + len(names), squeeze=False)
    for row, line in zip(rows, cells, strict=True):
        (view,) = views(np.shape(row.image), affine=affine, spacing=spacing)
        for axes, heat in zip(line, (None, *row.heats.values(), None), strict=True):
            show_plane(axes, view, view.plane(to_gray(row.image)), cmap="gray", vmin=0, vmax=1)
            if heat is not None:
                _lay_over(axes, view, heat)
        line[0].set_ylabel(row.title, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def three_planes(
    image: Array,
    heat: Array,
    spacing: Sequence[float],
    *,
    mask: Array | None = None,
    affine: Array | None = None,
    point: Sequence[int] | None = None,
    title: str = "",
) -> Figure:
    """Three planes of a volume through one point, with the heat over them.

    Args:
        image: (D, H, W), any scale.
        heat: (D, H, W) in [0, 1].
        spacing: mm per array axis.
        mask: (D, H, W), whose outline is drawn: the true tear.
        affine: (4, 4), index to mm, RAS+; turns the planes to how clinicians read them and names them.
        point: index where they meet; the heat's maximum by default.
        title: above everything.
    """
    place = point or peak(np.asarray(heat))
    planes = views(np.shape(image), affine=affine, spacing=None if affine is not None else spacing, middle=place)
    figure = empty_figure(9.0, 3.4)
    cells: Any = figure.subplots(1, 3)
    for axes, view in zip(cells, planes, strict=True):
        show_plane(axes, view, view.plane(to_gray(image)), cmap="gray", vmin=0, vmax=1)
        _lay_over(axes, view, heat)
        mark_directions(axes, view)
        axes.set_title(view.name, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def rendering(
    image: Array, heat: Array, spacing: Sequence[float], *, affine: Array | None = None, title: str = ""
) -> Figure:
    """A volume and its heat from three sides.

    Args:
        image: (D, H, W), any scale.
        heat: (D, H, W) in [0, 1].
        spacing: mm per array axis.
        affine: (4, 4), index to mm, RAS+.
        title: above everything.
    """
    figure = empty_figure(9.0, 3.4)
    cells: Any = figure.subplots(1, 3)
    for axis, axes in enumerate(cells):
        axes.imshow(to_gray(image).max(axis=axis), cmap="gray")
        axes.imshow(heat.max(axis=axis), cmap=HEAT_COLORS, alpha=_OPACITY * heat.max(axis=axis), vmin=0, vmax=1)
        axes.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _lay_over(axes: Axes, view: View, heat: Array) -> None:
    page = np.clip(view.plane(heat), 0, 1)
    show_plane(axes, view, page, cmap=HEAT_COLORS, alpha=_OPACITY * page, vmin=0, vmax=1)


OUTLINES = (TRUTH, FOUND)
