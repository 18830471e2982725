"""Attention maps over images: rows of 2D images, three planes of a volume, and a volume rendering."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medray.figures.compositing import composite
from medray.figures.drawing import mark_directions, show_plane, to_gray
from medray.figures.heat import heat_bar, lay_over, outline, scale_bar
from medray.figures.scene import make_scene
from medray.figures.segmentation import FOUND, TRUTH
from medray.figures.style import empty_figure
from medray.figures.views import View, views
from medray.metrics.localisation import peak

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]
_PANEL_INCHES = 2.2
_WIDTH_INCHES = 9.0
_CROSS = "#56B4E9"
_SIDES = {"from the front": (0, 10), "turned by 45°": (45, 10), "from the side": (90, 10)}
"""Azimuth and elevation of the renderings, degrees."""


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
    alone: Collection[str] = (),
    spacing: Sequence[float] | None = None,
    affine: Array | None = None,
    title: str = "",
) -> Figure:
    """Each image alone, under each of its maps, and with the outlines of what is true and what was found.

    Args:
        rows: at least one, with maps of the same names.
        alone: maps of fine structure, as guided Grad-CAM: drawn without the image, where single pixels would be lost,
            and up to their 99.5th percentile, since few pixels come near the maximum.
        spacing: mm along rows and columns; a bar in mm is drawn where it or ``affine`` is given.
        affine: (4, 4), index to mm, RAS+, where images are to be turned as clinicians read them.
        title: above everything.

    Returns:
        A row of panels for each; without masks there is no panel of outlines.

    Raises:
        ValueError: no rows, or rows with different maps.
    """
    names = list(rows[0].heats) if rows else []
    if not rows or any(list(row.heats) != names for row in rows):
        raise ValueError(f"rows need maps of the same names, got {[list(row.heats) for row in rows]}")
    truth, found = (any(getattr(row, name) is not None for row in rows) for name in ("truth", "found"))
    outlined = truth or found
    planes = [views(np.shape(row.image), affine=affine, spacing=spacing)[0] for row in rows]
    heights = [_PANEL_INCHES * min(max(view.ratio, 0.3), 3.0) for view in planes]
    columns = 1 + len(names) + outlined
    figure = empty_figure(_PANEL_INCHES * columns + 0.8, sum(heights) + 0.3 + 0.3 * outlined + 0.3 * bool(title))
    cells: Any = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    shown = None
    for row, view, line in zip(rows, planes, cells, strict=True):
        shown = _draw_row(line, view, row, outlined, alone) or shown
        if spacing is not None or affine is not None:
            scale_bar(line[0], view, view.plane(row.image).shape[1])
        line[0].set_ylabel(row.title, fontsize=8)
    for axes, name in zip(cells[0], ("image", *names, "outlines"), strict=False):
        axes.set_title(name, fontsize=9)
    _explain(figure, cells, shown, truth=truth, found=found, title=title)
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
    """Three planes of a volume through one point, all at one scale, with the heat over them.

    Args:
        image: (D, H, W), any scale.
        heat: (D, H, W) in [0, 1].
        spacing: mm per array axis.
        mask: (D, H, W), whose outline is drawn: the true tear.
        affine: (4, 4), index to mm, RAS+; turns the planes to how clinicians read them and names them.
        point: index where they meet; the heat's maximum by default.
        title: above everything.

    Raises:
        ValueError: the arrays are not volumes of one shape.
    """
    shapes = [np.shape(array) for array in (image, heat, mask) if array is not None]
    if len(shapes[0]) != 3 or len(set(shapes)) != 1:
        raise ValueError(f"three planes need volumes of one shape (D, H, W), got {shapes}")
    place = tuple(point) if point is not None else peak(heat)
    planes = views(shapes[0], affine=affine, spacing=spacing if affine is None else None, middle=place)
    gray = to_gray(image)
    widths = [view.plane(gray).shape[1] * view.spacing[0] for view in planes]
    height = max(width * view.ratio for width, view in zip(widths, planes, strict=True))
    inches = _WIDTH_INCHES / sum(widths)
    figure = empty_figure(_WIDTH_INCHES + 0.9, min(height * inches, 7.0) + 0.6 + 0.3 * bool(title))
    cells: Any = figure.subplots(1, 3, width_ratios=widths)
    for axes, view in zip(cells, planes, strict=True):
        show_plane(axes, view, view.plane(gray), cmap="gray", vmin=0, vmax=1)
        shown = lay_over(axes, view, heat)
        outline(axes, view, mask, TRUTH, "--")
        if place is not None:
            _cross(axes, view, shapes[0], place)
        scale_bar(axes, view, view.plane(gray).shape[1])
        mark_directions(axes, view)
        axes.set_title(view.name, fontsize=9)
    _explain(figure, cells, shown, truth=mask is not None, found=False, title=title)
    return figure


def rendering(
    image: Array, heat: Array, spacing: Sequence[float], *, affine: Array | None = None, title: str = ""
) -> Figure:
    """A volume, nearly transparent, with its heat inside, from three sides.

    Args:
        image: (D, H, W), any scale; more than 64 voxels along an axis are averaged.
        heat: (D, H, W) in [0, 1].
        spacing: mm per array axis.
        affine: (4, 4), index to mm, RAS+: the first side is then the patient's front. Without it, the first array axis
            runs down, the second away from the viewer.
        title: above everything.

    Raises:
        ValueError: the arrays are not volumes of one shape.
    """
    scene = make_scene(image, heat, spacing, affine=affine)
    pictures = [composite(scene, azimuth, elevation) for azimuth, elevation in _SIDES.values()]
    rows, columns = _filled(np.max(pictures, axis=(0, 3)))
    ratio = (rows.stop - rows.start) / (columns.stop - columns.start)
    figure = empty_figure(_WIDTH_INCHES, _WIDTH_INCHES / 3 * ratio + 0.3 + 0.3 * bool(title))
    cells: Any = figure.subplots(1, 3)
    for axes, name, picture, letters in zip(cells, _SIDES, pictures, ("RL", "", "AP"), strict=True):
        axes.imshow(picture[rows, columns], interpolation="bilinear")
        axes.set_title(name, fontsize=9)
        axes.set_axis_off()
        for letter, x in zip(letters if scene.letters else "", (0.03, 0.97), strict=False):
            axes.text(x, 0.5, letter, transform=axes.transAxes, ha="center", va="center", fontsize=7, color="white")
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _filled(bright: Array) -> tuple[slice, slice]:
    """Rows and columns of a picture (H, W) that are not black; all of them where every one is."""
    seen = bright > 0.02
    ends = [np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0)]
    rows, columns = (
        slice(int(end[0]), int(end[-1]) + 1) if len(end) else slice(0, length)
        for end, length in zip(ends, seen.shape, strict=True)
    )
    return rows, columns


def _draw_row(line: Sequence[Axes], view: View, row: AttentionRow, outlined: bool, alone: Collection[str]) -> Any:
    """Draw one row; what explains its heat, or None where no map lies over an image."""
    gray = view.plane(to_gray(row.image))
    names = [None, *row.heats, *[None] * outlined]
    shown = None
    for axes, name in zip(line, names, strict=True):
        if name is not None and name in alone:
            page = view.plane(row.heats[name])
            show_plane(axes, view, page, cmap="gray", vmin=0, vmax=float(np.percentile(page, 99.5)) or 1.0)
            continue
        show_plane(axes, view, gray, cmap="gray", vmin=0, vmax=1)
        if name is not None:
            shown = lay_over(axes, view, row.heats[name])
    if outlined:
        outline(line[-1], view, row.truth, TRUTH, "--")
        outline(line[-1], view, row.found, FOUND, "-")
    return shown


def _cross(axes: Axes, view: View, shape: Sequence[int], place: Sequence[int]) -> None:
    """Thin lines through the point, with a gap so that they do not hide it."""
    row, column = (
        shape[axis] - 1 - place[axis] if axis in view.mirror else place[axis] for axis in (view.down, view.across)
    )
    gap = 0.06 * max(shape[view.down], shape[view.across])
    style: dict[str, Any] = {"color": _CROSS, "linewidth": 0.7}
    axes.hlines([row] * 2, [-0.5, column + gap], [column - gap, shape[view.across] - 0.5], **style)
    axes.vlines([column] * 2, [-0.5, row + gap], [row - gap, shape[view.down] - 0.5], **style)


def _explain(figure: Figure, cells: Any, heat: Any, *, truth: bool, found: bool, title: str) -> None:
    """The scale of the heat, what the outlines are, and the title."""
    from matplotlib.lines import Line2D

    if heat is not None:
        heat_bar(figure, heat, cells)
    handles = [Line2D([], [], color=TRUTH, linestyle="--", label="true")] * truth
    handles += [Line2D([], [], color=FOUND, linestyle="-", label="found")] * found
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    if title:
        figure.suptitle(title, fontsize=10)
