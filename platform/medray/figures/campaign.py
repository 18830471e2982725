"""Pictures of active learning: scores against labels, critic scores, what was picked, and what a round costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medray.figures.drawing import PALETTE
from medray.figures.style import empty_figure, line_style, tidy
from medray.figures.views import View, views

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Sequence[tuple[int, float]]
"""Numbers of labels and the metric there."""

_Place = Literal["outside right upper", "outside lower center"]
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_HATCHES = ("", "///", "...", "xxx", "\\\\\\", "+++", "ooo", "---")
_LABELLED, _UNLABELLED, _PICKED = PALETTE[1], PALETTE[0], PALETTE[5]
_COVERAGE = 0.95
_SEEDS_FOR_BAND = 3
_PICK_INCHES = 1.5
_CAPTION_LETTERS = 22
_GAP = 0.04


@dataclass(frozen=True)
class RoundScores:
    """What a sampler said in a round, counted in bins; smaller is more wanted.

    Attributes:
        title: "round 3".
        edges: of the bins, one more than there are.
        unlabelled: unlabelled cases in each bin, the picked ones too.
        labelled: likewise; may be all 0.
        cut: the largest score that was picked; nan where none was.
    """

    title: str
    edges: Sequence[float]
    unlabelled: Sequence[int]
    labelled: Sequence[int]
    cut: float


@dataclass(frozen=True)
class Pick:
    """A case that was picked.

    Attributes:
        image: (H, W), 0 to 1.
        caption: one or two lines below it: the case and its score.
        auxiliary: of the same size, shown beside it.
        label: of the same size; everything that is not 0 is outlined in both.
    """

    image: NDArray[Any]
    caption: str
    auxiliary: NDArray[Any] | None = None
    label: NDArray[Any] | None = None


def label_curves(curves: Mapping[str, Sequence[Curve]], *, metric: str, title: str = "") -> Figure:
    """A metric against the number of labels, one line per sampler.

    The line is the mean over seeds where every seed has a value, the band its 95 % interval by Student's t (three seeds
    or more: with two it says nothing); faint lines are the seeds themselves.

    Args:
        curves: sampler -> a curve per seed.
        metric: what the vertical axis is called.
        title: above the panel.

    Raises:
        ValueError: no curve has a point.
    """
    from matplotlib.ticker import MaxNLocator

    if not any(len(curve) for seeds in curves.values() for curve in seeds):
        raise ValueError("label curves need at least one point")
    figure = empty_figure(6.6, 3.9)
    axes = figure.add_subplot()
    for index, (name, seeds) in enumerate(curves.items()):
        _draw_sampler(axes, index, name, seeds)
    axes.set_xlabel("labelled cases", fontsize=9)
    axes.set_ylabel(metric, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    tidy(axes)
    _shared_legend(figure, "outside right upper")
    if title:
        axes.set_title(title, fontsize=10)
    return figure


def mean_curve(seeds: Sequence[Curve]) -> list[tuple[int, float, float]]:
    """Labels, mean and half the width of its 95 % interval, wherever every seed has a value; nan with one seed."""
    tables = [dict(curve) for curve in seeds if len(curve)]
    shared = sorted(set.intersection(*map(set, tables))) if tables else []
    found = []
    for count in shared:
        values = [table[count] for table in tables]
        half = math.nan
        if len(values) > 1:
            reach = stats.t.ppf((1 + _COVERAGE) / 2, len(values) - 1)
            half = float(reach * np.std(values, ddof=1) / math.sqrt(len(values)))
        found.append((count, float(np.mean(values)), half))
    return found


def _draw_sampler(axes: Axes, index: int, name: str, seeds: Sequence[Curve]) -> None:
    style, drawn = line_style(index), [curve for curve in seeds if len(curve)]
    if len(drawn) > 1:
        for curve in drawn:
            axes.plot(*zip(*curve, strict=True), color=style["color"], linewidth=0.6, alpha=0.3)
    middle = np.array(mean_curve(drawn)).reshape(-1, 3)
    if len(middle):
        counts, mean, half = middle.T
        told = f"{name} ({len(drawn)} seed{'s' if len(drawn) > 1 else ''})"
        marker = _MARKERS[index % len(_MARKERS)]
        axes.plot(counts, mean, marker=marker, markersize=4.5, linewidth=1.7, label=told, **style)
        if len(drawn) >= _SEEDS_FOR_BAND:
            axes.fill_between(counts, mean - half, mean + half, color=style["color"], alpha=0.12, linewidth=0)


def score_histograms(rounds: Sequence[RoundScores], *, score: str = "critic score", title: str = "") -> Figure:
    """Scores of labelled and unlabelled cases, and the tail that was picked (M-VAAL, fig. 2), one panel per round.

    Args:
        rounds: at least one.
        score: what the horizontal axis is called.
        title: above everything.
    """
    columns = min(3, len(rounds))
    rows = math.ceil(len(rounds) / columns)
    figure = empty_figure(3.5 * columns + 0.4, 2.5 * rows + 0.7)
    for number, one in enumerate(rounds):
        axes = figure.add_subplot(rows, columns, number + 1)
        _draw_scores(axes, one)
        axes.set_title(one.title, fontsize=9)
        axes.set_xlabel(score, fontsize=8)
        if number % columns == 0:
            axes.set_ylabel("% of its group", fontsize=8)
    _shared_legend(figure, "outside lower center")
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _draw_scores(axes: Axes, one: RoundScores) -> None:
    groups = {"unlabelled": np.asarray(one.unlabelled, dtype=float), "labelled": np.asarray(one.labelled, dtype=float)}
    for (name, counts), color, hatch in zip(groups.items(), (_UNLABELLED, _LABELLED), ("", "////"), strict=True):
        if counts.sum():
            look: dict[str, Any] = {"facecolor": (color, 0.3), "edgecolor": color, "linewidth": 1.1, "hatch": hatch}
            axes.stairs(100 * counts / counts.sum(), one.edges, fill=True, label=name, **look)
    if math.isfinite(one.cut):
        axes.axvspan(one.edges[0], one.cut, color=_PICKED, alpha=0.12, linewidth=0, zorder=0)
        axes.axvline(one.cut, color=_PICKED, linestyle="--", linewidth=1.3, label="up to here picked")
    tidy(axes)
    axes.set_axisbelow(True)


def gallery(rounds: Mapping[str, Sequence[Pick]], *, turned: bool = False, title: str = "") -> Figure:
    """What was picked, one row per round, the most wanted first; auxiliary images stand to the right of their image.

    Args:
        rounds: name -> its first picks.
        turned: images are axial slices with axes Right and Anterior and are turned as radiologists read them; else
            (rows, columns).
        title: above everything.

    Raises:
        ValueError: no picks.
    """
    columns = max((len(picks) for picks in rounds.values()), default=0)
    if not columns:
        raise ValueError("a gallery needs at least one picked case")
    paired = any(pick.auxiliary is not None for picks in rounds.values() for pick in picks)
    width = _PICK_INCHES * (2 + _GAP if paired else 1.15)
    figure = empty_figure(width * columns + 0.4, (_PICK_INCHES + 0.45) * len(rounds) + 0.4 * bool(title))
    cells: Any = figure.subplots(len(rounds), columns, squeeze=False)
    for row, (name, picks) in zip(cells, rounds.items(), strict=True):
        for axes in row[len(picks) :]:
            axes.set_axis_off()
        for axes, pick in zip(row, picks, strict=False):
            _draw_pick(axes, pick, turned)
        row[0].set_ylabel(name, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _draw_pick(axes: Axes, pick: Pick, turned: bool) -> None:
    (view,) = views(pick.image.shape, affine=np.eye(4) if turned else None)
    shown = [image for image in (pick.image, pick.auxiliary) if image is not None]
    page = _side_by_side(view, shown, fill=1.0)
    axes.imshow(page, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    if pick.label is not None and np.any(pick.label):
        inside = _side_by_side(view, [np.asarray(pick.label) != 0] * len(shown), fill=0.0)
        axes.contour(inside, levels=[0.5], colors=[_LABELLED], linewidths=1.0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_xlabel("\n".join(map(_shortened, pick.caption.split("\n"))), fontsize=7, labelpad=2)


def _shortened(line: str) -> str:
    """A long name without its middle."""
    over = len(line) - _CAPTION_LETTERS
    if over <= 0:
        return line
    start = _CAPTION_LETTERS // 2
    return f"{line[:start]}…{line[start + over + 1 :]}"


def _side_by_side(view: View, images: Sequence[NDArray[Any]], fill: float) -> NDArray[np.float64]:
    """Pages with a strip between them."""
    pages = [view.plane(np.asarray(image, dtype=float)) for image in images]
    strip = np.full((len(pages[0]), max(1, round(_GAP * pages[0].shape[1]))), fill)
    return np.concatenate([part for page in pages for part in (strip, page)][1:], axis=1)


def class_mix(picks: Mapping[str, Sequence[Mapping[str, int]]], pool: Mapping[str, int], *, title: str = "") -> Figure:
    """Shares of the classes in the picks of every round, beside the whole pool's; one panel per sampler.

    Args:
        picks: sampler -> class -> number of picks, per round. A case with several classes counts in each of them.
        pool: class -> number of cases, in the order of drawing.
        title: above everything.
    """
    columns = min(3, len(picks))
    rows = math.ceil(len(picks) / columns)
    longest = max((len(rounds) for rounds in picks.values()), default=0)
    figure = empty_figure((1.4 + 0.42 * longest) * columns + 1.6, 2.5 * rows + 0.3)
    for number, (name, rounds) in enumerate(picks.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        places = [0.0, *(index + 1.5 for index in range(len(rounds)))]
        shares = [[100 * one.get(label, 0) / max(sum(one.values()), 1) for label in pool] for one in (pool, *rounds)]
        _stack(axes, places, dict(zip(pool, np.array(shares).T.tolist(), strict=True)))
        axes.set_xticks(places, ["pool", *map(str, range(len(rounds)))])
        axes.set_xlabel("picks of round", fontsize=8)
        axes.set_title(name, fontsize=9)
        axes.set_ylim(0, 100)
        if number % columns == 0:
            axes.set_ylabel("share (%)", fontsize=8)
    _shared_legend(figure, "outside right upper", upside_down=True)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def round_costs(rounds: Sequence[Mapping[str, float]], *, title: str = "") -> Figure:
    """Seconds of each part of every round, stacked.

    Args:
        rounds: part -> seconds; parts are drawn in the order in which they first occur.
        title: above the panel.
    """
    parts = list(dict.fromkeys(part for one in rounds for part in one))
    places = list(range(len(rounds)))
    figure = empty_figure(2.9 + 0.5 * len(rounds), 3.2)
    axes = figure.add_subplot()
    _stack(axes, places, {part: [one.get(part, 0.0) for one in rounds] for part in parts})
    axes.set_xticks(places)
    axes.set_xlabel("round", fontsize=8)
    axes.set_ylabel("seconds", fontsize=8)
    _shared_legend(figure, "outside right upper", upside_down=True)
    if title:
        axes.set_title(title, fontsize=10)
    return figure


def _stack(axes: Axes, places: Sequence[float], layers: Mapping[str, Sequence[float]]) -> None:
    """Bars of layers, the first one at the bottom."""
    bottom = np.zeros(len(places))
    for index, (name, heights) in enumerate(layers.items()):
        look: dict[str, Any] = {"color": PALETTE[index % len(PALETTE)], "hatch": _HATCHES[index % len(_HATCHES)]}
        axes.bar(places, heights, 0.8, bottom, label=name, edgecolor="white", linewidth=0.5, **look)
        bottom += np.asarray(heights, dtype=float)
    tidy(axes)
    axes.set_axisbelow(True)


def _shared_legend(figure: Figure, place: _Place, *, upside_down: bool = False) -> None:
    """One legend for all panels; ``upside_down`` as stacked bars lie."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        handles, names = axes.get_legend_handles_labels()
        entries.update(zip(names, handles, strict=True))
    told = list(entries)[:: -1 if upside_down else 1]
    columns = len(told) if "center" in place else 1
    figure.legend([entries[name] for name in told], told, loc=place, ncols=columns, fontsize=8, frameon=False)
