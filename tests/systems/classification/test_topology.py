"""Betti curves: shapes whose pieces and holes can be counted by eye, and agreement with GUDHI."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medray.systems.classification.topology import betti_curves, own_grid, persistence_bars, silhouette

gudhi = pytest.importorskip("gudhi")


def test_shapes_by_eye() -> None:
    ring = np.array([[1, 1, 1, 9], [1, 5, 1, 9], [1, 1, 1, 2]])
    # up to 1: a ring around a hole; 2: a pixel beside it touches; 5: the hole is filled; 9: everything
    np.testing.assert_array_equal(betti_curves(ring, [0, 1, 2, 5, 9]), [[0, 1, 1, 1, 1], [0, 1, 1, 0, 0]])
    corners = np.array([[0, 1], [1, 0]])
    np.testing.assert_array_equal(betti_curves(corners, [0]), [[1], [0]])  # they touch at a corner: one piece
    diamond = np.array([[9, 0, 9], [0, 9, 0], [9, 0, 9]])
    np.testing.assert_array_equal(betti_curves(diamond, [0, 9]), [[1, 1], [1, 0]])


@given(st.integers(0, 10_000), st.integers(1, 24), st.integers(1, 24), st.sampled_from([3, 12, 256]))
def test_agrees_with_gudhi(seed: int, rows: int, columns: int, num_values: int) -> None:
    values = np.random.default_rng(seed).integers(0, num_values, size=(rows, columns))
    thresholds = np.linspace(0, num_values - 1, 7)
    complex_ = gudhi.CubicalComplex(top_dimensional_cells=values.astype(float))
    complex_.compute_persistence()
    found = betti_curves(values, thresholds)
    for dimension in (0, 1):
        bars = complex_.persistence_intervals_in_dimension(dimension).reshape(-1, 2)
        expected = [((bars[:, 0] <= t) & (t < bars[:, 1])).sum() for t in thresholds]
        np.testing.assert_array_equal(found[dimension], expected)


@given(st.integers(0, 1000))
def test_curves_do_not_change_when_the_image_is_turned_or_flipped(seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, size=(9, 14))
    thresholds = np.linspace(0, 255, 20)
    reference = betti_curves(values, thresholds)
    for turned in (values[::-1], values[:, ::-1], values.T, np.rot90(values)):
        np.testing.assert_array_equal(betti_curves(turned, thresholds), reference)


def test_own_grid_goes_from_the_first_birth_to_the_last_death() -> None:
    values = np.random.default_rng(3).integers(20, 200, size=(16, 16))
    for dimension, grid in enumerate(own_grid(values, 100)):
        bars = persistence_bars(values, dimension)
        assert (grid[0], grid[-1], len(grid)) == (bars[:, 0].min(), bars[:, 1].max(), 100)
    flat = own_grid(np.full((4, 4), 7), 5)
    assert flat[0][0] == flat[1][0] == 7


def test_silhouette_by_hand() -> None:
    bars = np.array([[0.0, 4.0], [2.0, 4.0], [3.0, 3.0]])
    # triangles 0 1 2 1 0 and 0 0 0 1 0, weights 4 and 2; a bar without length counts for nothing
    np.testing.assert_allclose(silhouette(bars, np.linspace(0, 4, 5), 1.0) * 6, [0, 4, 8, 6, 0], atol=1e-9)
    assert not silhouette(np.empty((0, 2)), np.linspace(0, 4, 5), 1.0).any()


def test_what_has_no_curves() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4, 4\)"):
        betti_curves(np.zeros((3, 4, 4)), [0])
    with pytest.raises(ValueError, match="ascend"):
        betti_curves(np.zeros((4, 4)), [1, 0])
