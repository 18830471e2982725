"""Pictures of campaigns show what they are given."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from medray.figures.campaign import (
    Pick,
    RoundScores,
    class_mix,
    gallery,
    label_curves,
    mean_curve,
    round_costs,
    score_histograms,
)
from medray.figures.drawing import to_png


def _names(figure: Any) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_the_mean_over_seeds_and_its_interval() -> None:
    seeds = [[(100, 0.5), (200, 0.7)], [(100, 0.6), (200, 0.7)], [(100, 0.7)]]
    ((count, mean, half),) = mean_curve(seeds)  # 200 has no value of the third seed
    low, high = stats.t.interval(0.95, 2, loc=0.6, scale=stats.sem([0.5, 0.6, 0.7]))
    assert (count, mean) == (100, pytest.approx(0.6))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert math.isnan(mean_curve(seeds[:1])[0][2])
    assert mean_curve([[], []]) == []


def test_a_line_per_sampler_with_its_seeds() -> None:
    curves = {"mvaal": [[(100, 0.5), (200, 0.7)], [(100, 0.6), (200, 0.8)]], "random": [[(100, 0.4)]]}
    figure = label_curves(curves, metric="accuracy")
    axes = figure.axes[0]
    assert _names(figure) == ["mvaal (2 seeds)", "random (1 seed)"]
    lines = {str(line.get_label()): line for line in axes.lines}
    np.testing.assert_allclose(lines["mvaal (2 seeds)"].get_ydata(), [0.55, 0.75])
    faint = [line for line in axes.lines if line.get_alpha()]
    np.testing.assert_allclose([line.get_ydata() for line in faint], [[0.5, 0.7], [0.6, 0.8]])
    assert to_png(figure).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="at least one point"):
        label_curves({"mvaal": [[]]}, metric="accuracy")


def test_histograms_are_shares_of_their_group_and_mark_the_last_pick() -> None:
    edges = (-1.0, 0.0, 1.0, 2.0)
    rounds = [RoundScores("3", edges, (6, 2, 0), (0, 1, 3), -0.4), RoundScores("4", edges, (5, 0, 0), (0,) * 3, np.nan)]
    figure = score_histograms(rounds)
    shares = {patch.get_label(): patch.get_data().values for patch in figure.axes[0].patches[:2]}
    np.testing.assert_allclose(shares["unlabelled"], [75, 25, 0])
    np.testing.assert_allclose(shares["labelled"], [0, 25, 75])
    (marked,) = figure.axes[0].lines
    assert marked.get_xdata()[0] == -0.4
    assert not figure.axes[1].lines
    assert _names(figure) == ["unlabelled", "labelled", "up to here picked"]
    assert to_png(figure)


def test_a_gallery_has_images_beside_their_auxiliary_and_long_names_lose_their_middle() -> None:
    image, label = np.zeros((8, 10)), np.zeros((8, 10))
    label[2:4, 3:5] = 1
    name = "BRATS18_TCIA02_0117_slice_71"
    figure = gallery(
        {"round 1": [Pick(image, f"{name}\n-0.3", image + 1, label), Pick(image, "b")], "round 2": [Pick(image, "c")]}
    )
    first, second, _, empty = figure.axes
    (shown,) = first.images
    assert shown.get_array().shape == (8, 21)  # a strip of one pixel between
    np.testing.assert_array_equal(shown.get_array()[0, [0, 9, 11, 20]], [0, 0, 1, 1])
    caption = first.get_xlabel().split("\n")
    assert caption[1] == "-0.3"
    assert len(caption[0]) == 22
    assert caption[0].startswith("BRATS18_TCI")
    assert caption[0].endswith("slice_71")
    assert first.get_ylabel() == "round 1"
    assert second.images[0].get_array().shape == (8, 10)
    assert not empty.axison
    assert to_png(figure)
    with pytest.raises(ValueError, match="at least one picked case"):
        gallery({"round 1": []})


def test_a_gallery_turns_axial_slices_as_radiologists_read_them() -> None:
    image = np.zeros((6, 4))
    image[5, 3] = 1  # right and anterior
    (axes,) = gallery({"round 1": [Pick(image, "a")]}, turned=True).axes
    page = axes.images[0].get_array()
    assert page.shape == (4, 6)
    assert page[0, 0] == 1  # up, and on the left of the page


def _bars(axes: Any) -> dict[str, list[tuple[float, float]]]:
    """Bottom and height of each bar, by layer."""
    return {
        str(layer.get_label()): [(bar.get_y(), bar.get_height()) for bar in layer.patches] for layer in axes.containers
    }


def test_the_mix_of_classes_beside_the_pools() -> None:
    figure = class_mix({"mvaal": [{"covid": 3, "normal": 1}, {}]}, {"normal": 60, "covid": 40})
    bars = _bars(figure.axes[0])
    np.testing.assert_allclose(bars["normal"], [(0, 60), (0, 25), (0, 0)])
    np.testing.assert_allclose(bars["covid"], [(60, 40), (25, 75), (0, 0)])
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["pool", "0", "1"]
    assert _names(figure) == ["covid", "normal"]  # as they lie
    assert to_png(figure)


def test_costs_are_stacked() -> None:
    figure = round_costs([{"learner": 10, "sampler": 5}, {"learner": 12, "ranking": 2}])
    bars = _bars(figure.axes[0])
    assert bars["sampler"] == [(10, 5), (12, 0)]
    assert bars["ranking"] == [(15, 0), (12, 2)]
    assert _names(figure) == ["ranking", "sampler", "learner"]  # as they lie
    assert to_png(figure)
