"""Rows of images side by side: what went in, what came out, what is true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL_INCHES = 1.9


@dataclass(frozen=True)
class Panel:
    """One image of a row.

    Attributes:
        image: (H, W), array axes Right and Anterior, or rows and columns where the row is a ``picture``.
        title: stands above it in the first row, or above every panel whose title differs from the one above.
        limits: black and white, or ends of the color scale; the image's own 0.5th and 99.5th percentile if None.
        cmap: matplotlib's name.
        outline: a mask whose border is drawn, (H, W).
        second: another one, drawn dashed.
    """

    image: NDArray[Any]
    title: str = ""
    limits: tuple[float, float] | None = None
    cmap: str = "gray"
    outline: NDArray[Any] | None = None
    second: NDArray[Any] | None = None


def panel_rows(
    rows: Sequence[Sequence[Panel]], *, names: Sequence[str] = (), title: str = "", picture: bool = False
) -> Figure:
    """Draw rows of panels.

    Args:
        rows: of equal length.
        names: one per row, written at its left.
        title: above everything.
        picture: images are (rows, columns) and not slices of a patient with axes Right and Anterior.

    Raises:
        ValueError: no rows, or rows of different length.
    """
    from matplotlib.figure import Figure

    if not rows or len({len(row) for row in rows}) != 1:
        raise ValueError(f"panels come in rows of equal length, got {[len(row) for row in rows]}")
    height = np.shape(rows[0][0].image)[0 if picture else 1] / np.shape(rows[0][0].image)[1 if picture else 0]
    size = (_PANEL_INCHES * len(rows[0]) + 0.3, (_PANEL_INCHES * height + 0.25) * len(rows) + 0.4 * bool(title))
    figure = Figure(figsize=size, layout="constrained")
    cells: Any = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for number, row in enumerate(rows):
        for column, panel in enumerate(row):
            axes = cells[number][column]
            _draw(axes, panel, picture)
            if number == 0 or panel.title != rows[number - 1][column].title:
                axes.set_title(panel.title, fontsize=8)
        if names:
            cells[number][0].set_ylabel(names[number], fontsize=7)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _draw(axes: Any, panel: Panel, picture: bool) -> None:
    def page(array: NDArray[Any]) -> NDArray[Any]:
        # The patient's right on the left of the page and anterior up, as radiologists look at axial slices.
        return np.asarray(array) if picture else np.asarray(array).T[::-1, ::-1]

    low, high = panel.limits or tuple(np.percentile(panel.image, (0.5, 99.5)))
    axes.imshow(page(panel.image), cmap=panel.cmap, vmin=low, vmax=high, interpolation="nearest")
    for mask, color, style in ((panel.outline, "#E69F00", "solid"), (panel.second, "#56B4E9", "dashed")):
        if mask is not None and np.any(mask) and not np.all(mask):
            shown = page(mask).astype(float)
            axes.contour(shown, levels=[0.5], colors=[color], linestyles=style, linewidths=1.2)
    axes.set_xticks([])
    axes.set_yticks([])
