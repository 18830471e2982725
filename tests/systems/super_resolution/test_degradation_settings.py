"""Settings that cannot be drawn are refused, each with its name."""

import math

import pytest

from medray.errors import UserError
from medray.systems.super_resolution.degradation_settings import (
    ROUNDS,
    BlurSettings,
    DegradationSettings,
    JpegSettings,
    NoiseSettings,
    ResizeSettings,
    SincSettings,
)

NOISE = {"gaussian_sd": (0.0, 0.1), "poisson_scale": (0.0, 1.0)}


@pytest.mark.parametrize(
    ("make", "fields", "message"),
    [
        (
            DegradationSettings,
            {"kind": "blurry"},
            "kind must be one of blind, bicubic, bicubic_blur, released, got 'blurry'",
        ),
        (DegradationSettings, {"strength": -1.0}, "strength must be a finite number of at least 0, got -1"),
        (DegradationSettings, {"strength": math.nan}, "strength"),
        (BlurSettings, {"sigma_px": (3.0, 0.2)}, r"sigma_px must be a range from low to high .* got \(3.0, 0.2\)"),
        (BlurSettings, {"sigma_px": (-1.0, 0.2)}, "sigma_px"),
        (BlurSettings, {"sigma_px": (0.2, 3.0), "isotropic_probability": 1.1}, r"isotropic_probability .* got 1.1"),
        (BlurSettings, {"sigma_px": (0.2, 3.0), "sizes_px": (7, 8)}, "sizes_px must be odd"),
        (BlurSettings, {"sigma_px": (0.2, 3.0), "sizes_px": ()}, "sizes_px must be odd"),
        (ResizeSettings, {"factor": (1.0, 0.5)}, "factor must be a range"),
        (ResizeSettings, {"factor": (0.0, 0.5)}, "factor must be a range"),
        (ResizeSettings, {"factor": (0.5, 1.0), "up_probability": 0.2}, "factor must reach beyond 1"),
        (ResizeSettings, {"factor": (1.1, 1.2)}, "factor must reach beyond 1"),
        (ResizeSettings, {"factor": (0.5, 1.2), "up_probability": 0.8, "keep_probability": 0.3}, "up_probability"),
        (ResizeSettings, {"factor": (0.5, 0.5), "modes": (("area", 0.5),)}, "add up to 1"),
        (ResizeSettings, {"factor": (0.5, 0.5), "modes": (("area", -1.0), ("bicubic", 2.0))}, "probability of area"),
        (NoiseSettings, {**NOISE, "gaussian_sd": (0.2, 0.1)}, "gaussian_sd"),
        (NoiseSettings, {**NOISE, "poisson_scale": (-1.0, 0.1)}, "poisson_scale"),
        (NoiseSettings, {**NOISE, "poisson_probability": 2.0}, "poisson_probability"),
        (NoiseSettings, {**NOISE, "poisson_probability": 0.7, "exclusive": True}, "exclusive"),
        (JpegSettings, {"quality": (0, 90)}, r"quality must be a range from low to high within \[1, 100\]"),
        (JpegSettings, {"quality": (30, 90), "probability": -0.1}, "the probability of JPEG"),
        (SincSettings, {"cutoff": (1.0, 4.0)}, "cutoff"),
        (SincSettings, {"probability": 1.5}, "the probability of the sinc filter"),
    ],
)
def test_impossible_settings_are_refused(make, fields, message):
    with pytest.raises(UserError, match=message):
        make(**fields)


@pytest.mark.parametrize("kind", ROUNDS)
def test_the_last_round_of_every_kind_ends_at_a_quarter(kind):
    assert ROUNDS[kind][-1].resize.factor == (0.25, 0.25)
