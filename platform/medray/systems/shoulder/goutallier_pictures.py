"""Pictures for radiologists: contour, attention, ROC curves with their spread over folds, fat by grade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medray.figures.attention import AttentionRow, attention_rows
from medray.figures.drawing import PALETTE, to_png
from medray.figures.style import empty_figure, line_style, tidy
from medray.metrics.delong import delong_test
from medray.metrics.intervals import t_interval
from medray.system import Row
from medray.systems.shoulder.goutallier_images import YView
from medray.systems.shoulder.goutallier_inference import Finding
from medray.systems.shoulder.goutallier_labels import NAMES
from medray.systems.shoulder.goutallier_regions import FloatArray, Mask, region_of
from medray.systems.shoulder.goutallier_scores import THRESHOLD

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WINDOW = 0.6
"""Of the muscle's box, shown around it on each side."""


@dataclass(frozen=True)
class Shown:
    """An example.

    Attributes:
        name: the case.
        grade: Goutallier's, where it is known.
        view: the image.
        finding: what was found in it.
        heats: name of a map -> (H, W) in [0, 1].
        truth: the muscle as drawn, where it is known.
    """

    name: str
    grade: str
    view: YView
    finding: Finding
    heats: Mapping[str, FloatArray]
    truth: Mask | None = None


def decision(probability: float) -> str:
    """The answer in words with the probability of that answer."""
    risky = probability >= THRESHOLD
    return f"{NAMES[risky]}, probability {probability if risky else 1 - probability:.2f}"


def attention_png(examples: Sequence[Shown], *, in_mm: bool, title: str = "") -> bytes:
    """A row for each example: the muscle's surroundings, the maps over them, the contour found (and the true one)."""
    rows = []
    for one in examples:
        top, bottom, left, right = region_of(one.finding.muscle, _WINDOW).box
        cut = np.s_[top:bottom, left:right]
        told = f"{one.name}" + (f", grade {one.grade}" if one.grade else "")
        text = decision(one.finding.probability).replace(", probability", "\np =")
        heats = {name: heat[cut] for name, heat in one.heats.items()}
        truth = None if one.truth is None else one.truth[cut]
        row = AttentionRow(one.view.image[cut], heats, truth, one.finding.muscle[cut], f"{told}\n{text}")
        rows.append(row)
    spacing = examples[0].view.spacing if in_mm else None
    return to_png(attention_rows(rows, alone=["guided Grad-CAM"], spacing=spacing, title=title))


def folds_png(rows: Sequence[Row]) -> bytes:
    """ROC curves of the folds, thin, with their mean and its 95 % interval."""
    from sklearn.metrics import roc_curve

    figure = empty_figure(5.2, 4.4)
    axes = figure.add_subplot()
    grid = np.linspace(0, 1, 101)
    curves = []
    for number in sorted({int(row["fold"]) for row in rows}):
        mine = [row for row in rows if row["fold"] == number and "risky" in row]
        risky, score = ([float(row[name]) for row in mine] for name in ("risky", "probability_risky"))
        false, true, _ = roc_curve(risky, score)
        curves.append(np.interp(grid, false, true))
        axes.step(false, true, where="post", color="#999999", linewidth=0.8, label="one fold" if not number else None)
    bounds = np.array([t_interval(list(column)) for column in np.array(curves).T])
    axes.plot(grid, bounds[:, 0], color=PALETTE[0], linewidth=2, label="mean")
    if len(curves) > 1:
        low, high = np.clip(bounds[:, 1], 0, 1), np.clip(bounds[:, 2], 0, 1)
        axes.fill_between(grid, low, high, color=PALETTE[0], alpha=0.2, linewidth=0, label="95 % interval")
    _roc_axes(axes)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return to_png(figure)


def compared_png(found: Mapping[str, Sequence[Row]]) -> bytes:
    """ROC curves of variants on the same test cases, with DeLong's p against the first."""
    from sklearn.metrics import roc_curve

    figure = empty_figure(6.6, 4.4)
    axes = figure.add_subplot()
    first = next(iter(found))
    for index, (name, rows) in enumerate(found.items()):
        risky, score = _asked(rows)
        test = delong_test(risky, _asked(found[first])[1], score)
        told = "" if name == first else f", p = {test.p_value:.2g}"
        false, true, _ = roc_curve(risky, score)
        axes.plot(false, true, label=f"{name}: {test.second:.3f}{told}", linewidth=1.5, **line_style(index))
    _roc_axes(axes)
    title = "AUROC (p of DeLong's\ntest against the first)"
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=7, frameon=False, title=title)
    return to_png(figure)


def _asked(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    asked = [row for row in rows if "risky" in row]
    return [float(row["risky"]) for row in asked], [float(row["probability_risky"]) for row in asked]


def _roc_axes(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=1.0, zorder=0)
    axes.set_xlabel("1 - specificity", fontsize=9)
    axes.set_ylabel("sensitivity", fontsize=9)
    axes.set_box_aspect(1)
    tidy(axes)


def curves_png(records: Sequence[Sequence[Mapping[str, Any]]], keys: Mapping[str, str]) -> bytes:
    """Validation curves of the folds, thin, with their mean and its 95 % interval, as in figures 5 and 8.

    Args:
        records: of each fold, as in metrics.jsonl.
        keys: metric to what it is called.
    """
    figure = empty_figure(3.6 * len(keys), 2.8)
    for place, (key, name) in enumerate(keys.items()):
        axes = figure.add_subplot(1, len(keys), place + 1)
        by_epoch: dict[int, list[float]] = {}
        for fold in records:
            points = [(int(one["epoch"]), float(one[key])) for one in fold if one["name"] == "validation"]
            axes.plot(*zip(*points, strict=True), color="#999999", linewidth=0.7)
            for epoch, value in points:
                by_epoch.setdefault(epoch, []).append(value)
        epochs, limits = sorted(by_epoch), axes.get_ylim()
        bounds = np.array([t_interval(by_epoch[epoch]) for epoch in epochs])
        axes.plot(epochs, bounds[:, 0], color=PALETTE[0], linewidth=1.5)
        axes.fill_between(epochs, bounds[:, 1], bounds[:, 2], color=PALETTE[0], alpha=0.2, linewidth=0)
        axes.set_ylim(limits)  # the interval of two folds is wider than everything
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("epoch", fontsize=8)
        tidy(axes)
    return to_png(figure)


def fat_png(rows: Sequence[Row]) -> bytes:
    """Fat measured inside the contour, by grade; beside it against the truth where that is known."""
    known = [row for row in rows if "fat_fraction_percent" in row]
    paired = [row for row in known if "true_fat_fraction_percent" in row]
    figure = empty_figure(8.0 if paired else 4.2, 3.6)
    axes = figure.add_subplot(1, 2 if paired else 1, 1)
    spread = np.random.default_rng(0).uniform(-0.15, 0.15, len(known))
    grades = np.array([float(row["grade"]) for row in known])
    axes.plot(grades + spread, [row["fat_fraction_percent"] for row in known], "o", color=PALETTE[0], markersize=3)
    axes.set_xticks(range(5))
    axes.set_xlabel("Goutallier's grade", fontsize=9)
    axes.set_ylabel("fat inside the contour, %", fontsize=9)
    tidy(axes)
    if paired:
        axes = figure.add_subplot(1, 2, 2)
        axes.plot([0, 100], [0, 100], color="#BBBBBB", linewidth=1.0, zorder=0)
        axes.plot([row["true_fat_fraction_percent"] for row in paired],
                  [row["fat_fraction_percent"] for row in paired], "o", color=PALETTE[1], markersize=3)  # fmt: skip
        axes.set_xlabel("true fat in the muscle, %", fontsize=9)
        axes.set_ylabel("fat inside the contour, %", fontsize=9)
        axes.set_box_aspect(1)
        tidy(axes)
    return to_png(figure)
