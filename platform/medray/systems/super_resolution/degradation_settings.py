"""What may happen to an image on its way from high to low resolution, how likely and how strongly.

The paper (sec. 4.1) prints the probabilities and the kernel sizes. What it leaves open is marked R: chosen here, after
the defaults of Real-ESRGAN (Wang et al., ICCVW 2021), softened for CT. Intensities are parts of the range [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from medray.errors import UserError
from medray.systems.super_resolution.degradation_steps import ResizeMode

SCALE = 4
"""Sides of the high-resolution image by sides of the low-resolution one."""

Kind = Literal["blind", "bicubic", "bicubic_blur", "released"]
Range = tuple[float, float]

KERNEL_SIZES = (7, 9, 11, 13, 15, 17, 19, 21)
"""Taps per side, equally likely (sec. 4.1)."""


def _check_range(name: str, values: Range, least: float, most: float = math.inf) -> None:
    low, high = values
    if not least <= low <= high <= most:
        raise UserError(f"{name} must be a range from low to high within [{least:g}, {most:g}], got {values}")


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{name} must be a probability in [0, 1], got {value}")


def _check_sizes(name: str, sizes: tuple[int, ...]) -> None:
    if not sizes or any(size < 1 or size % 2 == 0 for size in sizes):
        raise UserError(f"{name} must be odd numbers of pixels, got {sizes}")


@dataclass(frozen=True, kw_only=True)
class BlurSettings:
    """A blur kernel, drawn for every image."""

    sigma_px: Range
    """Standard deviation along each axis of the kernel, in pixels of the image that is blurred."""
    isotropic_probability: float = 0.7
    """Else the two axes have a sigma each and any direction (sec. 4.1: .7 and .3)."""
    sizes_px: tuple[int, ...] = KERNEL_SIZES
    profile: Literal["gaussian", "plateau"] = "gaussian"
    beta: Range = (1.0, 1.0)
    """Steepness of a plateau's flanks, uniform."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        _check_range("sigma_px", self.sigma_px, 0)
        _check_range("beta", self.beta, 0)
        _check_probability("isotropic_probability", self.isotropic_probability)
        _check_sizes("sizes_px", self.sizes_px)


@dataclass(frozen=True, kw_only=True)
class ResizeSettings:
    """A new size, as a part of the high-resolution image's sides, and the operator that makes it."""

    factor: Range
    """Smallest and largest; the range is cut at 1 into shrinking and growing, each uniform."""
    up_probability: float = 0.0
    keep_probability: float = 0.0
    """The size stays; what is left of 1 is the probability to shrink."""
    modes: tuple[tuple[ResizeMode, float], ...] = (("bicubic", 0.6), ("bilinear", 0.2), ("area", 0.2))
    """Operators with their probabilities (sec. 4.1)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        _check_range("factor", self.factor, 1e-3)
        _check_probability("up_probability + keep_probability", self.up_probability + self.keep_probability)
        _check_probability("up_probability", self.up_probability)
        _check_probability("keep_probability", self.keep_probability)
        if (self.up_probability and self.factor[1] <= 1) or (self.down_probability and self.factor[0] > 1):
            raise UserError(f"factor must reach beyond 1 on every side that has a probability, got {self.factor}")
        for mode, probability in self.modes:
            _check_probability(f"the probability of {mode}", probability)
        if not math.isclose(sum(probability for _, probability in self.modes), 1):
            raise UserError(f"the probabilities of the resize modes must add up to 1, got {self.modes}")

    @property
    def down_probability(self) -> float:
        """That the image shrinks."""
        return max(0.0, 1 - self.up_probability - self.keep_probability)


@dataclass(frozen=True, kw_only=True)
class NoiseSettings:
    """Gaussian and Poisson noise."""

    gaussian_sd: Range
    poisson_scale: Range
    """1 is the noise of counting 255 events at intensity 1, see `noise.poisson_noise`."""
    gaussian_probability: float = 0.5
    poisson_probability: float = 0.5
    """Each .5 (sec. 4.1); R: independent of one another, since the paper says that CT has both."""
    exclusive: bool = False
    """One or the other, never both (as in Real-ESRGAN)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        _check_range("gaussian_sd", self.gaussian_sd, 0)
        _check_range("poisson_scale", self.poisson_scale, 0)
        _check_probability("gaussian_probability", self.gaussian_probability)
        _check_probability("poisson_probability", self.poisson_probability)
        if self.exclusive:
            total = self.gaussian_probability + self.poisson_probability
            _check_probability("gaussian_probability + poisson_probability of exclusive noises", total)


@dataclass(frozen=True, kw_only=True)
class JpegSettings:
    """JPEG compression."""

    quality: tuple[int, int]
    """Least and greatest, both possible."""
    probability: float = 0.3
    """Sec. 4.1."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        _check_range("quality", self.quality, 1, 100)
        _check_probability("the probability of JPEG", self.probability)


@dataclass(frozen=True, kw_only=True)
class SincSettings:
    """The circular low-pass filter, which rings at edges as oversharpened images do."""

    cutoff: Range = (math.pi / 3, math.pi)
    """Radians per pixel. R: Real-ESRGAN."""
    sizes_px: tuple[int, ...] = KERNEL_SIZES
    probability: float = 0.3
    """Sec. 4.1."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        _check_range("cutoff", self.cutoff, 1e-3, math.pi)
        _check_sizes("sizes_px", self.sizes_px)
        _check_probability("the probability of the sinc filter", self.probability)


@dataclass(frozen=True, kw_only=True)
class RoundSettings:
    """One round: blur, resize, noise, then JPEG and sinc filter. None leaves a step out."""

    resize: ResizeSettings
    blur: BlurSettings | None = None
    noise: NoiseSettings | None = None
    jpeg: JpegSettings | None = None
    sinc: SincSettings | None = None
    any_order: bool = False
    """The sinc filter comes before JPEG as often as after it; else always after it."""
    stretch: bool = False
    """After every step the image is rescaled to [0, 1] by its own extremes."""


_FIRST_BLUR = BlurSettings(sigma_px=(0.2, 3.0))  # R
_TO_LOW = (1 / SCALE, 1 / SCALE)

ROUNDS: dict[Kind, tuple[RoundSettings, ...]] = {
    # The paper's text. All ranges R; JPEG and sinc "with a probability of .3" (sec. 4.1) read as each, on its own.
    "blind": (
        RoundSettings(
            blur=_FIRST_BLUR,
            resize=ResizeSettings(factor=(0.25, 1.2), up_probability=0.2, keep_probability=0.1),
            noise=NoiseSettings(gaussian_sd=(1 / 255, 30 / 255), poisson_scale=(0.05, 3.0)),
            jpeg=JpegSettings(quality=(30, 95)),
        ),
        RoundSettings(
            blur=BlurSettings(sigma_px=(0.2, 1.5)),
            resize=ResizeSettings(factor=_TO_LOW),
            noise=NoiseSettings(gaussian_sd=(1 / 255, 25 / 255), poisson_scale=(0.05, 2.5)),
            jpeg=JpegSettings(quality=(30, 95)),
            sinc=SincSettings(),
            any_order=True,
        ),
    ),
    # What earlier work trained on, and the paper's comparison on real images (sec. 4.3, fig. 5).
    "bicubic": (RoundSettings(resize=ResizeSettings(factor=_TO_LOW, modes=(("bicubic", 1.0),))),),
    "bicubic_blur": (
        RoundSettings(blur=_FIRST_BLUR, resize=ResizeSettings(factor=_TO_LOW, modes=(("bicubic", 1.0),))),
    ),
    # What the authors' released code does, which the text contradicts: plateau kernels of one size, hardly any noise,
    # mild JPEG and a sinc filter always, each step followed by rescaling. (Uniform beta and JPEG in every round: R.)
    "released": (
        RoundSettings(
            blur=BlurSettings(sigma_px=(0.6, 5.0), sizes_px=(21,), profile="plateau", beta=(0.5, 8.0)),
            resize=ResizeSettings(factor=(0.5, 0.5)),
            noise=NoiseSettings(gaussian_sd=(0.0, 1 / 255), poisson_scale=(0.0, 1.0), exclusive=True),
            jpeg=JpegSettings(quality=(90, 100), probability=1.0),
            stretch=True,
        ),
        RoundSettings(
            resize=ResizeSettings(factor=_TO_LOW),
            jpeg=JpegSettings(quality=(90, 100), probability=1.0),
            sinc=SincSettings(sizes_px=(11,), probability=1.0),
            stretch=True,
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class DegradationSettings:
    """Which degradation, and how strong."""

    kind: Kind = "blind"
    """Key of `ROUNDS`: the paper's text, bicubic shrinking without or with a blur before it, the released code."""
    strength: float = 1.0
    """Multiplies the sigmas of the blurs and the levels of the noises, for images smaller than the paper's 512 px."""

    def __post_init__(self) -> None:
        """Refuse what is not in the table."""
        if self.kind not in ROUNDS:
            raise UserError(f"kind must be one of {', '.join(ROUNDS)}, got {self.kind!r}")
        if not 0 <= self.strength < math.inf:
            raise UserError(f"strength must be a finite number of at least 0, got {self.strength}")
