"""The elastix peer: units, axis order, determinism, silence, and what it says about input it cannot use."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medray.classical.elastix import register_elastix, require_elastix
from medray.errors import UserError

FloatArray = NDArray[np.float64]


def texture(shape: tuple[int, ...], sigma: float, seed: int = 0) -> FloatArray:
    """Smooth random structure in [0, 1] inside a centered ellipsoid, 0 outside, so that no axis is like another."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma, mode="wrap")
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    radius = sum(
        (2.3 * (axis - (size - 1) / 2) / size) ** 2 for axis, size in zip(np.indices(shape), shape, strict=True)
    )
    return np.asarray((0.3 + 0.7 * noise) * ndimage.gaussian_filter((radius < 1).astype(float), 1.0))


def resample(image: FloatArray, displacement: FloatArray) -> FloatArray:
    """image at x + u(x), the definition the returned field has to satisfy."""
    return np.asarray(ndimage.map_coordinates(image, np.indices(image.shape) + displacement, order=3, mode="nearest"))


def other_contrast(image: FloatArray) -> FloatArray:
    """Inverted and bent: what sums of squares cannot match and mutual information can."""
    return np.asarray(np.where(image > 0.02, (1.1 - image) ** 2, 0.0))


def mean_error(found: NDArray[np.float32], truth: FloatArray, body: NDArray[np.bool_]) -> float:
    return float(np.sqrt(((found - truth) ** 2).sum(0))[body].mean())


@pytest.fixture(scope="module", autouse=True)
def _needs_elastix() -> None:
    pytest.importorskip("itk", reason="itk-elastix is an optional extra: medray[elastix]")


@pytest.fixture
def shifted() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Moving, fixed (other contrast) and the true field: 3 px along axis 0, -1.5 px along axis 1."""
    moving = texture((48, 64), sigma=3.0)
    truth = np.stack([np.full(moving.shape, 3.0), np.full(moving.shape, -1.5)])
    return moving, other_contrast(resample(moving, truth)), truth


def test_a_shift_across_contrasts_is_found_along_the_right_axes(
    shifted: tuple[FloatArray, FloatArray, FloatArray],
) -> None:
    moving, fixed, truth = shifted
    found = register_elastix(moving, fixed, num_levels=2, max_iterations=100)
    assert found.shape == (2, 48, 64)
    assert found.dtype == np.float32
    assert mean_error(found, truth, fixed > 0.05) < 0.5  # a wrong axis order or sign is off by more than 3 px


def test_a_smooth_field_is_found() -> None:
    moving = texture((64, 64), sigma=2.5)
    rows, cols = np.indices(moving.shape) / 64.0
    truth = 2.5 * np.stack([np.sin(2 * np.pi * cols), np.cos(2 * np.pi * rows) * np.sin(np.pi * cols)])
    fixed = other_contrast(resample(moving, truth))
    found = register_elastix(moving, fixed, final_grid_spacing_px=12.0, num_levels=2, max_iterations=150)
    body = ndimage.binary_erosion(fixed > 0.05, iterations=2)
    before = mean_error(np.zeros_like(found), truth, body)
    assert before > 1.5
    assert mean_error(found, truth, body) < 0.5


def test_displacement_is_in_pixels_whatever_the_spacing() -> None:
    moving = texture((48, 64), sigma=3.0)
    truth = np.stack([np.full(moving.shape, 2.0), np.full(moving.shape, -2.0)])
    fixed = resample(moving, truth)
    found = register_elastix(moving, fixed, spacing=(0.8, 0.4), num_levels=2, max_iterations=100)
    assert mean_error(found, truth, fixed > 0.05) < 0.5


def test_three_dimensions_with_three_different_shifts() -> None:
    moving = texture((24, 30, 27), sigma=2.5)
    truth = np.stack([np.full(moving.shape, shift) for shift in (2.0, -1.0, 0.5)])
    fixed = other_contrast(resample(moving, truth))
    found = register_elastix(moving, fixed, num_levels=1, final_grid_spacing_px=14.0, max_iterations=80)
    assert found.shape == (3, 24, 30, 27)
    assert mean_error(found, truth, fixed > 0.05) < 0.5


def test_memory_order_of_the_input_does_not_matter() -> None:
    # nibabel hands out Fortran order, which ITK would read as the transposed image
    moving, fixed = texture((40, 40), sigma=3.0), texture((40, 40), sigma=3.0, seed=1)
    plain = register_elastix(moving, fixed, num_levels=1, max_iterations=5)
    fortran = register_elastix(np.asfortranarray(moving), np.asfortranarray(fixed), num_levels=1, max_iterations=5)
    np.testing.assert_array_equal(fortran, plain)


def test_one_seed_gives_one_result_on_any_number_of_threads(shifted: tuple[FloatArray, FloatArray, FloatArray]) -> None:
    moving, fixed, _ = shifted
    first, again, other = (
        register_elastix(moving, fixed, num_levels=2, max_iterations=20, seed=seed) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    threaded = register_elastix(moving, fixed, num_levels=2, max_iterations=20, seed=3, num_threads=2)
    np.testing.assert_array_equal(first, threaded)
    assert not np.array_equal(first, other)


def test_silent_leaves_no_file_and_restores_the_thread_count(
    shifted: tuple[FloatArray, FloatArray, FloatArray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    threader = importlib.import_module("itk").MultiThreaderBase
    monkeypatch.chdir(tmp_path)
    threads = threader.GetGlobalDefaultNumberOfThreads()
    register_elastix(shifted[0], shifted[1], num_levels=1, max_iterations=2)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert threader.GetGlobalDefaultNumberOfThreads() == threads


def test_bad_images_get_a_sentence() -> None:
    image = texture((32, 32), sigma=3.0)
    with pytest.raises(ValueError, match=r"moving \(32, 32\) and fixed \(32, 31\)"):
        register_elastix(image, image[:, :-1])
    with pytest.raises(ValueError, match=r"2D or 3D.*\(1, 1, 32, 32\)"):
        register_elastix(image[None, None], image[None, None])
    with pytest.raises(UserError, match=r"fixed image is constant \(2\)"):
        register_elastix(image, np.full_like(image, 2.0))
    with pytest.raises(UserError, match="moving image holds NaN"):
        register_elastix(np.where(image > 0.5, np.nan, image), image)
    with pytest.raises(UserError, match=r"at least 8 pixels.*\(4, 32\)"):
        register_elastix(image[:4], image[:4])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_levels", 0),
        ("max_iterations", 0),
        ("num_samples", 0),
        ("num_threads", 0),
        ("final_grid_spacing_px", 0.5),
        ("bending_weight", -1.0),
        ("spacing", (1.0, 0.0)),
        ("spacing", (1.0, 1.0, 1.0)),
    ],
)
def test_bad_settings_are_named(setting: str, value: object) -> None:
    image = texture((32, 32), sigma=3.0)
    with pytest.raises(ValueError, match=setting):
        register_elastix(image, image, **{setting: value})  # type: ignore[arg-type]


def test_images_that_cannot_be_matched_get_a_sentence_not_a_page() -> None:
    moving, fixed = np.zeros((64, 64)), np.zeros((64, 64))
    moving[-5:], fixed[:5] = 1.0, 1.0  # the affine stage pushes the one out of the other's view
    with pytest.raises(UserError, match=r"^elastix gave up \(Too many samples map outside .*common position") as raised:
        register_elastix(moving, fixed)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("absent", ["itk", "itk.itkElastixRegistrationMethodPython"])
def test_a_missing_package_names_the_extra(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else find_spec(name))
    with pytest.raises(UserError, match=r"pip install 'medray\[elastix\]'"):
        require_elastix()
    image = texture((32, 32), sigma=3.0)
    with pytest.raises(UserError, match=r"pip install 'medray\[elastix\]'"):
        register_elastix(image, image)
