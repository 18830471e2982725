"""Pictures of registrations, training curves and feature maps, as matplotlib figures.

How images are turned is told in `medray.figures.views`. Volumes are shown by three orthogonal slices: those that hold
most of the labels, or through the middle where there are none.

Color is never the only sign, and the colors stay apart under the common color-vision deficiencies (Okabe and Ito).
matplotlib is imported when a figure is made, without pyplot: no global state, no display.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medray.figures.views import View, views

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
_FOLD_COLOR = "#D55E00"
_GRID_COLOR = "#0072B2"
_PANELS = {  # before above after in 2D, before beside after in 3D
    2: (
        *("moving", "fixed", "checkerboard before", "outlines before"),
        *("warped", "grid", "checkerboard after", "outlines after"),
    ),
    3: (
        *("moving", "fixed", "warped", "checkerboard before", "checkerboard after"),
        *("outlines before", "outlines after", "grid"),
    ),
}
_GRID_LINES = 24
_TILES = 8
_PANEL_INCHES = 2.6
_MAX_WIDTH_INCHES = 18.0
_CAPTION_INCHES = 0.4
_DPI = 110
_MAX_FEATURES = 64


def registration_overview(
    moving: Array,
    fixed: Array,
    warped: Array,
    displacement_px: Array,
    *,
    moving_label: Array | None = None,
    fixed_label: Array | None = None,
    warped_label: Array | None = None,
    label_names: Mapping[int, str] | None = None,
    affine: Array | None = None,
    spacing: Sequence[float] | None = None,
    title: str = "",
) -> Figure:
    """Before and after one registration: images, checkerboards, label outlines, and the deformed grid with its folds.

    Args:
        moving: (H, W) or (D, H, W).
        fixed: same shape.
        warped: ``moving`` resampled at x + u(x), same shape.
        displacement_px: u, (dims, *shape), pixels, components in array-axis order.
        moving_label: integer organ values, same shape; outlines are drawn where fixed and moving labels are given.
        fixed_label: likewise.
        warped_label: ``moving_label`` resampled; by default it is resampled here, with nearest interpolation.
        label_names: names of organ values, for the legend.
        affine: (4, 4), index to mm, RAS+; gives orientation and aspect.
        spacing: pixel size in mm per array axis where there is no affine.
        title: above everything, for example the pair's name and its scores.

    Returns:
        2 rows of panels for images, 3 rows, one per plane, for volumes.

    Raises:
        ValueError: shapes that do not belong together.
    """
    images = {"moving": moving, "fixed": fixed, "warped": warped}
    labels = {"moving_label": moving_label, "fixed_label": fixed_label, "warped_label": warped_label}
    shape = np.shape(fixed)
    for name, array in (images | {k: v for k, v in labels.items() if v is not None}).items():
        if np.shape(array) != shape:
            raise ValueError(f"{name} {np.shape(array)} and fixed {shape} must have the same shape")
    if np.shape(displacement_px) != (len(shape), *shape):
        raise ValueError(f"displacement_px must be {(len(shape), *shape)}, got {np.shape(displacement_px)}")
    outlined = moving_label is not None and fixed_label is not None
    if outlined and warped_label is None:
        labels["warped_label"] = _warp_nearest(np.asarray(moving_label), np.asarray(displacement_px))

    planes = views(shape, affine=affine, spacing=spacing, middle=_middle(fixed_label))
    folded = _folded(displacement_px)
    gray = {name: to_gray(array) for name, array in images.items()}
    names = [name for name in _PANELS[len(shape)] if outlined or not name.startswith("outlines")]
    columns = len(names) if len(shape) == 3 else len(names) // 2
    places = [(name, view) for view in planes for name in names]
    figure, cells = _new_figure([view for _, view in places[::columns]], columns, captions=1 if len(shape) == 3 else 2)
    for number, ((name, view), cell) in enumerate(zip(places, cells, strict=True)):
        axes = figure.add_subplot(cell)
        _draw_panel(axes, name, view, gray, labels, displacement_px, folded)
        if number < len(names):
            axes.set_title(_panel_title(name, displacement_px, folded), fontsize=8)
        if len(shape) == 3 and name == names[0]:
            axes.set_ylabel(view.name, fontsize=9)
        if name in ("moving", "fixed", "warped"):
            mark_directions(axes, view)
    if outlined:
        _outline_legend(figure, np.asarray(fixed_label), label_names or {})
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def curves(
    records: Iterable[Mapping[str, Any]],
    keys: Sequence[str],
    *,
    x: str = "step",
    titles: Mapping[str, str] | None = None,
) -> Figure:
    """Logged values over time, one panel per key, one line per loop and name of the records.

    Args:
        records: as in metrics.jsonl, each with ``x``, perhaps ``loop`` and ``name``, and values.
        keys: what to draw, for example ``["loss", "dice"]``.
        x: what the horizontal axis counts: step, epoch or wall_s.
        titles: what a key is called, with its unit; the key itself by default.

    Raises:
        ValueError: no keys, or none of the records has any of them.
    """
    lines: dict[str, dict[str, list[tuple[float, float]]]] = {key: {} for key in keys}
    for record in records:
        for key in keys:
            value, position = record.get(key), record.get(x)
            if isinstance(value, int | float) and isinstance(position, int | float) and math.isfinite(value):
                who = " ".join(str(record[part]) for part in ("loop", "name") if record.get(part)) or key
                lines[key].setdefault(who, []).append((position, value))
    drawn = [key for key in keys if lines[key]]
    if not drawn:
        raise ValueError(f"no record holds a number under any of {', '.join(keys) or 'no keys'} together with {x!r}")
    everyone = sorted({who for key in drawn for who in lines[key]})
    columns = min(3, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    figure = _figure(4.2 * columns, 2.9 * rows)
    for number, key in enumerate(drawn):
        axes = figure.add_subplot(rows, columns, number + 1)
        for who, points in lines[key].items():
            order = everyone.index(who)
            positions, values = zip(*sorted(points), strict=True)
            axes.plot(
                positions,
                values,
                color=PALETTE[order % len(PALETTE)],
                linestyle=("-", "--", ":", "-.")[order % 4],
                marker="o" if len(points) <= 30 else "",
                markersize=3,
                linewidth=1.4,
                label=who,
            )
        axes.set_title((titles or {}).get(key, key), fontsize=9)
        axes.set_xlabel("time (s)" if x == "wall_s" else x, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if lines[key].keys() != {key}:
            axes.legend(fontsize=7, frameon=False)
    return figure


def feature_panel(
    features: Array,
    *,
    affine: Array | None = None,
    spacing: Sequence[float] | None = None,
    title: str = "",
    limit: float | None = None,
) -> Figure:
    """The channels of a feature map as small multiples on one symmetric color scale.

    Args:
        features: (C, H, W) or (C, D, H, W); of a volume the plane with the largest face is shown.
        affine: (4, 4), index to mm, RAS+.
        spacing: pixel size in mm per array axis where there is no affine.
        title: above everything.
        limit: end of the color scale; the 99th percentile of |features| by default. Give the same to two panels that
            are to be compared.

    Raises:
        ValueError: not (C, *shape), or more than 64 channels.
    """
    values = np.asarray(features, dtype=float)
    if values.ndim not in (3, 4) or not 1 <= values.shape[0] <= _MAX_FEATURES:
        raise ValueError(f"features are (C, *shape) with 1 to {_MAX_FEATURES} channels, got {values.shape}")
    planes = views(values.shape[1:], affine=affine, spacing=spacing)
    view = max(planes, key=lambda one: values.shape[1 + one.across] * values.shape[1 + one.down])
    end = limit if limit is not None else float(np.nanpercentile(np.abs(values), 99)) or 1.0
    columns = min(4, values.shape[0])
    rows = math.ceil(values.shape[0] / columns)
    figure, cells = _new_figure([view] * rows, columns, captions=rows)
    for channel, value in enumerate(values):
        axes = figure.add_subplot(cells[channel])
        shown = show_plane(axes, view, view.plane(value), cmap="PuOr_r", vmin=-end, vmax=end)
        axes.set_title(f"feature {channel + 1}", fontsize=8)
    bar = figure.colorbar(shown, ax=figure.axes, shrink=0.8, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("feature value (no unit)", fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def to_png(figure: Figure, *, dpi: int = _DPI) -> bytes:
    """The figure as a PNG file's content. The same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def _middle(label: Array | None) -> list[int] | None:
    """Along each axis the slice that holds most labelled pixels, or None where nothing is labelled."""
    inside = np.asarray(label) > 0 if label is not None else np.zeros(())
    if not inside.any():
        return None
    axes = range(inside.ndim)
    return [int(inside.sum(axis=tuple(other for other in axes if other != axis)).argmax()) for axis in axes]


def _warp_nearest(label: Array, displacement: Array) -> Array:
    import torch

    from medray.metrics.registration import warp_labels

    field = torch.from_numpy(np.ascontiguousarray(displacement, dtype=np.float32))[None]
    return np.asarray(warp_labels(torch.from_numpy(np.ascontiguousarray(label, dtype=np.int64))[None], field)[0])


def _folded(displacement: Array) -> NDArray[np.bool_]:
    """Where the field folds, (*shape)."""
    import torch

    from medray.metrics.registration import jacobian_determinant

    field = torch.from_numpy(np.ascontiguousarray(displacement, dtype=np.float32))[None]
    return np.asarray(jacobian_determinant(field)[0] <= 0)


def to_gray(image: Array) -> NDArray[np.float64]:
    """1st to 99th percentile to [0, 1], of the whole image and not of the slice shown."""
    low, high = np.nanpercentile(image, (1, 99))
    return np.asarray(np.clip((np.asarray(image, dtype=float) - low) / max(high - low, 1e-12), 0, 1))


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _new_figure(rows: Sequence[View], columns: int, captions: int) -> tuple[Figure, list[Any]]:
    """A figure shaped by its rows of views and of captions, no wider than a report can show, and its cells."""
    panel = min(_PANEL_INCHES, _MAX_WIDTH_INCHES / columns)
    ratios = [min(max(view.ratio, 0.3), 3.0) for view in rows]
    figure = _figure(panel * columns, panel * sum(ratios) + _CAPTION_INCHES * captions + 0.5)
    grid = figure.add_gridspec(len(rows), columns, height_ratios=ratios)
    return figure, [grid[row, column] for row in range(len(rows)) for column in range(columns)]


def show_plane(axes: Axes, view: View, page: Array, **style: Any) -> Any:
    """Draw a plane (rows, columns) with the pixel's true aspect and no ticks; ``style`` is for `Axes.imshow`."""
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(page, aspect=view.spacing[1] / view.spacing[0], interpolation="nearest", **style)


def _draw_panel(
    axes: Axes,
    name: str,
    view: View,
    gray: Mapping[str, Array],
    labels: Mapping[str, Array | None],
    displacement: Array,
    folded: Array,
) -> None:
    other = "warped" if name.endswith("after") else "moving"
    if name.startswith("checkerboard"):
        first, second = view.plane(gray["fixed"]), view.plane(gray[other])
        rows, columns = np.indices(first.shape)
        tile = max(2, math.ceil(max(first.shape) / _TILES))
        show_plane(
            axes, view, np.where((rows // tile + columns // tile) % 2, first, second), cmap="gray", vmin=0, vmax=1
        )
    elif name.startswith("outlines"):
        show_plane(axes, view, view.plane(gray["fixed"]), cmap="gray", vmin=0, vmax=1)
        values = np.unique(np.asarray(labels["fixed_label"]))
        for label, style, width in ((labels["fixed_label"], "solid", 1.5), (labels[f"{other}_label"], "dashed", 1.2)):
            _outlines(axes, view.plane(np.asarray(label)), values, style, width)
    elif name == "grid":
        _grid(axes, view, gray["fixed"], displacement, folded)
    else:
        show_plane(axes, view, view.plane(gray[name]), cmap="gray", vmin=0, vmax=1)


def _outlines(axes: Axes, label: Array, values: Array, style: str, width: float) -> None:
    from matplotlib.patheffects import withStroke

    for order, value in enumerate(v for v in values if v != 0):
        inside = label == value
        if inside.any() and not inside.all():
            color = PALETTE[order % len(PALETTE)]
            lines = axes.contour(inside.astype(float), levels=[0.5], colors=[color], linestyles=style, linewidths=width)
            lines.set_path_effects([withStroke(linewidth=width + 1.0, foreground="black")])  # on any gray


def _grid(axes: Axes, view: View, fixed: Array, displacement: Array, folded: Array) -> None:
    """Lines of the fixed grid drawn at x + u(x), over a pale fixed image; folds as crosses there."""
    show_plane(axes, view, 1 - 0.35 * view.plane(fixed), cmap="gray", vmin=0, vmax=1)
    right, down = view.page_field(displacement)
    rows, columns = np.indices(right.shape)
    x, y = columns + right, rows + down
    step = max(1, round(max(right.shape) / _GRID_LINES))
    style: dict[str, Any] = {"color": _GRID_COLOR, "linewidth": 0.7}
    drawn = [sorted({*range(0, length, step), length - 1}) for length in right.shape]
    axes.plot(x[drawn[0]].T, y[drawn[0]].T, **style)
    axes.plot(x[:, drawn[1]], y[:, drawn[1]], **style)
    marked = view.plane(folded)
    if marked.any():
        axes.plot(x[marked], y[marked], "x", color=_FOLD_COLOR, markersize=3, markeredgewidth=1.0)
    axes.set_xlim(-0.5, right.shape[1] - 0.5)
    axes.set_ylim(right.shape[0] - 0.5, -0.5)


def _panel_title(name: str, displacement: Array, folded: Array) -> str:
    if name == "grid":
        length = np.linalg.norm(displacement, axis=0)
        return f"|u| mean {length.mean():.1f}, max {length.max():.1f} px\nfolded {folded.mean():.2%} (crosses)"
    return {
        "warped": "moving, warped",
        "outlines before": "outlines before\nfixed solid, moving dashed",
        "outlines after": "outlines after\nfixed solid, warped dashed",
        "checkerboard before": "checkerboard\nfixed and moving",
        "checkerboard after": "checkerboard\nfixed and warped",
    }.get(name, name)


def mark_directions(axes: Axes, view: View) -> None:
    """Write the view's letters at the border of its panel."""
    places = (
        *((0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center")),
        *((0.5, 0.98, "center", "top"), (0.5, 0.02, "center", "bottom")),
    )
    for letter, (x, y, horizontal, vertical) in zip(view.letters, places, strict=False):
        axes.text(
            x,
            y,
            letter,
            transform=axes.transAxes,
            ha=horizontal,
            va=vertical,
            fontsize=7,
            color="white",
            bbox={"facecolor": "black", "alpha": 0.5, "pad": 1, "linewidth": 0},
        )


def _outline_legend(figure: Figure, fixed_label: Array, names: Mapping[int, str]) -> None:
    from matplotlib.lines import Line2D

    values = [int(v) for v in np.unique(fixed_label) if v != 0]
    handles = [
        Line2D([], [], color=PALETTE[order % len(PALETTE)], label=names.get(value, f"label {value}"))
        for order, value in enumerate(values[: 2 * len(PALETTE)])
    ]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(8, len(handles)), fontsize=8, frameon=False
        )
