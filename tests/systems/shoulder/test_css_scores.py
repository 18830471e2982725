"""Scores of slices with few or no pixels of a class, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medray.systems.shoulder.css_scores import as_row, class_counts, slice_scores, summarize

TORN = np.array([[0, 1, 2, 2]])
WHOLE = np.array([[0, 1, 1, 0]])
EMPTY = np.zeros((1, 4), int)


def _summary(*slices: tuple[NDArray[Any], NDArray[Any]]) -> dict[str, float]:
    return summarize([as_row("a", *one) for one in slices], [class_counts(*one) for one in slices])


def test_one_slice_by_hand() -> None:
    found = slice_scores(np.array([[0, 1, 1, 2]]), TORN)
    assert found["iou_background"] == 1.0
    assert found["iou_tendon"] == pytest.approx(1 / 2)
    assert found["iou_tear"] == pytest.approx(1 / 2)
    assert found["tear_sensitivity"] == pytest.approx(1 / 2)
    assert found["miou"] == pytest.approx(2 / 3)


def test_a_class_that_is_not_there_has_no_score_and_one_not_found_has_zero() -> None:
    assert slice_scores(EMPTY, TORN)["iou_tear"] == 0.0
    assert math.isnan(slice_scores(EMPTY, WHOLE)["iou_tear"])
    assert math.isnan(slice_scores(TORN, WHOLE)["iou_tear"])
    assert slice_scores(EMPTY, EMPTY)["miou"] == 1.0


def test_false_tears_show_in_pooled_scores_alone() -> None:
    told = _summary((TORN, TORN), (TORN, WHOLE))
    assert told["iou_tear"] == 1.0
    assert told["iou_tear_pooled"] == pytest.approx(2 / 4)
    assert told["tear_sensitivity_pooled"] == 1.0
    assert told["false_tear_slices_percent"] == 100.0
    assert told["miou"] == pytest.approx((told["iou_background"] + told["iou_tendon"] + told["iou_tear"]) / 3)


def test_without_any_tear_nothing_is_said_of_it() -> None:
    told = _summary((EMPTY, EMPTY))
    assert "iou_tear" not in told
    assert told["miou"] == 1.0
