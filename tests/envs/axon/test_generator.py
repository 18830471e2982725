"""The five settings differ in what they are named for, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from envs.axon import SETTINGS, AxonSettings, SyntheticScenes, generate
from envs.axon.generator import draw
from envs.axon.scene import line_map

STANDARD = SETTINGS["SI"]
SEEDS = range(6)


def _silent(settings: AxonSettings) -> AxonSettings:
    """Without noise: the curve and its profile are drawn before the noise is."""
    return replace(settings, noise=(0.0, 0.0), photons=(0.0, 0.0), blur_px=(0.0, 0.0))


def _along(image: NDArray[np.float32], line: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(map_coordinates(image, [line[:, 1], line[:, 0]], order=1))


def test_the_same_seed_is_the_same_image() -> None:
    first, again, other = (generate(STANDARD, seed) for seed in (3, 3, 4))
    assert first.centreline is not None
    assert again.centreline is not None
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.centreline, again.centreline)
    assert (first.image != other.image).any()
    assert first.image.dtype == np.float32
    assert (first.image.min(), first.image.max()) == (0, 1)


def test_neighbouring_seeds_share_no_image() -> None:
    images = [SyntheticScenes(replace(STANDARD, size_px=64, num_points=(4, 6)), 4, seed) for seed in (0, 1)]
    prints = {images[seed][index].image.tobytes() for seed in (0, 1) for index in range(4)}
    assert len(prints) == 8


@pytest.mark.parametrize("seed", SEEDS)
def test_curves_are_smooth_keep_inside_and_do_not_meet_themselves(seed: int) -> None:
    _, line = draw(STANDARD, seed)
    assert line.min() >= 1
    assert line.max() <= STANDARD.size_px - 2
    steps = np.diff(line, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    assert lengths.max() <= 1 + 1e-6
    turns = (steps[1:] * steps[:-1]).sum(axis=1) / (lengths[1:] * lengths[:-1])
    assert np.rad2deg(np.arccos(turns.clip(-1, 1))).max() < 30
    apart = np.linalg.norm(line[:, None] - line[None], axis=-1)
    far = np.abs(np.subtract.outer(np.arange(len(line)), np.arange(len(line)))) > 25
    assert not far.any() or apart[far].min() > 0.6 * STANDARD.clearance_px


def _contrast(settings: AxonSettings) -> float:
    values = []
    for seed in SEEDS:
        image, line = draw(_silent(settings), seed)
        values.append(_along(image, line).mean() - np.median(image))
    return float(np.mean(values))


def test_contrast_is_halved() -> None:
    assert _contrast(SETTINGS["SI-RC"]) == pytest.approx(_contrast(STANDARD) / 2, rel=0.02)


def test_wide_axons_have_the_width_they_should() -> None:
    """The profile at a distance d is A exp(-d^2 / 2 w^2)."""
    for name, width in (("SI", 1.2), ("SI-W", 2.5)):
        settings = replace(_silent(SETTINGS[name]), gain_variation=0.0)
        image, line = draw(settings, 0)
        distance = line_map(line, image.shape).distance
        near = distance < 3
        expected = 12 + 80 * np.exp(-(distance[near] ** 2) / (2 * width**2))
        assert np.abs(image[near] - expected).max() < 6


def test_extra_noise_is_twice_the_noise() -> None:
    def spread(name: str) -> float:
        residuals = [draw(replace(SETTINGS[name], background=(100.0, 100.0)), seed)[0] for seed in SEEDS]
        clean = [draw(replace(_silent(SETTINGS[name]), background=(100.0, 100.0)), seed)[0] for seed in SEEDS]
        return float(np.std([a - b for a, b in zip(residuals, clean, strict=True)]))

    assert spread("SI") == pytest.approx(8, rel=0.05)
    assert spread("SI-EN") == pytest.approx(16, rel=0.05)


def test_photon_noise_grows_with_brightness() -> None:
    """The variance of a Poisson count is its mean; without the blur the ratio of variances is that of brightnesses."""
    settings = replace(SETTINGS["SI-SN"], blur_px=(0.0, 0.0), background=(30.0, 30.0), amplitude=(120.0, 120.0))
    dark, bright, brightness = [], [], []
    for seed in range(12):
        clean, _ = draw(_silent(settings), seed)
        noise = draw(settings, seed)[0] - clean
        top = clean > 110
        dark.append(noise[clean < 31].var())
        bright.append(noise[top].var())
        brightness.append(clean[top].mean() / 30)
    assert np.mean(bright) / np.mean(dark) == pytest.approx(np.mean(brightness), rel=0.2)


def test_structured_noise_is_correlated_between_neighbours() -> None:
    def correlation(name: str) -> float:
        noise = draw(SETTINGS[name], 0)[0] - draw(_silent(SETTINGS[name]), 0)[0]
        return float(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1])

    assert correlation("SI-SN") > 0.4
    assert abs(correlation("SI")) < 0.1


def test_gaps_and_crossings_are_there_when_asked_for() -> None:
    quiet = replace(_silent(STANDARD), gain_variation=0.0, background=(0.0, 0.0))
    whole, line = draw(quiet, 1)
    broken, same = draw(replace(quiet, num_gaps=(2, 2)), 1)
    np.testing.assert_array_equal(line, same)
    assert _along(whole, line).min() > 0.7 * 80
    assert _along(broken, line).min() < 0.3 * 80
    crossed, _ = draw(replace(quiet, num_others=(2, 2)), 1)
    assert (crossed > 20).sum() > 1.2 * (whole > 20).sum()


def test_a_setting_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"no setting 'SI-X'; there are SI, SI-RC"):
        SyntheticScenes("SI-X")
