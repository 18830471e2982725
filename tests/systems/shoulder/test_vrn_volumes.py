import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medray.data.case import Volume
from medray.data.geometry import Grid, world_positions
from medray.data.readers import read_volume
from medray.data.writers import write_volume
from medray.errors import UserError
from medray.systems.shoulder.vrn_volumes import Cropper, on_scan, parse_center

CROPPER = Cropper(size=16, edge_mm=64.0, max_padding=0.25)


def scan_with_ball(center_mm, affine, shape):
    """A bright ball of 8 mm on a dark ground."""
    index = np.indices(shape).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    inside = np.linalg.norm(world - np.array(center_mm)[:, None], axis=0) < 8
    return Volume((100.0 * inside).reshape(1, *shape).astype(np.float32), affine)


def affine_of(columns, origin):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.array(columns, dtype=float).T, origin
    return affine


RAS = affine_of([(2, 0, 0), (0, 4, 0), (0, 0, 2)], (-50, -45, -50))
LPS_CORONAL = affine_of([(-2, 0, 0), (0, 0, -2), (0, 4, 0)], (50, -45, 50))
"""As a coronal series is stored: columns to the left, rows downward, slices to the front."""


def test_orientation_and_spacing_of_the_file_do_not_matter():
    center = (6.0, -3.0, 4.0)
    cubes = [CROPPER.cut(scan_with_ball(center, affine, shape), center)
             for affine, shape in ((RAS, (50, 24, 50)), (LPS_CORONAL, (50, 50, 24)))]  # fmt: skip
    assert np.abs(cubes[0].gray.astype(int) - cubes[1].gray.astype(int)).mean() < 3
    np.testing.assert_allclose(cubes[0].grid.center, center)
    np.testing.assert_allclose(cubes[1].grid.center, center)


def test_the_center_is_in_the_middle_and_the_axes_run_right_front_and_up():
    ball = (6.0 + 12, -3.0, 4.0 - 8)  # 12 mm to the right of the center and 8 mm below
    cube = CROPPER.cut(scan_with_ball(ball, LPS_CORONAL, (50, 50, 24)), (6.0, -3.0, 4.0))
    weight = cube.gray.astype(float)
    middle = [np.average(np.arange(16), weights=weight.sum(axis=tuple(a for a in range(3) if a != axis)))
              for axis in range(3)]  # fmt: skip
    np.testing.assert_allclose(middle, [7.5 + 3, 7.5, 7.5 - 2], atol=0.35)


def test_without_a_center_it_is_the_scans_middle():
    scan = scan_with_ball((0, 0, 0), RAS, (50, 24, 50))
    np.testing.assert_allclose(CROPPER.grid(scan, None).center, Grid.of(scan).center)


def test_gray_values_use_the_whole_range_and_the_network_sees_mean_zero():
    scan = scan_with_ball((0, 0, 0), RAS, (50, 24, 50))
    cube = CROPPER.cut(Volume(scan.array * 7 + 1000, scan.affine), (0, 0, 0))
    assert (cube.gray.min(), cube.gray.max()) == (0, 255)
    assert abs(float(cube.network_input().mean())) < 1e-5


def test_a_map_goes_back_to_the_scans_own_grid():
    scan = scan_with_ball((6.0, -3.0, 4.0), LPS_CORONAL, (50, 50, 24))
    cube = CROPPER.cut(scan, (0.0, 0.0, 0.0))
    back = on_scan(cube.gray.astype(np.float32), cube.grid, scan)
    assert back.shape == scan.shape
    np.testing.assert_array_equal(back.affine, scan.affine)
    for values in (back.array[0], scan.array[0]):
        index = np.average(np.argwhere(values > 50), axis=0)
        world = scan.affine @ np.append(index, 1)
        np.testing.assert_allclose(world[:3], (6.0, -3.0, 4.0), atol=1.6)


@pytest.mark.parametrize("mirror", [1, -1])
@pytest.mark.parametrize("size", [16, 18])
def test_a_blob_of_the_cube_comes_back_at_its_place_in_the_file(tmp_path, size, mirror):
    """An oblique scan, right and left-handed, of 1 x 1.5 x 4 mm: wrong by a flip or half a voxel is wrong by mm."""
    turned = Rotation.from_euler("xyz", (20, -15, 25), degrees=True).as_matrix()
    columns = turned @ np.array([(0, -1.5, 0), (0, 0, 4.0 * mirror), (-1.0, 0, 0)])
    shape, middle = (70, 100, 24), np.array([31.0, -77.0, 12.0])
    affine = affine_of(columns.T, middle - columns @ ((np.array(shape) - 1) / 2))
    assert np.sign(np.linalg.det(columns)) == mirror
    scan = Volume(np.zeros((1, *shape), dtype=np.float32), affine)
    cube = Cropper(size, 64.0, 0.25).grid(scan, middle + 2.0)
    blob = cube.center + np.array([9.0, -6.0, 4.0])
    heat = np.exp(-((world_positions(cube) - blob[:, None, None, None]) ** 2).sum(axis=0) / (2 * 7.0**2))
    found = read_volume(write_volume(on_scan(heat, cube, scan), tmp_path / "heat.nii.gz"))
    weight = np.where(found.array[0] > 0.3, found.array[0], 0)
    world = np.tensordot(world_positions(Grid.of(found)), weight, axes=3) / weight.sum()
    np.testing.assert_allclose(world, blob, atol=0.3)


def test_a_thin_tear_does_not_vanish():
    affine = affine_of([(1, 0, 0), (0, 1, 0), (0, 0, 1)], (-40, -40, -40))
    tear = np.zeros((1, 80, 80, 80), dtype=np.uint8)
    tear[0, 40, 40, 40] = 1
    scan = Volume(np.random.default_rng(0).random((1, 80, 80, 80), dtype=np.float32), affine)
    mask = CROPPER.cut(scan, (0, 0, 0), Volume(tear, affine)).tear
    assert 1 <= mask.sum() <= 8
    np.testing.assert_allclose(np.argwhere(mask).mean(axis=0), [7.5, 7.5, 7.5], atol=0.6)


def test_a_small_overhang_is_padded_with_the_scans_darkest_value():
    scan = scan_with_ball((0, 0, 0), RAS, (50, 13, 50))  # 52 mm from front to back, -47 to 5
    scan = Volume(scan.array + 30, scan.affine)
    cube = CROPPER.cut(scan, (0, -21, 0))
    assert (cube.gray[:, 0] == 0).all()
    assert (cube.gray[:, -1] == 0).all()


@pytest.mark.parametrize(
    ("volume", "center", "sentence"),
    [
        (Volume(np.zeros((1, 8, 8)), np.eye(4)), None, "2D image"),
        (scan_with_ball((0, 0, 0), RAS, (50, 11, 50)), (0, -25, 0), "100 x 44 x 100 mm holds only 44 mm"),
        (scan_with_ball((0, 0, 0), RAS, (50, 24, 50)), (90, 0, 0), "center 90 0 0 .* outside"),
        (scan_with_ball((0, 0, 0), RAS, (50, 24, 50)), (40, 0, 0), "holds only 41 mm"),
    ],
)  # fmt: skip
def test_what_cannot_hold_the_cube_is_one_sentence(volume, center, sentence):
    with pytest.raises(UserError, match=sentence):
        CROPPER.grid(volume, center)


def test_centers_are_three_numbers():
    assert parse_center("1, -2.5;3", "center") == (1.0, -2.5, 3.0)
    for text in ("1 2", "a b c", "1 2 nan", ""):
        with pytest.raises(UserError, match="three numbers"):
            parse_center(text, "center")
