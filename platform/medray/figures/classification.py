"""Pictures of classifiers: ROC curves, confusion matrices, examples with their scores, and curves of classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medray.figures.drawing import PALETTE
from medray.figures.style import empty_figure, line_style, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def roc_figure(truth: ArrayLike, score: ArrayLike, names: Sequence[str], *, title: str = "") -> Figure:
    """ROC curves of several labels in one panel, each with its area in the legend.

    Args:
        truth: (N, L), 0 or 1.
        score: (N, L), higher for likelier.
        names: of the L labels; those that no case or every case has are left out.
        title: above the panel.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    truth, score = np.asarray(truth), np.asarray(score)
    figure = empty_figure(5.6 if len(names) <= 8 else 8.0, 4.4)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=1.0, zorder=0)
    for label, name in enumerate(names):
        if 0 < truth[:, label].sum() < len(truth):
            false, true, _ = roc_curve(truth[:, label], score[:, label])
            area = roc_auc_score(truth[:, label], score[:, label])
            axes.plot(false, true, label=f"{name}: {area:.3f}", linewidth=1.5, **line_style(label))
    axes.set_xlabel("1 - specificity", fontsize=9)
    axes.set_ylabel("sensitivity", fontsize=9)
    axes.set_box_aspect(1)
    tidy(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=7, frameon=False, title="AUC")
    if title:
        axes.set_title(title, fontsize=10)
    return figure


def auc_figure(names: Sequence[str], areas: Sequence[tuple[float, float, float]], *, title: str = "") -> Figure:
    """ROC areas of labels as dots with their intervals.

    Args:
        names: of the labels, top to bottom.
        areas: area, lower and upper bound of each; nan bounds are not drawn.
        title: above the panel.
    """
    figure = empty_figure(5.6, 0.26 * len(names) + 1.2)
    axes = figure.add_subplot()
    places = np.arange(len(names))
    middle, low, high = np.asarray(areas, dtype=float).reshape(-1, 3).T
    axes.hlines(places, low, high, color=PALETTE[0], linewidth=2)
    axes.plot(middle, places, "o", color=PALETTE[0], markersize=5)
    axes.axvline(0.5, color="#BBBBBB", linewidth=1.0, zorder=0)
    for place, value in zip(places, middle, strict=True):
        axes.text(1.02, float(place), f"{value:.3f}", va="center", fontsize=7, transform=axes.get_yaxis_transform())
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(min(0.45, float(np.nanmin([*low, *middle])) - 0.02) if len(names) else 0.45, 1.0)
    axes.set_xlabel("AUC", fontsize=8)
    tidy(axes)
    if title:
        axes.set_title(title, fontsize=10)
    return figure


def confusion_figure(counts: NDArray[np.int_], names: Sequence[str], *, title: str = "") -> Figure:
    """Counts by true class (rows) and predicted class (columns), colored by the share of the row.

    Args:
        counts: (L, L).
        names: of the classes.
        title: above the panel.
    """
    side = max(3.2, 0.6 * len(names) + 1.6)
    figure = empty_figure(side + 0.4, side)
    axes = figure.add_subplot()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(names)):
        for column in range(len(names)):
            color = "white" if share[row, column] > 0.55 else "black"
            text = f"{counts[row, column]}\n{share[row, column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(len(names)), names, fontsize=8, rotation=30 if len(names) > 4 else 0)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    if title:
        axes.set_title(title, fontsize=10)
    return figure


def examples_figure(
    images: Sequence[NDArray[np.generic]], captions: Sequence[str], right: Sequence[bool], *, title: str = ""
) -> Figure:
    """Images in rows of four with a caption each; those the model got wrong have a thick dashed frame.

    Args:
        images: (1, H, W) or (3, H, W), any range.
        captions: one per image.
        right: whether the model was right.
        title: above everything.
    """
    from matplotlib.patches import Rectangle

    columns = min(4, len(images))
    rows = math.ceil(len(images) / columns)
    figure = empty_figure(2.3 * columns, 2.75 * rows + 0.3)
    for number, (image, caption, good) in enumerate(zip(images, captions, right, strict=True)):
        axes = figure.add_subplot(rows, columns, number + 1)
        show_image(axes, image)
        axes.set_title(caption, fontsize=8)
        if not good:
            frame = Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, linestyle="--", linewidth=4)
            frame.set_edgecolor(PALETTE[5])
            axes.add_patch(frame)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def bands_figure(
    panels: Mapping[str, tuple[ArrayLike, NDArray[np.floating]]],
    classes: ArrayLike,
    names: Sequence[str],
    *,
    coverage: float = 0.4,
    x_label: str = "",
    one: Mapping[str, ArrayLike] | None = None,
    title: str = "",
) -> Figure:
    """The median curve of each class with a band that holds the middle ``coverage`` of its cases at every point.

    Args:
        panels: title to (positions (T,), curves (N, T)).
        classes: (N,), class index of each curve.
        names: of the classes.
        coverage: share of the cases inside the band.
        x_label: what the positions are, with their unit.
        one: a single case's curve per panel, drawn in black over the bands.
        title: above everything.
    """
    classes = np.asarray(classes)
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = empty_figure(3.4 * columns, 2.6 * rows + 0.4)
    for number, (name, (positions, curves)) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        for index, label in enumerate(names):
            own = curves[classes == index]
            if len(own):
                low, middle, high = np.quantile(own, [(1 - coverage) / 2, 0.5, (1 + coverage) / 2], axis=0)
                line = line_style(index)
                axes.fill_between(positions, low, high, color=line["color"], alpha=0.2, linewidth=0)
                axes.plot(positions, middle, label=label, linewidth=1.4, **line)
        if one is not None:
            axes.plot(positions, one[name], color="black", linewidth=1.0, label="this image")
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(x_label, fontsize=8)
        tidy(axes)
        if number == 0:
            axes.legend(fontsize=7, frameon=False)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def prediction_figure(
    image: NDArray[np.generic], names: Sequence[str], probabilities: Sequence[float], *, title: str = ""
) -> Figure:
    """One image beside the probabilities of its labels.

    Args:
        image: (1, H, W) or (3, H, W).
        names: of the labels, top to bottom; leading spaces are kept, for trees.
        probabilities: 0 to 1 each.
        title: above everything.
    """
    height = max(2.8, 0.24 * len(names) + 0.8)
    figure = empty_figure(height + 4.6, height)
    left, right = figure.subplots(1, 2, width_ratios=[height, 4.0])
    show_image(left, image)
    places = np.arange(len(names))
    right.barh(places, probabilities, color=PALETTE[0], height=0.7)
    for place, value in zip(places, probabilities, strict=True):
        right.text(value + 0.01, place, f"{value:.2f}", va="center", fontsize=7)
    right.set_yticks(places, names, fontsize=8, ha="left")
    right.tick_params(axis="y", pad=6 + 5 * max(len(name) for name in names), length=0)
    right.set_xlim(0, 1.12)
    right.set_xticks([0, 0.5, 1])
    right.tick_params(axis="x", labelsize=7)
    right.invert_yaxis()
    right.set_xlabel("probability", fontsize=8)
    right.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def show_image(axes: Axes, image: NDArray[np.generic]) -> None:
    """Draw (1, H, W) in gray from its 1st to its 99th percentile, or (3, H, W) in color from its range."""
    values = np.moveaxis(np.asarray(image, dtype=float), 0, -1)
    low, high = (0.0, 255.0) if image.dtype == np.uint8 else np.percentile(values, (1, 99))
    shown = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    axes.imshow(shown[..., 0] if shown.shape[-1] == 1 else shown, cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
