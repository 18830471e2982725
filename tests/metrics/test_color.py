"""Distances of colors, seams and weighted Dice by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medray.metrics.color import color_counts, color_distance, seam_ratio, weighted_dice


def test_colors_that_are_moved_are_as_far_apart_as_they_were_moved() -> None:
    image = np.random.default_rng(0).integers(0, 200, (20, 30, 3)).astype(np.uint8)
    moved = image + np.array([10, 20, 30], dtype=np.uint8)
    counts = color_counts([image, image])
    assert counts.shape == (3, 256)
    assert counts.sum() == 3 * 2 * 600
    assert color_distance(counts, color_counts([moved])) == pytest.approx(20.0)
    assert color_distance(counts, color_counts([image])) == 0.0  # shares, not counts


def test_a_step_at_a_border_is_told_from_a_ramp() -> None:
    ramp = np.arange(12.0)[:, None, None].repeat(5, 1)
    assert seam_ratio(ramp, [4, 8]) == pytest.approx(1.0)
    stepped = ramp + 2.0 * (np.arange(12) >= 4)[:, None, None]
    assert seam_ratio(stepped, [4]) == pytest.approx(3.0)
    assert seam_ratio(stepped.transpose(1, 0, 2), [4], axis=1) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="none of the borders"):
        seam_ratio(ramp, [0, 12])


def test_classes_count_by_their_true_pixels() -> None:
    truth, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    # background 2 * 2 / 5, counted 3 times, and 2 / 3 once; class 2 does not occur
    assert weighted_dice(predicted, truth, (0, 1, 2)) == pytest.approx((3 * 0.8 + 2 / 3) / 4)
    assert np.isnan(weighted_dice(predicted, truth, (7,)))
