"""From what may happen (settings) to what will happen to one image (steps)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from medray.systems.super_resolution.blur_kernels import gaussian_kernel, plateau_kernel, sinc_kernel, with_border
from medray.systems.super_resolution.degradation_settings import (
    BlurSettings,
    JpegSettings,
    NoiseSettings,
    Range,
    ResizeSettings,
    RoundSettings,
    SincSettings,
)
from medray.systems.super_resolution.degradation_steps import (
    Filter,
    GaussianNoise,
    Jpeg,
    PoissonNoise,
    Resize,
    Step,
    Stretch,
)

T = TypeVar("T")
Size = tuple[int, int]


class Draws:
    """Single values from a generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        return float(torch.rand((), generator=self.generator, dtype=torch.float64))

    def uniform(self, values: Range) -> float:
        """Uniform between two values."""
        return values[0] + (values[1] - values[0]) * self.unit()

    def integer(self, least: int, most: int) -> int:
        """Uniform, both ends included."""
        return int(torch.randint(least, most + 1, (), generator=self.generator))

    def seed(self) -> int:
        """For a generator of its own."""
        return self.integer(0, 2**62)

    def one_of(self, values: Sequence[T]) -> T:
        """All equally likely."""
        return values[self.integer(0, len(values) - 1)]

    def weighted(self, values: Sequence[tuple[T, float]]) -> T:
        """Values with their probabilities, which add up to 1."""
        left = self.unit()
        for value, probability in values:
            left -= probability
            if left < 0:
                return value
        return values[-1][0]


def draw_round(
    settings: RoundSettings, strength: float, whole: Size, size: Size, draws: Draws
) -> tuple[list[Step | None], Size]:
    """The steps of one round, and the size in which the image leaves it.

    Args:
        settings: of the round.
        strength: multiplies sigmas and noise levels.
        whole: size of the high-resolution image, (H, W) in pixels.
        size: in which the image enters the round.
        draws: source of chance.
    """
    steps: list[Step | None] = [_blur(settings.blur, strength, size, draws)]
    resize = _resize(settings.resize, whole, draws)
    steps.append(resize if resize.size != size else None)
    steps.extend(_noises(settings.noise, strength, draws))
    last = [_jpeg(settings.jpeg, draws), _sinc(settings.sinc, resize.size, draws)]
    if settings.any_order and draws.unit() < 0.5:
        last.reverse()
    steps.extend(last)
    if settings.stretch:
        steps = [each for step in steps for each in (step, None if step is None else Stretch())]
    return steps, resize.size


def _blur(settings: BlurSettings | None, strength: float, size: Size, draws: Draws) -> Filter | None:
    if settings is None:
        return None
    sigma = draws.uniform(settings.sigma_px) * strength
    sigmas, angle = (sigma, sigma), 0.0
    if draws.unit() >= settings.isotropic_probability:
        sigmas = (sigma, draws.uniform(settings.sigma_px) * strength)
        angle = draws.uniform((-math.pi, math.pi))
    taps = min(draws.one_of(settings.sizes_px), _most_taps(size))
    if settings.profile == "plateau":
        kernel = plateau_kernel(taps, sigmas, angle, beta=draws.uniform(settings.beta))
    else:
        kernel = gaussian_kernel(taps, sigmas, angle)
    return Filter(_stackable(kernel, settings.sizes_px, size))


def _resize(settings: ResizeSettings, whole: Size, draws: Draws) -> Resize:
    low, high = settings.factor
    odds = (
        ((1.0, high), settings.up_probability),
        ((1.0, 1.0), settings.keep_probability),
        ((low, min(1.0, high)), settings.down_probability),
    )
    factor = draws.uniform(draws.weighted(odds))
    height, width = (max(1, round(side * factor)) for side in whole)
    return Resize((height, width), draws.weighted(settings.modes))


def _noises(settings: NoiseSettings | None, strength: float, draws: Draws) -> tuple[Step | None, Step | None]:
    if settings is None:
        return None, None
    chance = draws.unit()
    has_gaussian = chance < settings.gaussian_probability
    if settings.exclusive:
        has_poisson = 0 <= chance - settings.gaussian_probability < settings.poisson_probability
    else:
        has_poisson = draws.unit() < settings.poisson_probability
    gaussian = GaussianNoise(draws.uniform(settings.gaussian_sd) * strength, draws.seed()) if has_gaussian else None
    poisson = PoissonNoise(draws.uniform(settings.poisson_scale) * strength, draws.seed()) if has_poisson else None
    return gaussian, poisson


def _jpeg(settings: JpegSettings | None, draws: Draws) -> Step | None:
    if settings is None or draws.unit() >= settings.probability:
        return None
    return Jpeg(draws.integer(*settings.quality))


def _sinc(settings: SincSettings | None, size: Size, draws: Draws) -> Step | None:
    if settings is None or draws.unit() >= settings.probability:
        return None
    taps = min(draws.one_of(settings.sizes_px), _most_taps(size))
    return Filter(_stackable(sinc_kernel(taps, draws.uniform(settings.cutoff)), settings.sizes_px, size))


def _most_taps(size: Size) -> int:
    """The largest odd number that is not above the image's shorter side."""
    return (min(size) - 1) // 2 * 2 + 1


def _stackable(kernel: Tensor, sizes_px: Sequence[int], size: Size) -> Tensor:
    """Surrounded by zeros up to the largest size that may be drawn, so that a batch's kernels stack."""
    return with_border(kernel, min(max(sizes_px), _most_taps(size)))
