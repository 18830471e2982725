"""Pictures of classifiers show what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from medray.figures.classification import (
    auc_figure,
    bands_figure,
    confusion_figure,
    examples_figure,
    prediction_figure,
    roc_figure,
)
from medray.figures.drawing import to_png


def test_roc_leaves_out_labels_without_both_outcomes() -> None:
    truth = np.array([[0, 1], [1, 1], [0, 1], [1, 1]])
    figure = roc_figure(truth, np.array([[0.1, 0.2], [0.9, 0.3], [0.4, 0.1], [0.3, 0.6]]), ["nodule", "always"])
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert "nodule: 0.750" in lines
    assert not any(str(name).startswith("always") for name in lines)
    assert to_png(figure).startswith(b"\x89PNG")


def test_bands_hold_the_middle_of_each_class_at_every_point() -> None:
    curves = np.arange(11.0)[:, None] * np.array([1.0, 10.0])
    classes = np.array([0] * 11)
    figure = bands_figure({"holes": ([0, 255], curves)}, classes, ["normal"], coverage=0.4, one={"holes": [3, 4]})
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [5, 50])  # the median
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [3, 4])
    band = axes.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (3.0, 70.0)  # 30th and 70th percentile


def test_confusion_prints_counts_and_shares_of_the_row() -> None:
    figure = confusion_figure(np.array([[3, 1], [0, 0]]), ["a", "b"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["3\n75%", "1\n25%", "0\n0%", "0\n0%"]


def test_wrong_examples_have_a_frame() -> None:
    images = [np.zeros((1, 8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8)]
    figure = examples_figure(images, ["right", "wrong"], [True, False])
    assert [len(axes.patches) for axes in figure.axes] == [0, 1]


@pytest.mark.parametrize("count", [0, 1, 19])
def test_areas_and_predictions_of_any_number_of_labels(count: int) -> None:
    names = [f"label {index}" for index in range(count)]
    assert to_png(auc_figure(names, [(0.7, float("nan"), float("nan"))] * count))
    if count:
        figure = prediction_figure(np.random.default_rng(0).random((1, 6, 9)), names, [0.5] * count, title="a.png")
        assert len(figure.axes[1].patches) == count
        assert to_png(figure)
