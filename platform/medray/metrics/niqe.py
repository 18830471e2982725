"""Natural image quality evaluator: how far an image's local statistics are from those of good images, no reference.

Mittal, Soundararajan & Bovik, IEEE Signal Processing Letters 2013. The published model of good images comes from
photographs; here it is fitted to the high-resolution images one has, so values can be compared within one fit alone.
Products of neighbors stay inside a patch and the second scale is the mean over 2 x 2 pixels; the authors' code wraps
around and interpolates. Images are (H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import gamma

FloatArray = NDArray[np.float64]
_SIGMA, _TRUNCATE = 7 / 6, 2.6  # windows of 7 x 7
_SHARP_SHARE = 0.75
_SHAPES = np.arange(0.2, 10.0, 0.001)
_MOMENT_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))
_NEIGHBORS = ((0, 1), (1, 0), (1, 1), (1, -1))


def fit_aggd(values: FloatArray) -> tuple[float, float, float]:
    """An asymmetric generalized Gaussian by its moments (Lasmar et al. 2009).

    Args:
        values: a sample, any shape, with values on both sides of 0.

    Returns:
        its shape (2 is a Gaussian), left and right scale; nan where all values lie on one side.
    """
    left, right = values[values < 0], values[values > 0]
    if not len(left) or not len(right):
        return (float("nan"),) * 3
    left_rms, right_rms = float(np.sqrt(np.mean(left**2))), float(np.sqrt(np.mean(right**2)))
    skew = left_rms / right_rms
    ratio = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = float(np.interp(ratio, _MOMENT_RATIOS, _SHAPES))
    scale = float(np.sqrt(gamma(1 / shape) / gamma(3 / shape)))
    return shape, left_rms * scale, right_rms * scale


def normalized(image: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Intensities less their local mean over their local deviation + 1, and that deviation, on a scale of 0 to 255."""
    mean = gaussian_filter(image, _SIGMA, truncate=_TRUNCATE, mode="nearest")
    square = gaussian_filter(image**2, _SIGMA, truncate=_TRUNCATE, mode="nearest")
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return (image - mean) / (deviation + 1), deviation


def patch_features(patch: FloatArray) -> list[float]:
    """18 numbers of a patch of normalized intensities: fits of the values and of products with four neighbors."""
    shape, left, right = fit_aggd(patch)
    found = [shape, (left + right) / 2]
    for down, across in _NEIGHBORS:
        rows, columns = patch.shape
        here = patch[: rows - down, max(0, -across) : columns - max(0, across)]
        there = patch[down:, max(0, across) : columns + min(0, across)]
        shape, left, right = fit_aggd(here * there)
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)
        found += [shape, float(mean), left, right]
    return found


def _patches(image: FloatArray, side: int) -> list[FloatArray]:
    rows, columns = image.shape
    return [image[r : r + side, c : c + side]
            for r in range(0, rows - side + 1, side) for c in range(0, columns - side + 1, side)]  # fmt: skip


def image_features(image: NDArray[Any], patch_px: int) -> tuple[FloatArray, FloatArray]:
    """Features of an image's patches at two scales, and how sharp each patch is.

    Args:
        image: (H, W) in [0, 1].
        patch_px: side of the patches, even.

    Returns:
        (patches, 36) and (patches,); patches without texture are left out.

    Raises:
        ValueError: the image is smaller than a patch.
    """
    if image.ndim != 2 or min(image.shape) < patch_px:
        raise ValueError(f"the image must be (H, W) of at least {patch_px} px, got {image.shape}")
    rows, columns = (side // 2 * 2 for side in image.shape)
    fine = 255 * np.asarray(image, dtype=np.float64)[:rows, :columns]
    coarse = fine.reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
    values, deviation = normalized(fine)
    features = np.array([
        patch_features(large) + patch_features(small)
        for large, small in zip(
            _patches(values, patch_px), _patches(normalized(coarse)[0], patch_px // 2), strict=True
        )
    ])  # fmt: skip
    sharpness = np.array([patch.mean() for patch in _patches(deviation, patch_px)])
    usable = np.isfinite(features).all(axis=1)
    return features[usable], sharpness[usable]


@dataclass(frozen=True)
class NiqeModel:
    """A Gaussian over the features of good images.

    Attributes:
        mean: (36,).
        covariance: (36, 36).
        patch_px: side of the patches that features are taken from.
    """

    mean: FloatArray
    covariance: FloatArray
    patch_px: int

    @classmethod
    def fit(cls, images: Sequence[NDArray[Any]], *, patch_px: int = 96) -> NiqeModel:
        """Learn what good images are like, from those of their patches that are sharp.

        Args:
            images: (H, W) in [0, 1], high resolution.
            patch_px: even; the paper's 96, less for small images.

        Raises:
            ValueError: an odd patch_px, an image smaller than it, or less than two patches with texture in all.
        """
        if patch_px < 2 or patch_px % 2:
            raise ValueError(f"patch_px must be even, got {patch_px}")
        chosen = []
        for image in images:
            features, sharpness = image_features(image, patch_px)
            chosen.append(features[sharpness > _SHARP_SHARE * sharpness.max(initial=0)])
        found = np.concatenate(chosen) if chosen else np.zeros((0, 36))
        if len(found) < 2:
            raise ValueError(f"{len(found)} patches of {patch_px} px with texture are too few; give more images")
        return cls(found.mean(axis=0), np.cov(found, rowvar=False), patch_px)

    def score(self, image: NDArray[Any]) -> float:
        """Distance of an image from good ones, eq. 10 of Mittal et al.; lower is better, nan without any texture.

        Raises:
            ValueError: the image is smaller than a patch.
        """
        features, _ = image_features(image, self.patch_px)
        if not len(features):
            return float("nan")
        own = np.cov(features, rowvar=False) if len(features) > 1 else np.zeros_like(self.covariance)
        difference = self.mean - features.mean(axis=0)
        return float(np.sqrt(difference @ np.linalg.pinv((self.covariance + own) / 2) @ difference))
