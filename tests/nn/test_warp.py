"""Warping: axis order, units, agreement with SciPy, composition and inversion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch.testing import assert_close

from medray.nn.bspline import BSplineGrid
from medray.nn.warp import compose, invert, pixel_grid, sample, warp


def smooth_field(shape: tuple[int, ...], peak_px: float, seed: int = 0) -> torch.Tensor:
    grid = BSplineGrid(shape, 12, dtype=torch.float64)
    control = torch.randn(
        1, len(shape), *grid.knots, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    field = grid.dense(control)
    return field * (peak_px / field.abs().max())


def test_component_zero_moves_along_rows():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    down = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 3, 4)
    assert_close(warp(image, down)[0, 0], torch.tensor([[4.0, 5, 6, 7], [8, 9, 10, 11], [8, 9, 10, 11]]))
    right = torch.tensor([0.0, 0.5]).view(1, 2, 1, 1).expand(1, 2, 3, 4)
    assert_close(warp(image, right)[0, 0, 0], torch.tensor([0.5, 1.5, 2.5, 3.0]))


@pytest.mark.parametrize("shape", [(23, 31), (9, 12, 15)])
@pytest.mark.parametrize(("mode", "order"), [("linear", 1), ("nearest", 0)])
def test_agrees_with_scipy(shape, mode, order):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 2, *shape, dtype=torch.float64, generator=generator)
    field = smooth_field(shape, 6.0) + 1e-3  # off the ties between two nearest pixels
    positions = (pixel_grid(shape, dtype=torch.float64) + field)[0].numpy()
    ours = warp(image, field, mode)
    for channel in range(2):
        reference = map_coordinates(image[0, channel].numpy(), positions, order=order, mode="nearest")
        np.testing.assert_allclose(ours[0, channel].numpy(), reference, atol=1e-9)


def test_labels_keep_their_type_and_values():
    labels = torch.tensor([[0, 7], [2**31 + 5, 3]]).view(1, 1, 2, 2)
    field = torch.zeros(1, 2, 2, 2)
    field[:, 1] = 0.7
    warped = warp(labels, field, "nearest")
    assert warped.dtype == torch.int64
    assert warped[0, 0].tolist() == [[7, 7], [3, 3]]
    assert torch.equal(warp(labels, torch.zeros(1, 2, 2, 2), "nearest"), labels)


def test_sample_reads_points_in_a_volume():
    volume = torch.arange(24.0).view(1, 1, 2, 3, 4)
    point = torch.tensor([0.5, 1.0, 2.25]).view(1, 3, 1, 1, 1)
    assert sample(volume, point).item() == pytest.approx(0.5 * 12 + 4 + 2.25)


@pytest.mark.parametrize("shape", [(40, 44), (20, 22, 24)])
def test_inverse_undoes_the_field_inside(shape):
    field = smooth_field(shape, 2.0)
    inner = (..., *(slice(5, -5),) * len(shape))
    for round_trip in (compose(field, invert(field)), compose(invert(field), field)):
        assert round_trip[inner].abs().max() < 0.05


def test_compose_warps_by_the_first_then_by_the_second():
    axes = pixel_grid((40, 40), dtype=torch.float64)
    image = (0.7 * axes[:, :1] - 0.2 * axes[:, 1:]) + 3  # linear, so that interpolation is exact
    first, second = smooth_field((40, 40), 2.0, seed=1), smooth_field((40, 40), 2.0, seed=2)
    two_steps, one_step = warp(warp(image, first), second), warp(image, compose(first, second))
    assert_close(two_steps[..., 5:-5, 5:-5], one_step[..., 5:-5, 5:-5])


@pytest.mark.parametrize(
    ("image", "field", "message"),
    [
        (torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 8, 8), r"\(1, 3, 8, 8\)"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(1, 2, 8, 8), "2 and displacement 1 batch"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int64), torch.zeros(1, 2, 8, 8), "nearest"),
    ],
)
def test_wrong_input_is_refused(image, field, message):
    with pytest.raises(ValueError, match=message):
        warp(image, field)
