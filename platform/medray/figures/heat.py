"""Heat over gray images: more of it is brighter and covers more, so that the image is seen where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medray.figures.drawing import show_plane
from medray.figures.views import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Array = NDArray[Any]
_LENGTHS_MM = (1, 2, 5, 10, 20, 50, 100)


def heat_colors(opacity: float = 0.8) -> Colormap:
    """From nothing over red and orange to a bright yellow that covers ``opacity`` of what is below."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap

    share = np.linspace(0, 1, 256)
    colors = mpl.colormaps["inferno"](0.35 + 0.6 * share)  # without the black end: black over gray looks like tissue
    colors[:, 3] = opacity * np.clip(1.6 * share, 0, 1)
    return ListedColormap(colors, "heat")


def lay_over(axes: Axes, view: View, heat: Array) -> ScalarMappable:
    """Draw heat, (*shape) in [0, 1], over the image in a panel.

    Returns:
        what `heat_bar` explains.
    """
    shown: ScalarMappable = show_plane(axes, view, np.clip(view.plane(heat), 0, 1), cmap=heat_colors(), vmin=0, vmax=1)
    return shown


def heat_bar(figure: Figure, heat: ScalarMappable, cells: Any) -> None:
    """The scale of the heat, beside the panels."""
    bar = figure.colorbar(heat, ax=cells, fraction=0.03, shrink=0.8, pad=0.01)
    bar.ax.set_facecolor("#555555")  # what lies below in the panels: gray
    bar.set_label("attention, share of the map's maximum", fontsize=7)
    bar.set_ticks([0, 0.5, 1])
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def scale_bar(axes: Axes, view: View, width_px: int) -> None:
    """A bar of a round length in mm at the lower right of a panel, about a quarter of its width.

    Args:
        axes: of the panel.
        view: shown in it; its spacing is in mm.
        width_px: columns of the panel.
    """
    from matplotlib.patheffects import withStroke

    quarter = 0.25 * width_px * view.spacing[0]
    length = max((one for one in _LENGTHS_MM if one <= quarter), default=_LENGTHS_MM[0])
    share = length / (width_px * view.spacing[0])
    halo = [withStroke(linewidth=3, foreground="black")]
    axes.plot([0.96 - share, 0.96], [0.05, 0.05], "w", linewidth=2, transform=axes.transAxes, path_effects=halo)
    text = axes.text(0.96 - share / 2, 0.07, f"{length} mm", transform=axes.transAxes, fontsize=7, color="white")
    text.set(ha="center", va="bottom", path_effects=halo)


def outline(axes: Axes, view: View, mask: Array | None, color: str, style: str) -> None:
    """Draw the border of a mask, (*shape), where it meets the plane."""
    from matplotlib.patheffects import withStroke

    page = None if mask is None else view.plane(np.asarray(mask) != 0)
    if page is not None and page.any() and not page.all():
        lines = axes.contour(page.astype(float), levels=[0.5], colors=[color], linewidths=1.3, linestyles=style)
        lines.set_path_effects([withStroke(linewidth=2.2, foreground="black")])  # on any gray
