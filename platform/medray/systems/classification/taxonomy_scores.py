"""Scores and pictures of a taxonomy's probabilities: Chen et al., MIDL 2019, sec. 3.

Shape letters: N cases, M nodes. A node that a model has no output for is nan in the scores.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medray.data.case import Case
from medray.figures.classification import auc_figure, examples_figure, roc_figure
from medray.figures.drawing import to_png
from medray.metrics.classification import auc_per_label, average_precision_per_label, mean_defined
from medray.metrics.delong import delong_interval
from medray.system import Figure, Row
from medray.systems.classification.taxonomy import Taxonomy

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
_SMALLEST = 1e-7  # of a probability, in the log loss
_ROUNDING = 1e-6  # a child's probability above its parent's by less than this is rounding


def summarize(taxonomy: Taxonomy, labels: BoolArray, scores: FloatArray) -> dict[str, float]:
    """Means over labels as in table 1, and how often a child is likelier than its parent.

    Args:
        taxonomy: of M nodes.
        labels: (N, M).
        scores: (N, M) probabilities; nan at nodes without an output.

    Returns:
        auc and ap of leaves, of higher nodes and of leaves on the images with any finding; labels without both
        outcomes are left out and counted.
    """
    leaves, abnormal = taxonomy.leaves, labels.any(axis=1)
    known = np.isfinite(scores).all(axis=0)
    found: dict[str, float] = {}
    for name, nodes, images in (
        ("leaf", leaves, np.ones_like(abnormal)),
        ("high", ~leaves & known, np.ones_like(abnormal)),
        ("leaf_abnormal", leaves, abnormal),
    ):
        if nodes.any() and (name != "leaf_abnormal" or not abnormal.all()):
            part = labels[images][:, nodes], scores[images][:, nodes]
            found[f"auc_{name}"] = mean_defined(auc_per_label(*part))
            found[f"ap_{name}"] = mean_defined(average_precision_per_label(*part))
    found["num_undefined_labels"] = float((labels[:, known].all(axis=0) | ~labels[:, known].any(axis=0)).sum())
    found["log_loss"] = float(_entropy(labels[:, known], scores[:, known]).mean())
    if taxonomy.edges and known.all():
        found["violations_percent"] = 100 * float(_violations(taxonomy, scores).mean())
    return found


def _violations(taxonomy: Taxonomy, scores: FloatArray) -> BoolArray:
    """Where a child is likelier than its parent, (N, edges)."""
    child, parent = (list(side) for side in zip(*taxonomy.edges, strict=True))
    return np.asarray(scores[:, child] > scores[:, parent] + _ROUNDING)


def case_rows(cases: Sequence[Case], taxonomy: Taxonomy, labels: BoolArray, scores: FloatArray) -> list[Row]:
    """Per case the true leaves, its mean log loss, and all probabilities in one cell, as JSON."""
    rows: list[Row] = []
    for case, truth, score in zip(cases, labels, scores, strict=True):
        known = np.isfinite(score)
        there = [taxonomy.names[node] for node in np.nonzero(truth & taxonomy.leaves)[0]]
        told = {taxonomy.names[node]: float(score[node]) for node in np.nonzero(known)[0]}
        row: Row = {"case": case.id, "true": " ".join(there) or "none"}
        row["log_loss"] = float(_entropy(truth[known], score[known]).mean())
        rows.append({**row, "probabilities": json.dumps(told)})
    return rows


def _entropy(labels: BoolArray, scores: FloatArray) -> FloatArray:
    clipped = np.clip(scores, _SMALLEST, 1 - _SMALLEST)
    return np.asarray(np.where(labels, -np.log(clipped), -np.log1p(-clipped)))


def figures(tag: str, cases: Sequence[Case], taxonomy: Taxonomy, labels: BoolArray, scores: FloatArray) -> list[Figure]:
    """Areas with DeLong's intervals, ROC curves of higher nodes (of all without a tree), and examples.

    Args:
        tag: the model's name, in captions and file names.
        cases: N of them.
        taxonomy: of M nodes.
        labels: (N, M).
        scores: (N, M) probabilities.
    """
    known = np.isfinite(scores).all(axis=0) & labels.any(axis=0) & ~labels.all(axis=0)
    nodes = np.nonzero(known)[0]
    names = [taxonomy.names[node].replace("_", " ") for node in nodes]
    areas = [delong_interval(labels[:, node], scores[:, node]) for node in nodes]
    found = [
        Figure(
            f"auc_{tag}",
            f"Area under the ROC curve of every label with DeLong's 95 % interval: {tag}",
            to_png(auc_figure(names, areas, title=tag)),
        )
    ]
    shown = [node for node in nodes if not taxonomy.edges or not taxonomy.leaves[node]]
    if shown:
        tops = [taxonomy.names[node].replace("_", " ") for node in shown]
        roc = roc_figure(labels[:, shown], scores[:, shown], tops, title=tag)
        found.append(Figure(f"roc_{tag}", f"ROC curves: {tag}", to_png(roc)))
    return [*found, _examples(tag, cases, taxonomy, labels, scores)]


def _examples(tag: str, cases: Sequence[Case], taxonomy: Taxonomy, labels: BoolArray, scores: FloatArray) -> Figure:
    """Some images with findings and some others, each with its likeliest leaf."""
    sick = labels[:, taxonomy.leaves].sum(axis=1) > 0
    groups = [np.nonzero(group)[0] for group in (sick, ~sick) if group.any()]
    spread = [group[np.linspace(0, len(group) - 1, min(len(group), 8 // len(groups))).astype(int)] for group in groups]
    chosen = np.concatenate(spread)
    leaves = np.nonzero(taxonomy.leaves)[0]
    captions, right = [], []
    for index in chosen:
        best = leaves[int(scores[index, leaves].argmax())]
        there = [taxonomy.names[node].replace("_", " ") for node in leaves if labels[index, node]]
        captions.append(
            f"{', '.join(there) or 'no finding'}\nlikeliest: {taxonomy.names[best].replace('_', ' ')} "
            f"{scores[index, best]:.2f}"
        )
        right.append(bool(labels[index, best]) or not there)
    images = [cases[index].volume("image").array for index in chosen]
    figure = examples_figure(images, captions, right, title="above: what is there; below: the likeliest leaf")
    caption = f"Test images; a dashed frame where the likeliest leaf is not there: {tag}"
    return Figure(f"examples_{tag}", caption, to_png(figure))
