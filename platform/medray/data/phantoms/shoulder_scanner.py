"""How a shoulder is scanned: contrasts, soft borders, texture, the coil's bias field and Rician noise.

What the three shoulder phantoms (`shoulder_coronal`, `shoulder_y`, `shoulder_3d`) share besides the anatomy. Works on
arrays of two or three axes; lengths are in mm, intensities in units of 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.float32]
WholeT = TypeVar("WholeT", np.uint8, np.uint16)

FAT_SUPPRESSED: Mapping[str, float] = {
    "air": 0.03,
    "fat": 0.34,
    "marrow": 0.27,
    "cortex": 0.07,
    "muscle": 0.46,
    "tendon": 0.21,
    "cartilage": 0.62,
    "fluid": 0.88,
}
"""Proton density with fat suppression: only fluid is bright."""
FAT_BRIGHT: Mapping[str, float] = {
    "air": 0.02,
    "fat": 0.72,
    "marrow": 0.62,
    "cortex": 0.05,
    "muscle": 0.21,
    "tendon": 0.08,
    "cartilage": 0.40,
    "fluid": 0.75,
}
"""T2 without fat suppression: fat is as bright as fluid."""
_GOLDEN = (5**0.5 - 1) / 2
_SPREAD = 0.08  # of a tissue's value between patients, relative


def stream_of(seed: int, index: int, stream: str) -> np.random.Generator:
    """Random draws of one patient (or image); one stream per ingredient, independent of all others."""
    return np.random.default_rng([seed, index, *stream.encode()])


def drawn_class(seed: int, stream: str, index: int, weights: Sequence[float]) -> int:
    """Class of the index-th case: over any stretch of cases the classes have about the shares of their weights."""
    start = np.random.default_rng([seed, *stream.encode()]).random()
    ends = np.cumsum(weights)
    return int(np.searchsorted(ends[:-1], (start + index * _GOLDEN) % 1.0 * ends[-1], side="right"))


def drawn_contrast(random: np.random.Generator, values: Mapping[str, float]) -> dict[str, float]:
    """A patient's intensity of every tissue, around ``values``."""
    return {tissue: value * float(random.normal(1.0, _SPREAD)) for tissue, value in values.items()}


def soft(distance: NDArray[Any], pixel_mm: float) -> FloatArray:
    """Membership of a shape, from its signed distance in mm (negative inside): a border of one pixel."""
    return np.clip(0.5 - np.asarray(distance, dtype=np.float32) / np.float32(pixel_mm), 0.0, 1.0)


def mask_of(where: FloatArray) -> NDArray[np.bool_]:
    """Pixels that a shape fills at least by half; where it fills none so far, the fullest: no lesion gets lost."""
    return np.asarray((where > 0) & (where >= min(0.5, float(where.max()))))


def paint(image: FloatArray, where: NDArray[Any], value: float | NDArray[Any]) -> None:
    """Lay a tissue over the image, in place, as far as ``where`` says (0 to 1)."""
    image += (value - image) * where


def texture(random: np.random.Generator, shape: tuple[int, ...], sigma_px: tuple[float, ...]) -> FloatArray:
    """Smoothed white noise of mean 0 and variance 1; longer along axes of larger sigma, as muscle fibers are."""
    smooth = ndimage.gaussian_filter(random.standard_normal(shape, dtype=np.float32), sigma_px, mode="wrap")
    return np.asarray((smooth - smooth.mean()) / smooth.std())


def bias_field(random: np.random.Generator, shape: tuple[int, ...], amplitude: float) -> FloatArray:
    """Sensitivity of the coil: a smooth factor around 1, at most ``amplitude`` away from it."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    slopes, bends = random.uniform(-1, 1, size=(2, len(shape)))
    field = sum(np.float32(k) * x + np.float32(b) * (x**2 - 0.5) for k, b, x in zip(slopes, bends, axes, strict=True))
    return np.asarray(1.0 + np.float32(amplitude) * field / np.abs(field).max(), dtype=np.float32)


def rician(random: np.random.Generator, image: FloatArray, sigma: float) -> FloatArray:
    """Magnitude of the image with complex Gaussian noise of standard deviation ``sigma``."""
    first, second = (np.float32(sigma) * random.standard_normal(image.shape, dtype=np.float32) for _ in range(2))
    return np.asarray(np.sqrt((image + first) ** 2 + second**2))


def stored(image: FloatArray, full: float, dtype: type[WholeT]) -> NDArray[WholeT]:
    """Whole numbers as files hold them: 1.0 becomes ``full``, what is beyond the type's range is cut off."""
    return np.clip(np.rint(image * np.float32(full)), 0, np.iinfo(dtype).max).astype(dtype)
