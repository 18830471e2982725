"""Pictures of a tear classifier: ROC and confusion, where it looked, table 3, and what compared variants reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure as Drawing

from medray.figures.attention import rendering, three_planes
from medray.figures.classification import confusion_figure, roc_figure
from medray.figures.drawing import PALETTE, to_png
from medray.figures.scene import make_scene
from medray.figures.style import empty_figure, tidy
from medray.metrics.classification import confusion_matrix
from medray.metrics.ordered import median_quartiles
from medray.system import Figure, Row
from medray.systems.shoulder.vrn_config import VrnConfig
from medray.systems.shoulder.vrn_evaluation import REPEATED, Scored, truth_of
from medray.systems.shoulder.vrn_labels import CLASSES

Groups = Mapping[str, Mapping[str, Sequence[float]]]
_SPELLED = {"top1": "top-1", "top1_within_1": "top-1 ± 1", "sensitivity": "sensitivity", "specificity": "specificity"}


def tag_of(config: VrnConfig) -> str:
    """What tells the pictures of compared variants apart."""
    blocks = f"{config.blocks}_{config.activation}" if config.arch == "vrn" else ""
    return f"{config.arch}{blocks}"


def score_figures(tag: str, rows: Sequence[Row], groups: Groups) -> list[Figure]:
    """ROC of tear against none with the readers' points, confusion of sizes, and table 3 where there are groups."""
    truth, p_tear = truth_of(rows), np.array([float(row["p_tear"]) for row in rows])
    predicted = [CLASSES.index(str(row["predicted"])) for row in rows]
    roc = roc_figure((truth > 0)[:, None], p_tear[:, None], ["tear against none"], title=tag)
    _add_readers(roc, groups)
    counts = confusion_matrix(truth, predicted, len(CLASSES))
    found = [
        Figure(f"roc_{tag}", "Tear against none on the test cases, by 1 - P(none)", to_png(roc)),
        Figure(f"confusion_{tag}", "Test cases by true and predicted size", to_png(confusion_figure(counts, CLASSES))),
    ]
    if groups:
        caption = "Median and quartiles over repetitions with dropout left on" + (
            ", and over the readers of each group" if len(groups) > 1 else ""
        )
        found.append(Figure(f"groups_{tag}", caption, to_png(groups_figure(groups))))
    return found


def _add_readers(figure: Drawing, groups: Groups) -> None:
    people = [(name, scores) for name, scores in groups.items() if name != "network"]
    for number, (name, scores) in enumerate(people, start=1):
        away = 1 - np.asarray(scores["specificity"])
        figure.axes[0].plot(
            away, scores["sensitivity"], "ox^sd"[number % 5], color=PALETTE[number % len(PALETTE)], label=name
        )
    if people:
        figure.axes[0].legend(fontsize=7, frameon=False, loc="lower right")


def groups_figure(groups: Groups, title: str = "") -> Drawing:
    """Scores of groups as median and quartiles, one panel for each score.

    Args:
        groups: group -> score -> values.
        title: above everything.
    """
    figure = empty_figure(2.3 * len(REPEATED) + 0.6, 0.3 * len(groups) + 1.3)
    for number, name in enumerate(REPEATED, start=1):
        axes = figure.add_subplot(1, len(REPEATED), number)
        for place, scores in enumerate(groups.values()):
            middle, low, high = median_quartiles(scores[name])
            color = PALETTE[place % len(PALETTE)]
            axes.hlines(place, low, high, color=color, linewidth=3, alpha=0.5)
            axes.plot(middle, place, "o", color=color, markersize=5)
            axes.text(1.03, place, f"{middle:.2f}", va="center", fontsize=7, transform=axes.get_yaxis_transform())
        axes.set_yticks(range(len(groups)), list(groups) if number == 1 else [""] * len(groups), fontsize=8)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel(_SPELLED[name], fontsize=8)
        tidy(axes)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def cam_figures(config: VrnConfig, tag: str, scored: Sequence[Scored]) -> list[Figure]:
    """For each case, three planes through the heat's peak with the volume to turn behind them, and a rendering."""
    found = []
    for number, one in enumerate(scored):
        row, cube, heat = one.row, one.cube, one.finding.shown(config)
        spacing = cube.grid.spacing
        title = f"{row['case']}: {row['true']}, predicted {row['predicted']}, P(tear) {one.finding.p_tear:.2f}"
        planes = three_planes(cube.gray, heat, spacing, mask=cube.tear, affine=cube.affine, title=title)
        scene = make_scene(cube.gray, heat, spacing, affine=cube.affine, mask=cube.tear)
        caption = f"{title}; where the network sees a tear, and the true tear's outline"
        found.append(Figure(f"cam_{tag}_{number}", caption, to_png(planes), scene=scene))
        turned = rendering(cube.gray, heat, spacing, affine=cube.affine, title=title)
        found.append(Figure(f"rendering_{tag}_{number}", f"{title}; the same as a volume", to_png(turned)))
    return found
