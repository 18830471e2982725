"""Pictures of segmentations: the image with the outlines of what is true and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medray.figures.drawing import PALETTE
from medray.figures.views import View, views

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[Any]
TRUTH, FOUND = PALETTE[2], PALETTE[1]
_PANEL_INCHES = 2.2


@dataclass(frozen=True)
class Example:
    """One panel.

    Attributes:
        image: (H, W), or (H, W, 3) in color; any scale.
        found: predicted mask, (H, W).
        truth: true mask, (H, W), where it is known.
        title: above the panel: the case and its score.
    """

    image: Array
    found: Array
    truth: Array | None = None
    title: str = ""


def outlines(
    examples: Sequence[Example],
    *,
    columns: int = 4,
    affine: Array | None = None,
    spacing: Sequence[float] | None = None,
    title: str = "",
) -> Figure:
    """Panels of images with outlines, true ones broken, found ones drawn through.

    Args:
        examples: at least one, all of one orientation.
        columns: panels per row.
        affine: (4, 4), index to mm, RAS+, where images are to be turned as clinicians read them.
        spacing: pixel size along rows and columns in mm, where there is no affine.
        title: above everything.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = min(columns, len(examples))
    rows = -(-len(examples) // columns)
    height = rows * (_PANEL_INCHES + 0.25) + 0.5
    figure = Figure(figsize=(max(columns * _PANEL_INCHES, 3.2), height), layout="constrained")
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in cells:
        axes.set_axis_off()
    for axes, example in zip(cells, examples, strict=False):
        (view,) = views(example.image.shape[:2], affine=affine, spacing=spacing)
        axes.imshow(_page(view, example.image), cmap="gray", interpolation="nearest", aspect=_aspect(view, example))
        for mask, color, style in ((example.truth, TRUTH, "--"), (example.found, FOUND, "-")):
            if mask is not None and np.any(mask) and not np.all(mask):
                page = _page(view, np.asarray(mask) != 0).astype(float)
                axes.contour(page, levels=[0.5], colors=[color], linewidths=1.0, linestyles=style)
        axes.set_title(example.title, fontsize=7)
    known = any(example.truth is not None for example in examples)
    handles = [Line2D([], [], color=FOUND, linestyle="-", label="found")]
    if known:
        handles.append(Line2D([], [], color=TRUTH, linestyle="--", label="true"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure


def _page(view: View, array: Array) -> Array:
    if array.ndim == 2:
        return view.plane(array)
    return np.stack([view.plane(array[..., channel]) for channel in range(array.shape[-1])], axis=-1)


def _aspect(view: View, example: Example) -> float:
    rows, columns = _page(view, example.image).shape[:2]
    return view.ratio * columns / rows
