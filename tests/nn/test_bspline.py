"""B-spline grids against their definition, SciPy and SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline
from torch.testing import assert_close

from medray.nn.bspline import BSplineGrid, cubic_basis, refine

SHAPES = [((37, 50), 7), ((40, 40), 20), ((13, 18, 22), 5), ((9, 30), (3, 10))]


def ramp(shape: tuple[int, ...], spacing: tuple[float, ...], origin: float = 0.0) -> torch.Tensor:
    """2 + x_0 - 0.5 x_1 + ... on a lattice of the given spacing, float64, (1, 1, *shape)."""
    axes = [torch.arange(n, dtype=torch.float64) * s + origin for n, s in zip(shape, spacing, strict=True)]
    grids = torch.meshgrid(*axes, indexing="ij")
    return (2 + sum(g * (-0.5) ** d for d, g in enumerate(grids)))[None, None]


def test_one_knot_spreads_with_the_weights_of_the_cubic_spline():
    grid = BSplineGrid((8, 41), (4, 10), dtype=torch.float64)
    control = torch.zeros(1, 1, *grid.knots, dtype=torch.float64)
    control[0, 0, :, 2] = 6.0  # constant along axis 0
    row = grid.dense(control)[0, 0, 3]
    assert_close(row[[10, 20, 30]], torch.tensor([1.0, 4.0, 1.0], dtype=torch.float64))
    assert row[15].item() == pytest.approx(23 / 8)  # 6 * (3t^3 - 6t^2 + 4) / 6 at t = 1/2
    assert row[0].item() == row[40].item() == 0.0


@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
def test_constants_and_ramps_are_reproduced_to_the_border(shape, spacing):
    grid = BSplineGrid(shape, spacing, dtype=torch.float64)
    ones = torch.ones(1, 1, *grid.knots, dtype=torch.float64)
    assert_close(grid.dense(ones), torch.ones(1, 1, *shape, dtype=torch.float64))
    assert_close(grid.dense(ramp(grid.knots, grid.spacing)), ramp(shape, (1.0,) * len(shape)))


@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
@pytest.mark.parametrize("stride", [1, 2])
def test_adjoint_is_the_transpose(shape, spacing, stride):
    grid = BSplineGrid(shape, spacing, stride=stride, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    control = torch.randn(2, 3, *grid.knots, dtype=torch.float64, generator=generator)
    dense = torch.randn(2, 3, *grid.dense_shape, dtype=torch.float64, generator=generator)
    assert_close((grid.dense(control) * dense).sum(), (control * grid.adjoint(dense)).sum())


def test_adjoint_agrees_with_autograd():
    grid = BSplineGrid((15, 11), 4, dtype=torch.float64)
    control = torch.randn(1, 2, *grid.knots, dtype=torch.float64, requires_grad=True)
    dense = torch.randn(1, 2, 15, 11, dtype=torch.float64)
    grid.dense(control).backward(dense)
    assert_close(grid.adjoint(dense), control.grad)


@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
def test_adjoint_mean_of_a_constant_is_that_constant(shape, spacing):
    grid = BSplineGrid(shape, spacing, dtype=torch.float64)
    mean = grid.adjoint_mean(torch.full((1, 1, *shape), 3.0, dtype=torch.float64))
    assert_close(mean, torch.full((1, 1, *grid.knots), 3.0, dtype=torch.float64))


def test_interior_agrees_with_scipy():
    spacing, num_knots = 7.0, 9
    control = np.random.default_rng(1).normal(size=num_knots)
    positions = np.arange(7, 49, dtype=np.float64)  # at least one whole cell from either end
    knots = (np.arange(num_knots + 4) - 2.0) * spacing  # coefficient i is centered on knot i
    reference = BSpline(knots, control, 3)(positions)
    ours = cubic_basis(torch.from_numpy(positions), num_knots, spacing).numpy() @ control
    np.testing.assert_allclose(ours, reference, atol=1e-12)


def test_interior_agrees_with_simpleitk():
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    grid = BSplineGrid((31, 41), 10, dtype=torch.float64)  # knots (5, 6)
    control = torch.randn(1, 2, *grid.knots, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    transform = sitk.BSplineTransform(2, 3)
    # The mesh's 3 extra coefficients start one cell before the domain: put the domain from knot 1 to the last but one.
    transform.SetTransformDomainOrigin([10.0, 10.0])
    transform.SetTransformDomainMeshSize([grid.knots[1] - 3, grid.knots[0] - 3])
    transform.SetTransformDomainPhysicalDimensions([10.0 * (grid.knots[1] - 3), 10.0 * (grid.knots[0] - 3)])
    along_x, along_y = control[0, 1].numpy().ravel(), control[0, 0].numpy().ravel()
    transform.SetParameters(np.concatenate([along_x, along_y]).tolist())
    dense = grid.dense(control)[0]
    for row, column in [(10, 10), (13, 27), (25, 19), (28, 38)]:
        moved = transform.TransformPoint((float(column), float(row)))
        assert moved[1] - row == pytest.approx(dense[0, row, column].item(), abs=1e-9)
        assert moved[0] - column == pytest.approx(dense[1, row, column].item(), abs=1e-9)


def test_stride_evaluates_at_the_centers_of_pooled_pixels():
    full, pooled = (
        BSplineGrid((33, 40), 8, dtype=torch.float64),
        BSplineGrid((33, 40), 8, stride=2, dtype=torch.float64),
    )
    assert pooled.knots == full.knots
    assert pooled.dense_shape == (16, 20)
    assert_close(pooled.dense(ramp(full.knots, full.spacing))[0, 0], ramp((16, 20), (2.0, 2.0), 0.5)[0, 0])


@settings(max_examples=25, deadline=None)
@given(n=st.integers(9, 90), coarse=st.integers(4, 30), fine=st.integers(2, 12))
def test_refine_keeps_linear_fields(n, coarse, fine):
    shape = (n, n + 5)
    a, b = BSplineGrid(shape, coarse, dtype=torch.float64), BSplineGrid(shape, fine, dtype=torch.float64)
    assert_close(refine(ramp(a.knots, a.spacing), a, b), ramp(b.knots, b.spacing), atol=1e-8, rtol=1e-8)


def test_refine_to_nested_knots_keeps_the_whole_field():
    a, b = BSplineGrid((40, 60, 20), 20, dtype=torch.float64), BSplineGrid((40, 60, 20), 10, dtype=torch.float64)
    control = torch.randn(1, 3, *a.knots, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert_close(b.dense(refine(control, a, b)), a.dense(control))


def test_refine_passes_through_the_coarse_field_at_fine_knots():
    a, b = BSplineGrid((61, 61), 20, dtype=torch.float64), BSplineGrid((61, 61), 7, dtype=torch.float64)
    control = torch.randn(1, 2, *a.knots, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    assert_close(b.dense(refine(control, a, b))[..., ::7, ::7], a.dense(control)[..., ::7, ::7])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((10, 10), 0), "spacing must be positive"),
        (((10, 10), (5, 5, 5)), "one number per axis"),
        (((10, 0), 5), "positive axes"),
    ],
)
def test_bad_grids_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BSplineGrid(*arguments)


def test_wrong_control_shape_names_the_expected_one():
    grid = BSplineGrid((20, 20), 10)
    with pytest.raises(ValueError, match=r"\(B, C, 3, 3\), got \(1, 2, 4, 3\)"):
        grid.dense(torch.zeros(1, 2, 4, 3))
    with pytest.raises(ValueError, match="different images"):
        refine(torch.zeros(1, 2, 3, 3), grid, BSplineGrid((21, 20), 5))
