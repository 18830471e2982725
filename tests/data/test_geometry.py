"""Grids, placements and fields against hand-worked values, SimpleITK and the properties they must have."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import SimpleITK as _sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from medray.data.affines import Affine
from medray.data.case import Volume
from medray.data.formats.metaimage import to_image
from medray.data.geometry import (
    Grid,
    canonical,
    in_voxels,
    make_grid,
    placement,
    resample,
    to_original,
    warp,
    world_positions,
)
from medray.errors import UserError

# neither library says its types
sitk: Any = _sitk

RNG = np.random.default_rng(0)
CORONAL = np.array([[2.0, 0, 0, -5], [0, 0, 1, 40], [0, 3, 0, 7], [0, 0, 0, 1]])


Three = tuple[float, float, float]


def _affine(spacing: Three, order: tuple[int, int, int], flips: tuple[int, int, int], origin: Three) -> Affine:
    """Array axis a runs along world axis order[a], in direction flips[a]."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis in range(3):
        affine[order[axis], axis] = flips[axis] * spacing[axis]
    affine[:3, 3] = origin
    return affine


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    """Small random 3D images in any of the 48 orientations, with anisotropic voxels and sometimes a tilt."""
    size, length, place = st.integers(2, 7), st.floats(0.3, 4.0), st.floats(-50, 50)
    shape = draw(st.tuples(size, size, size))
    spacing = draw(st.tuples(length, length, length))
    order = draw(st.sampled_from([(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]))
    sign = st.sampled_from([-1, 1])
    flips = draw(st.tuples(sign, sign, sign))
    origin = draw(st.tuples(place, place, place))
    affine = _affine(spacing, order, flips, origin)
    angle = draw(st.sampled_from([0.0, 0.2]))
    tilt = np.eye(4)
    tilt[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    array = np.random.default_rng(draw(st.integers(0, 99))).random((1, *shape), dtype=np.float32)
    return Volume(array, tilt @ affine)


@given(volumes(), st.sampled_from([0, 1]))
def test_resampling_onto_its_own_grid_changes_nothing(volume: Volume, order: int) -> None:
    result = resample(volume, Grid.of(volume), order=order, fill=-9.0)  # type: ignore[arg-type]
    assert_allclose(result.array, volume.array, atol=1e-5)


@given(volumes())
def test_canonical_only_reorders(volume: Volume) -> None:
    turned = canonical(volume)
    assert_array_equal(np.sort(turned.array, axis=None), np.sort(volume.array, axis=None))
    assert (np.diag(turned.affine)[:3] > 0).all()
    back = resample(turned, Grid.of(volume))
    assert_allclose(back.array, volume.array, atol=1e-5)
    assert_array_equal(canonical(turned).array, turned.array)


@given(volumes())
@settings(max_examples=30)
def test_there_and_back(volume: Volume) -> None:
    """A linear function of the world position survives any change of grid that covers it."""
    ramp = Volume(world_positions(Grid.of(volume))[:1].astype(np.float32), volume.affine)
    fine = make_grid([ramp], spacing_mm=[0.5 * s for s in canonical(ramp).spacing])
    back = resample(resample(ramp, fine, fill=None), Grid.of(ramp))
    inner = tuple(slice(1, -1) if n > 2 else slice(None, 0) for n in volume.shape)
    assert_allclose(back.array[0][inner], ramp.array[0][inner], atol=1e-3 * max(1.0, float(np.abs(ramp.array).max())))


def test_canonical_by_hand(crooked: NDArray[np.float64]) -> None:
    volume = Volume(np.arange(24).reshape(1, 2, 3, 4), crooked)  # axes: left, superior, anterior
    turned = canonical(volume)
    assert turned.shape == (2, 4, 3)
    assert turned.array[0, 0, 0, 0] == volume.array[0, 1, 0, 0]  # the leftmost voxel comes first now
    expected = np.array([[3, 0, 0, 7], [0, 0.5, 0, -20], [0, 0, 2, 30], [0, 0, 0, 1]])
    assert_allclose(turned.affine, expected)


def test_canonical_2d_sorts_within_the_plane() -> None:
    flipped = CORONAL.copy()
    flipped[:, [0, 1]] = CORONAL[:, [1, 0]]  # (inferior to superior, left to right)
    turned = canonical(Volume(np.arange(6).reshape(1, 2, 3), flipped))
    assert_array_equal(turned.array[0], np.arange(6).reshape(2, 3).T)
    assert_allclose(turned.affine, CORONAL)


@pytest.mark.parametrize("order", [0, 1])
def test_resample_agrees_with_itk(crooked: NDArray[np.float64], order: int) -> None:
    volume = Volume(RNG.random((1, 8, 9, 10)).astype(np.float32), crooked)
    target = Grid(
        (7, 6, 11), crooked @ np.array([[0, 0.9, 0, 0.63], [0.8, 0, 0, 1.27], [0, 0, 0.7, 0.91], [0, 0, 0, 1]])
    )
    ours = resample(volume, target, order=order, antialias=False).array[0]  # type: ignore[arg-type]
    reference = to_image(Volume(np.zeros((1, *target.shape), np.float32), target.affine))
    method = sitk.sitkNearestNeighbor if order == 0 else sitk.sitkLinear
    theirs = sitk.GetArrayFromImage(sitk.Resample(to_image(volume), reference, sitk.Transform(), method)).transpose(
        2, 1, 0
    )
    assert_allclose(ours, theirs, atol=1e-5)


def test_fill_begins_half_a_voxel_outside() -> None:
    volume = Volume(np.array([[[1.0, 2.0]] * 2], dtype=np.float32), np.eye(4))
    affine = np.eye(4)
    affine[1, 1], affine[1, 3] = 0.25, -1.0
    row = resample(volume, Grid((1, 13), affine), fill=-7.0).array[0, 0]
    # y = -1 .. 2 in quarters; the image reaches from -0.5 to 1.5
    assert_allclose(row, [-7, -7, 1, 1, 1, 1.25, 1.5, 1.75, 2, 2, 2, -7, -7])
    assert resample(volume, Grid((1, 13), affine), fill=None).array.min() == 1.0


def test_integers_stay_integers_and_labels_are_never_mixed() -> None:
    labels = Volume(np.array([[[0, 6], [6, 0]]], dtype=np.uint8), np.eye(4))
    fine = make_grid([labels], spacing_mm=0.3)
    assert set(np.unique(resample(labels, fine, order=0).array)) == {0, 6}
    assert resample(labels, fine).array.dtype == np.uint8
    assert set(np.unique(resample(labels, fine).array)) > {0, 6}


def test_smoothing_before_coarser_sampling() -> None:
    checker = Volume((np.indices((32, 32)).sum(axis=0) % 2).astype(np.float32)[None], np.eye(4))
    grid = make_grid([checker], spacing_mm=4.0)
    assert resample(checker, grid).array.std() < 0.05
    odd = Grid((8, 8), np.diag([4.0, 4.0, 1.0, 1.0]))
    assert resample(checker, odd, antialias=False).array.std() == 0.0  # hits only zeros
    assert resample(checker, odd, antialias=False).array.mean() == 0.0
    assert abs(resample(checker, odd).array.mean() - 0.5) < 0.05


def test_a_2d_grid_cuts_a_slice_out_of_a_volume() -> None:
    volume = Volume(RNG.random((2, 4, 5, 6)).astype(np.float32), np.eye(4))
    affine = np.eye(4)
    affine[2, 3] = 3.0
    assert_allclose(resample(volume, Grid((4, 5), affine)).array, volume.array[..., 3], atol=1e-6)
    with pytest.raises(ValueError, match="a 2D image cannot be sampled on a 3D grid"):
        resample(Volume(np.zeros((1, 4, 5)), np.eye(4)), Grid.of(volume))


def test_make_grid_by_hand() -> None:
    volume = Volume(np.zeros((1, 10, 20)), np.diag([2.0, 1.0, 1.0, 1.0]))  # 20 x 20 mm, from -1 and -0.5
    assert make_grid([volume]) == make_grid([volume], align="center")
    grid = make_grid([volume], spacing_mm=1.5)
    assert grid.shape == (14, 14)  # 20 / 1.5 = 13.3
    assert_allclose(grid.spacing, 1.5)
    assert_allclose(grid.center, Grid.of(volume).center)
    grid = make_grid([volume], shape=(40, 10))
    assert_allclose(grid.spacing, (0.5, 2.0))
    assert_allclose(grid.affine @ [0, 0, 0, 1], [-1 + 0.25, -0.5 + 1.0, 0, 1])
    grid = make_grid([volume], spacing_mm=(1.0, 1.5), shape=(8, 6))
    assert grid.shape == (8, 6)
    assert_allclose(grid.center, Grid.of(volume).center)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (4, 4, 4)}, "shape needs 2 values for 2D images"),
        ({"spacing_mm": (1.0, 1.0, 1.0)}, "spacing_mm needs 2 values"),
        ({"spacing_mm": 0.0}, "must be positive"),
        ({"align": "middle"}, "align is world, center or extent, got 'middle'"),
    ],
)
def test_make_grid_refuses(options: dict[str, object], message: str) -> None:
    volume = Volume(np.zeros((1, 4, 4)), np.eye(4))
    with pytest.raises(ValueError, match=message):
        make_grid([volume, volume], **options)  # type: ignore[arg-type]


def test_world_grid_covers_both_and_center_and_extent_place_the_moving_image() -> None:
    fixed = Volume(np.zeros((1, 10, 10, 10)), np.eye(4))
    moving = Volume(np.zeros((1, 4, 8, 4)), _affine((2, 2, 2), (0, 1, 2), (1, 1, 1), (8, 0, 0)))
    grid = make_grid([fixed, moving])
    assert grid.shape == (16, 16, 11)  # by hand: -0.5 .. 15, -1 .. 15 and -1 .. 9.5 mm, rounded up
    assert_allclose(grid.center, [7.25, 7.0, 4.25])
    shift = placement(moving, fixed, "center")
    assert_allclose(shift @ [4.5, 4.5, 4.5, 1], [11, 7, 3, 1])
    assert_allclose(shift[:3, :3], np.eye(3))
    stretch = placement(moving, fixed, "extent")
    assert_allclose(stretch @ [-0.5, -0.5, -0.5, 1], [7, -1, -1, 1])
    assert_allclose(stretch @ [9.5, 9.5, 9.5, 1], [15, 15, 7, 1])
    assert make_grid([fixed, moving], align="extent").shape == (10, 10, 10)


@given(volumes(), volumes())
@settings(max_examples=40)
def test_extent_fills_the_fixed_box_in_any_orientation(fixed: Volume, moving: Volume) -> None:
    place = placement(moving, fixed, "extent")
    corners = Grid.of(fixed).corners() @ place[:3, :3].T + place[:3, 3]
    expected = Grid.of(moving).corners()
    for corner in corners:
        assert np.linalg.norm(expected - corner, axis=1).min() < 1e-6
    assert np.linalg.det(place[:3, :3]) > 0  # turned, never mirrored


def test_images_far_apart_are_told() -> None:
    near, far = np.eye(4), np.eye(4)
    far[2, 3] = 300.0
    with pytest.raises(UserError) as caught:
        placement(Volume(np.zeros((1, 4, 4, 4)), far), Volume(np.zeros((1, 4, 4, 4)), near), "world")
    assert str(caught.value) == (
        "the two images do not overlap in scanner coordinates, their centers are 300 mm apart; "
        "align them by center or extent instead of world"
    )
    with pytest.raises(ValueError, match="cannot place a 2D image on a 3D one"):
        placement(Volume(np.zeros((1, 4, 4)), near), Volume(np.zeros((1, 4, 4, 4)), near), "center")


def _three(values: NDArray[np.float64]) -> Three:
    return (float(values[0]), float(values[1]), float(values[2]))


GRIDS = list(itertools.product([(0, 1, 2), (2, 0, 1), (1, 0, 2)], [(1, 1, 1), (-1, 1, -1)]))


@pytest.mark.parametrize(("order", "flips"), GRIDS)
def test_affine_field_goes_back_to_any_grid_exactly(order: tuple[int, int, int], flips: tuple[int, int, int]) -> None:
    """The field of y = A x + t, in voxels of a flipped, permuted, anisotropic grid, comes out as it is in mm."""
    work = Grid((12, 13, 14), _affine((1.5, 1.0, 2.0), order, flips, (3.0, -4.0, 5.0)))
    transform = np.array([[1.02, 0.05, 0.0], [-0.03, 0.97, 0.01], [0.02, 0.0, 1.04]])
    shift = np.array([0.7, -1.3, 2.1])
    world = world_positions(work)
    mm = np.tensordot(transform - np.eye(3), world, axes=1) + shift.reshape(3, 1, 1, 1)
    voxels = np.tensordot(np.linalg.inv(work.affine[:3, :3]), mm, axes=1)
    # a target inside the work grid, with axes of its own
    inside = _affine((0.8, 1.1, 0.6), (1, 2, 0), (-1, 1, 1), _three(work.center + np.array([-1.5, 2.0, -1.0])))
    target = Grid((5, 4, 6), inside)
    field = to_original(voxels, work, target)
    expected = np.tensordot(transform - np.eye(3), world_positions(target), axes=1) + shift.reshape(3, 1, 1, 1)
    assert_allclose(field.array, expected, atol=1e-4)
    assert_allclose(field.affine, target.affine)


def test_field_includes_the_placement() -> None:
    """No displacement found: what remains is the placement itself, so the field warps the user's own moving image."""
    fixed = Volume(np.zeros((1, 6, 7, 8), np.float32), np.eye(4))
    moving = Volume(
        RNG.random((1, 9, 6, 5)).astype(np.float32), _affine((1.3, 2.0, 0.7), (2, 0, 1), (-1, 1, 1), (40, 0, 9))
    )
    for align in ("center", "extent"):
        place = placement(moving, fixed, align)  # type: ignore[arg-type]
        grid = make_grid([fixed], shape=(5, 5, 5))
        field = to_original(np.zeros((3, 5, 5, 5)), grid, Grid.of(fixed), place)
        expected = resample(moving, Grid.of(fixed), place=place, antialias=False)
        assert_allclose(warp(moving, field).array, expected.array, atol=1e-4)


def test_warp_by_hand() -> None:
    moving = Volume(np.arange(5, dtype=np.float32).reshape(1, 5, 1).repeat(4, 2), np.diag([2.0, 1.0, 1.0, 1.0]))
    field = Volume(np.zeros((3, 5, 4), np.float32), moving.affine)
    field.array[0] = 3.0  # 3 mm along x are 1.5 voxels
    assert_allclose(warp(moving, field, fill=-1.0).array[0, :, 0], [1.5, 2.5, 3.5, 4.0, -1.0])
    assert_allclose(warp(moving, field, order=0, fill=None).array[0, 4, 0], 0.0)


def test_2d_coronal_field_points_along_x_and_z() -> None:
    grid = Grid((4, 5), CORONAL)
    pixels = np.zeros((2, 4, 5))
    pixels[0], pixels[1] = 1.0, -2.0
    field = to_original(pixels, grid, grid)
    assert_allclose(field.array[:, 2, 2], [2.0, 0.0, -6.0])  # 1 px of 2 mm along x, -2 px of 3 mm along z
    assert_allclose(in_voxels(field), pixels, atol=1e-6)


def test_to_original_refuses_another_shape() -> None:
    grid = Grid((4, 5), np.eye(4))
    with pytest.raises(ValueError, match=r"a displacement on this grid is \(2, 4, 5\), got \(2, 5, 4\)"):
        to_original(np.zeros((2, 5, 4)), grid, grid)


def test_grid_refuses() -> None:
    with pytest.raises(ValueError, match="two or three axes"):
        Grid((4,), np.eye(4))
    with pytest.raises(ValueError, match="4x4"):
        Grid((4, 4), np.eye(3))
