"""Registration metrics against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from medray.metrics.registration import (
    dice_per_label,
    end_point_error_px,
    folded_fraction,
    folded_pixels,
    jacobian_determinant,
    landmark_distance_mm,
    warp_labels,
)
from medray.nn.warp import pixel_grid


def linear_field(matrix: list[list[float]], shape: tuple[int, ...]) -> torch.Tensor:
    return torch.einsum("ij,bj...->bi...", torch.tensor(matrix), pixel_grid(shape))


@pytest.mark.parametrize(
    ("matrix", "shape", "expected"),
    [
        ([[0.0, 0.0], [0.0, 0.0]], (5, 6), 1.0),
        ([[0.2, 0.1], [0.3, -0.5]], (5, 6), 1.2 * 0.5 - 0.1 * 0.3),
        ([[1.0, 0, 0], [0, 0.5, 0], [0, 0, 0]], (4, 5, 6), 3.0),
        ([[0, 0.5, 0], [-0.5, 0, 0], [0, 0, -1.5]], (4, 5, 6), -0.5 * 1.25),
    ],
)
def test_jacobian_of_linear_fields(matrix, shape, expected):
    determinant = jacobian_determinant(linear_field(matrix, shape))
    assert_close(determinant, torch.full((1, *shape), expected))


def test_folding_counts_zero_and_negative_determinants():
    field = torch.zeros(2, 2, 4, 10)
    field[1, 1] = torch.tensor([0.0, 0, 0, 0, 0, 0, -1, -2, -3, -4])  # slope -1 from column 6 on
    folded, count = folded_pixels(field)
    assert folded.tolist() == [0, 4 * 4]
    assert count.tolist() == [40, 40]
    mask = torch.zeros(4, 10, dtype=torch.bool)
    mask[:, 8:] = True
    assert folded_fraction(field, mask).tolist() == [0.0, 1.0]


def test_end_point_error_is_summed_per_case_under_the_mask():
    truth = torch.zeros(2, 2, 3, 3)
    estimate = truth.clone()
    estimate[0, 0], estimate[0, 1] = 3.0, 4.0
    estimate[1, 0, 0, 0] = 2.0
    mask = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 0]])
    total, count = end_point_error_px(estimate, truth, mask)
    assert total.tolist() == [10.0, 2.0]
    assert count.tolist() == [2, 2]
    total, count = end_point_error_px(estimate, truth)
    assert (total / count).tolist() == pytest.approx([5.0, 2 / 9])


def test_end_point_error_ignores_nan_outside_the_mask():
    estimate = torch.full((1, 2, 2, 2), math.nan)
    estimate[..., 0, 0] = 1.0
    total, _ = end_point_error_px(estimate, torch.zeros(1, 2, 2, 2), torch.tensor([[1, 0], [0, 0]]))
    assert total.item() == pytest.approx(math.sqrt(2))


def test_landmarks_are_measured_in_mm_and_missing_ones_are_nan():
    field = torch.zeros(3, 6, 6, 6)
    field[0], field[2] = 1.0, -2.0
    fixed = torch.tensor([[2.0, 2, 2], [2.5, 3, 4], [math.nan, 1, 1]])
    moving = torch.tensor([[3.0, 2, 0], [2.5, 3, 4], [1.0, 1, 1]])
    distance = landmark_distance_mm(field, fixed, moving, (3.0, 1.0, 2.0))
    assert distance[0].item() == 0.0
    assert distance[1].item() == pytest.approx(5.0)  # (1 px * 3 mm, 0, 2 px * 2 mm)
    assert math.isnan(distance[2])


def test_dice_tells_absent_from_missed():
    warped = torch.tensor([[[1, 1, 0, 0], [0, 0, 2, 0]]])
    fixed = torch.tensor([[[1, 0, 0, 0], [0, 0, 0, 0]]])
    scores = dice_per_label(warped, fixed, (1, 2, 3))[0]
    assert scores[0].item() == pytest.approx(2 / 3)
    assert scores[1].item() == 0.0
    assert math.isnan(scores[2])


def test_labels_are_carried_by_the_field():
    labels = torch.zeros(1, 6, 6, dtype=torch.uint8)
    labels[0, 2:4, 3:5] = 9
    field = torch.zeros(1, 2, 6, 6)
    field[:, 0], field[:, 1] = 1.0, 2.0
    expected = torch.zeros(1, 6, 6, dtype=torch.uint8)
    expected[0, 1:3, 1:3] = 9
    assert torch.equal(warp_labels(labels, field), expected)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 4\)"):
        jacobian_determinant(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="same shape"):
        end_point_error_px(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 5))
    with pytest.raises(ValueError, match="same shape"):
        dice_per_label(torch.zeros(1, 4, 4), torch.zeros(1, 4, 5), (1,))
    with pytest.raises(ValueError, match=r"\(N, 2\)"):
        landmark_distance_mm(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3), torch.zeros(1, 3), (1.0, 1.0))
    with pytest.raises(ValueError, match="spacing needs 2"):
        landmark_distance_mm(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2), torch.zeros(1, 2), (1.0, 1.0, 1.0))
