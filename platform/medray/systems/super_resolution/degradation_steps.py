"""The single steps of a degradation, each a value that says what is done to one image, run for many images together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from medray.systems.super_resolution.filtering import filter_each
from medray.systems.super_resolution.jpeg import through_jpeg
from medray.systems.super_resolution.noise import gaussian_noise, poisson_noise

ResizeMode = Literal["bicubic", "bilinear", "area"]


class Step(ABC):
    """One step on one image."""

    @property
    def alike(self) -> Hashable:
        """Steps of one class with equal values run together, on images of one size."""
        return ()

    @classmethod
    @abstractmethod
    def run(cls, images: Tensor, steps: Sequence[Self]) -> Tensor:
        """Images (B, 1, H, W), each after its step."""


@dataclass(frozen=True)
class Filter(Step):
    """Convolution with a kernel (k, k)."""

    kernel: Tensor

    @property
    def alike(self) -> Hashable:
        """The kernel's size."""
        return self.kernel.shape

    @classmethod
    def run(cls, images: Tensor, steps: Sequence[Self]) -> Tensor:
        """See `filter_each`."""
        return filter_each(images, torch.stack([step.kernel for step in steps]).to(images.device))


@dataclass(frozen=True)
class Resize(Step):
    """Resampling to a size in pixels, antialiased where it shrinks; "area" averages what falls into a pixel."""

    size: tuple[int, int]
    mode: ResizeMode

    @property
    def alike(self) -> Hashable:
        """All of it."""
        return self

    @classmethod
    def run(cls, images: Tensor, steps: Sequence[Self]) -> Tensor:
        """Images of the steps' common size."""
        size, mode = steps[0].size, steps[0].mode
        if mode == "area":
            return interpolate(images, size, mode=mode)
        return interpolate(images, size, mode=mode, antialias=True, align_corners=False)


@dataclass(frozen=True)
class GaussianNoise(Step):
    """White noise; its standard deviation is a part of the range [0, 1]."""

    sd: float
    seed: int

    @classmethod
    def run(cls, images: Tensor, steps: Sequence[Self]) -> Tensor:
        """See `gaussian_noise`."""
        return gaussian_noise(images, [step.sd for step in steps], [step.seed for step in steps])


@dataclass(frozen=True)
class PoissonNoise(Step):
    """Noise of counting, amplified by ``scale``."""

    scale: float
    seed: int

    @classmethod
    def run(cls, images: Tensor, steps: Sequence[Self]) -> Tensor:
        """See `poisson_noise`."""
        return poisson_noise(images, [step.scale for step in steps], [step.seed for step in steps])


@dataclass(frozen=True)
class Jpeg(Step):
    """Saved as JPEG and read again."""

    quality: int

    @classmethod
    def run(cls, images: Tensor, steps: Sequence[Self]) -> Tensor:
        """See `through_jpeg`."""
        return through_jpeg(images, torch.tensor([step.quality for step in steps], device=images.device))


@dataclass(frozen=True)
class Stretch(Step):
    """Rescaled linearly so that the least value is 0 and the greatest 1; a constant image becomes 0."""

    @classmethod
    def run(cls, images: Tensor, steps: Sequence[Self]) -> Tensor:
        """Each image by its own extremes."""
        least, greatest = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        return (images - least) / (greatest - least).clamp(min=torch.finfo(images.dtype).tiny)
