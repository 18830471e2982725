"""How charts look: empty figures without global state, lines that differ in more than color, quiet axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medray.figures.drawing import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES = ("-", "--", ":", "-.")


def empty_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches that makes room for its own texts."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def line_style(index: int) -> dict[str, Any]:
    """Color and dash of the n-th line; lines of one color differ in their dash."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": _STYLES[(index // len(PALETTE) + index) % len(_STYLES)],
    }


def tidy(axes: Axes) -> None:
    """Small ticks, a pale grid, no frame above and to the right."""
    axes.tick_params(labelsize=7)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
