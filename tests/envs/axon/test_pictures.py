"""Any picture becomes one bright plane from 0 to 1; dark surrounds make no rim."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.filters import sato

from envs.axon.field import field_of_view
from envs.axon.pictures import plane_of, read_picture
from envs.axon.preparation import polarity_of, prepare
from envs.axon.ridges import find_ridges

Array = NDArray[np.float32]
ROWS, COLUMNS = np.mgrid[0:120, 0:140].astype(np.float32)


def _line(width: float = 1.5, noise: float = 0.02) -> Array:
    """A bright wavy line on a dark background with noise."""
    gap = ROWS - (60 + 20 * np.sin(COLUMNS / 25))
    grain = np.random.default_rng(0).normal(0, noise, ROWS.shape)
    return (0.1 + 0.6 * np.exp(-(gap**2) / (2 * width**2)) + grain).astype(np.float32)


def _fundus() -> tuple[Array, NDArray[np.bool_]]:
    """Dark lines under uneven light in a round field on black."""
    inside = np.hypot(ROWS - 60, COLUMNS - 70) < 55
    light = 140 + 0.5 * COLUMNS + np.random.default_rng(1).normal(0, 3, ROWS.shape)
    return np.where(inside, light - 60 * _line(noise=0), 12.0).astype(np.float32), inside


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_keeps_its_values(tmp_path: Path, dtype: type) -> None:
    values = (np.arange(30 * 40).reshape(30, 40) % np.iinfo(dtype).max).astype(dtype)
    Image.fromarray(values).save(tmp_path / "a.png")
    plane = read_picture(tmp_path / "a.png")
    assert plane.dtype == np.float32
    np.testing.assert_array_equal(plane, values)


def test_color_is_reduced_as_told(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    luminance = values @ np.array([0.299, 0.587, 0.114])
    for name in ("a.png", "a.tif"):
        np.testing.assert_allclose(read_picture(tmp_path / name), luminance, rtol=1e-5)
        np.testing.assert_array_equal(read_picture(tmp_path / name, color="green"), values[..., 1])
    channels_first = np.moveaxis(values, -1, 0)
    np.testing.assert_array_equal(plane_of(channels_first, axes="CYX", color="blue"), values[..., 2])
    with_alpha = np.concatenate([values, values[..., :1]], axis=2)
    np.testing.assert_allclose(plane_of(with_alpha), luminance, rtol=1e-5)


def test_a_stack_is_projected(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).normal(size=(5, 30, 40)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif"), stack.max(axis=0))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif", projection="min"), stack.min(axis=0))
    slices_last = np.moveaxis(stack, 0, -1)
    np.testing.assert_array_equal(plane_of(slices_last, axes="YXZ"), stack.max(axis=0))
    np.testing.assert_array_equal(plane_of(slices_last, axes="XYZ"), stack.max(axis=0).T)


@pytest.mark.parametrize(
    ("array", "axes", "sentence"),
    [
        (np.full((30, 30), 7), "", r"the image has the same value everywhere \(7\)"),
        (np.zeros((20, 40)), "", r"40 x 20 px \(width x height\), smaller than the tracker's window of 21 x 21"),
        (np.zeros((0, 40)), "", r"empty, its shape is 0 x 40"),
        (np.zeros(40), "", r"has 1 axes \(40\) where an image of rows and columns"),
        (np.zeros((2, 30, 30)), "CYX", r"has 2 channels where 1, 3 \(color\) or 4 are expected"),
        (np.where(np.eye(30) > 0, np.nan, 0), "", r"holds 30 values that are NaN or infinite"),
        (np.zeros((30, 30), complex), "", r"holds complex128 values where brightness is expected"),
    ],
)
def test_what_cannot_be_tracked(array: NDArray[np.float64], axes: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        plane_of(array, axes=axes)


@pytest.mark.parametrize(("name", "sentence"), [("a.png", "is not an image"), ("a.tif", "damaged or not a TIFF")])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / name).write_bytes(b"neither of them")
    with pytest.raises(ValueError, match=rf"{name} .*{sentence}|{name} {sentence}"):
        read_picture(tmp_path / name)
    with pytest.raises(ValueError, match=r"nowhere\.png does not exist"):
        read_picture(tmp_path / "nowhere.png")


def test_ridges_are_those_of_scikit_image() -> None:
    image = _line()
    ours = find_ridges(image, (1.0, 2.0)).strength
    theirs = sato(image, sigmas=(1.0, 2.0), black_ridges=False, mode="reflect")
    inner = (slice(12, -12),) * 2  # scikit-image treats edges differently
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=0.02 * theirs.max())


@pytest.mark.parametrize("degrees", [0, 30, 90, 135])
def test_ridges_run_along_a_line(degrees: float) -> None:
    along = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    gap = (COLUMNS - 70) * -along[1] + (ROWS - 60) * along[0]
    ridges = find_ridges(np.exp(-(gap**2) / 4))
    on = (np.abs(gap) < 0.5) & (np.hypot(ROWS - 60, COLUMNS - 70) < 30)
    assert np.abs(along @ ridges.direction[:, on]).min() > 0.999


@pytest.mark.parametrize("width", [1.0, 2.5])
def test_polarity_is_found(width: float) -> None:
    assert polarity_of(_line(width)) == "bright"
    assert polarity_of(1 - _line(width)) == "dark"
    assert polarity_of(_fundus()[0]) == "dark"


@pytest.mark.parametrize("intensity", ["percentile", "local", "ridges"])
def test_dark_and_bright_are_prepared_alike(intensity: str) -> None:
    bright = prepare(_line(), intensity=intensity)  # type: ignore[arg-type]
    dark = prepare(1 - _line(), intensity=intensity)  # type: ignore[arg-type]
    np.testing.assert_allclose(bright, dark, atol=1e-4)
    assert (bright.dtype, bright.min() >= 0, bright.max() <= 1) == (np.float32, True, True)


def test_percentile_is_linear() -> None:
    image = np.random.default_rng(0).uniform(100, 200, (50, 50))
    prepared = prepare(image, polarity="bright")
    expected = (image - image.min()) / (np.percentile(image, 99.5) - image.min())
    np.testing.assert_allclose(prepared, np.minimum(expected, 1), atol=1e-5)
    np.testing.assert_allclose(prepare(40 * image + 7, polarity="bright"), prepared, atol=1e-5)


def test_sparse_structures_survive_the_percentile() -> None:
    image = np.zeros((100, 100))
    image[50, 30:60] = 9  # 0.3 % of the pixels
    assert prepare(image, polarity="bright")[50, 40] == 1


def test_local_evens_out_light_and_contrast() -> None:
    shaded = _line(noise=0.03) * (0.3 + COLUMNS / 140) + COLUMNS / 140
    prepared = prepare(shaded, polarity="bright", intensity="local")
    middle = np.abs(ROWS - (60 + 20 * np.sin(COLUMNS / 25))) < 0.7
    beside = np.abs(ROWS - (60 + 20 * np.sin(COLUMNS / 25))) > 8
    for part in (COLUMNS < 50, COLUMNS > 90):
        assert 0.5 < np.median(prepared[middle & part]) <= 1
        assert 0.08 < prepared[beside & part].mean() < 0.2


def test_ridges_keep_a_weak_line_beside_a_strong_one() -> None:
    """Ten times weaker and 12 px away, where subtracting a mean would leave a dark halo."""
    rng = np.random.default_rng(0)
    rows = np.arange(120.0)[:, None]
    profile = np.exp(-((rows - 50) ** 2) / (2 * 3.0**2)) + 0.1 * np.exp(-((rows - 62) ** 2) / (2 * 1.2**2))
    image = np.broadcast_to(profile, (120, 140)) + 0.01 * rng.standard_normal((120, 140))
    prepared = prepare(image, polarity="bright", intensity="ridges")
    strong, weak = prepared[50].mean(), prepared[62].mean()
    background = prepared[80:110].mean()
    assert strong > 0.9
    assert weak > 2 * background
    assert weak > prepared[58].mean() + 0.05
    assert abs(int(prepared[40:60].mean(axis=1).argmax()) + 40 - 50) <= 1  # brightest in the middle of a wide line


@pytest.mark.parametrize("intensity", ["percentile", "local", "ridges"])
def test_a_dark_surround_makes_no_rim(intensity: str) -> None:
    image, inside = _fundus()
    field = field_of_view(image)
    assert not (field & ~inside).any()
    assert field.sum() > 0.85 * inside.sum()
    prepared = prepare(image, intensity=intensity)  # type: ignore[arg-type]
    away_from_line = np.abs(ROWS - (60 + 20 * np.sin(COLUMNS / 25))) > 8
    far = ~field & (np.hypot(ROWS - 60, COLUMNS - 70) > 75)
    assert np.ptp(prepared[far]) < 0.01
    border = ndimage.binary_dilation(field) & ~field & away_from_line
    assert np.abs(prepared - ndimage.gaussian_filter(prepared, 2))[border].mean() < 0.05  # no step
    ring = inside & away_from_line & (np.hypot(ROWS - 60, COLUMNS - 70) > 48)
    line = np.abs(ROWS - (60 + 20 * np.sin(COLUMNS / 25))) < 0.7
    assert prepared[ring].mean() < np.median(prepared[line & inside & (COLUMNS < 100)])


def test_thin_structures_and_uneven_light_are_no_field() -> None:
    assert field_of_view(_line()).all()
    glow = np.exp(-((ROWS - 60) ** 2 + (COLUMNS - 70) ** 2) / (2 * 35**2))
    assert field_of_view(glow).all()
    assert field_of_view(1 - _line()).all()


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["drive_01", "drive_08", "drive_13"])
def test_a_fundus_photograph(real_data: Path, name: str) -> None:
    folder = real_data / "retina_drive"
    if not folder.is_dir():
        pytest.skip(f"{real_data} has no retina_drive")
    image = read_picture(folder / "images" / f"{name}.png")
    vessels = read_picture(folder / "vessels" / f"{name}.png") > 0
    field = field_of_view(image)
    assert polarity_of(image, field) == "dark"
    assert 0.6 < field.mean() < 0.75
    assert (vessels & field).sum() > 0.97 * vessels.sum()
    prepared = prepare(image, intensity="local")
    beside = ~ndimage.binary_dilation(vessels, iterations=2)
    rim = field & ~ndimage.binary_erosion(field, iterations=6) & beside
    assert 0.08 < prepared[field & beside].mean() < 0.2
    assert prepared[rim].mean() < 0.25
    assert np.ptp(prepared[ndimage.distance_transform_edt(~field) > 20]) < 0.01
    assert 0.4 < np.median(prepared[vessels & field]) < 0.8


@pytest.mark.real_data
def test_a_stack_of_a_neuron(real_data: Path, tmp_path: Path) -> None:
    packed = real_data / "neuron_stack" / "neuron.tif.zip"
    if not packed.is_file():
        pytest.skip(f"{real_data} has no neuron_stack")
    with zipfile.ZipFile(packed) as archive:
        image = read_picture(archive.extract(archive.namelist()[0], tmp_path))
    assert image.shape == (415, 409)  # 119 planes
    assert polarity_of(image) == "bright"
    assert field_of_view(image).all()
    prepared = prepare(image, intensity="local")
    assert np.median(prepared[image > 200]) > 0.6
    assert np.median(prepared[image == 0]) <= 0.2
