"""Counts by hand, rules for empty masks, distances in mm."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.metrics.meandice import compute_dice
from torch import from_numpy

from medray.metrics.segmentation import Confusion, confusion, dice, hausdorff_mm, pooled

EMPTY = np.zeros((4, 5), dtype=np.uint8)
SQUARE = EMPTY.copy()
SQUARE[1:3, 1:3] = 1


def test_counts_and_rates_by_hand() -> None:
    shifted = np.roll(SQUARE, 1, axis=1)  # two of four pixels stay
    counts = confusion(shifted, SQUARE)
    assert counts == Confusion(tp=2, fp=2, fn=2, tn=14)
    expected = {"dice": 0.5, "iou": 1 / 3, "sensitivity": 0.5, "specificity": 14 / 16, "precision": 0.5}
    assert counts.rates() == pytest.approx({**expected, "accuracy": 16 / 20})


def test_pooling_adds_before_it_divides() -> None:
    counts = [Confusion(tp=1, fn=1), Confusion(tp=98)]
    assert pooled(counts)["dice"] == pytest.approx(2 * 99 / (2 * 99 + 1))
    assert math.isnan(pooled([])["dice"])


@given(st.integers(0, 2**31))
def test_dice_is_monais(seed: int) -> None:
    generator = np.random.default_rng(seed)
    ours, theirs = (generator.random((2, 6, 6)) < 0.4).astype(np.float32)
    reference = float(compute_dice(from_numpy(ours[None, None]), from_numpy(theirs[None, None])).item())
    assert dice(ours, theirs) == pytest.approx(reference, abs=1e-6, nan_ok=True)


def test_empty_images_follow_the_rule_asked_for() -> None:
    assert math.isnan(dice(EMPTY, EMPTY))
    assert dice(EMPTY, EMPTY, both_empty=1.0) == 1.0
    assert dice(SQUARE, EMPTY, both_empty=1.0) == 0.0


def test_hausdorff_is_in_mm() -> None:
    moved = np.roll(SQUARE, 1, axis=0)
    assert hausdorff_mm(moved, SQUARE, (3.0, 0.5)) == pytest.approx(3.0)
    assert hausdorff_mm(np.roll(SQUARE, 2, axis=1), SQUARE, (3.0, 0.5)) == pytest.approx(1.0)
    assert hausdorff_mm(EMPTY, SQUARE, (3.0, 4.0)) == pytest.approx(math.hypot(12, 20))
    assert math.isnan(hausdorff_mm(EMPTY, EMPTY, (1.0, 1.0)))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(4, 5\).*\(4, 4\)"):
        confusion(EMPTY, EMPTY[:, :4])
