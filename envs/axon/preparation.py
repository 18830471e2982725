"""Real images on the scale the tracker knows: structures bright, from 0 to 1, uneven light and surround gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from envs.axon.field import Mask, field_of_view
from envs.axon.intensity import by_percentile
from envs.axon.pictures import check_plane
from envs.axon.ridges import find_ridges

FloatImage = NDArray[np.float32]
Polarity = Literal["bright", "dark", "auto"]
Intensity = Literal["percentile", "local", "ridges"]

_BACKGROUND_PX, _SPREAD_PX = 10.0, 30.0
_LOCAL_OFFSET, _LOCAL_GAIN = 0.2, 0.22
_SPREAD_FLOOR = 0.5  # of the whole image's, so that an empty region does not turn into noise
_OUTLIER, _ROUNDS = 2.0, 3  # what stands out from a background, and how often that is told from the rest
_STAND_OUT_BACKGROUND_PX, _STAND_OUT_SPREAD_PX, _STAND_OUT_FLOOR = 12.0, 24.0, 0.4
_DENOISE_PX, _RIDGE_SIGMAS_PX = 0.6, (1.0, 1.5, 2.2, 3.2)
_RIDGE_GAIN = 0.12  # of the median ridge of the background, which is noise
_RIDGE_TOP = 2.0  # what the strongest two hundredths come to at most, before the tangent: clean images stay graded
_RIDGE_SHARE = 99.5  # percentile of ridge strength at which polarities are compared: one axon may be 1 % of an image
_RIM_PX = 6
_FADE_PX = 4.0


def prepare(image: NDArray[Any], *, polarity: Polarity = "auto", intensity: Intensity = "percentile") -> FloatImage:
    """An image as the tracker wants it.

    A dark surround (`envs.axon.field`) counts as background, so that it makes no bright rim.

    Args:
        image: (H, W), any scale.
        polarity: whether structures are brighter or darker than what is around them; ``auto`` takes the kind of ridge
            that is stronger.
        intensity: ``percentile`` (the paper's images) is linear: the lowest value becomes 0 and the 99.5th percentile
            1, after inversion for dark structures. ``local`` subtracts a Gaussian mean (10 px) and divides by a
            Gaussian standard deviation (30 px), then puts the background at about 0.15 and structures at 0.4 to 0.8:
            for uneven light and for structures of very different contrast. ``ridges`` shows how much of a bright line
            each pixel is (`envs.axon.ridges`, 1 to 3 px), against the ridges that the noise around makes; strong ones
            approach 1. Lines of any width are brightest in their middle, and weak ones beside strong ones stay.

    Returns:
        (H, W) float32, 0 to 1, structures bright.

    Raises:
        ValueError: not (H, W), smaller than 21 x 21 px, the same value everywhere, or not finite.
    """
    check_plane(image)
    plane = np.asarray(image, dtype=np.float32)
    field = field_of_view(plane)
    if (polarity if polarity != "auto" else polarity_of(plane, field)) == "dark":
        plane = -plane
    return _SCALES[intensity](plane, field)


def polarity_of(image: NDArray[Any], field: Mask | None = None) -> Literal["bright", "dark"]:
    """Whether the thin structures of an image are bright or dark: which ridges are stronger at their 99.5th percentile.

    A line answers at its middle with its own sign and beside it, at under half the strength, with the other.

    Args:
        image: (H, W).
        field: pixels that count; by default those of `field_of_view`.
    """
    plane = np.asarray(image, dtype=np.float32)
    inside = field_of_view(plane) if field is None else field
    inner = ndimage.binary_erosion(inside, iterations=_RIM_PX, border_value=1)  # the rim itself answers like a line
    inner = inner if inner.any() else inside
    bright, dark = (
        float(np.percentile(find_ridges(signed).strength[inner], _RIDGE_SHARE)) for signed in (plane, -plane)
    )
    return "dark" if dark > bright else "bright"


def _by_percentile(plane: FloatImage, field: Mask) -> FloatImage:
    scaled = by_percentile(plane, field)
    return _faded(scaled, field, float(np.median(scaled[field])))


def _local(plane: FloatImage, field: Mask) -> FloatImage:
    weights = field.astype(np.float32)
    deviation = (plane - _mean_in(plane, weights, _BACKGROUND_PX)) * weights
    floor = _SPREAD_FLOOR * float(np.sqrt((deviation[field] ** 2).mean()))
    spread = np.sqrt(_mean_in(deviation**2, weights, _SPREAD_PX))
    scaled = _LOCAL_OFFSET + _LOCAL_GAIN * deviation / np.maximum(spread, max(floor, 1e-12))
    return _faded(np.clip(scaled, 0, 1), field, _LOCAL_OFFSET)


def _ridges(plane: FloatImage, field: Mask) -> FloatImage:
    standing_out = _standing_out(plane, field)
    strength = find_ridges(standing_out, _RIDGE_SIGMAS_PX).strength
    background = field & (np.abs(standing_out) < _OUTLIER)
    usual = float(np.median(strength[background])) if background.any() else 0.0
    strongest = float(np.percentile(strength[field], 98.0))
    return _faded(np.tanh(strength / max(usual / _RIDGE_GAIN, strongest / _RIDGE_TOP, 1e-6)), field, 0.0)


def _standing_out(plane: FloatImage, field: Mask) -> FloatImage:
    """How many standard deviations of the background around it a pixel differs from its mean; 0 outside the field.

    Mean and deviation leave out what stands out itself, so that there are no dark halos beside bright structures.
    """
    inside = field.astype(np.float32)
    smooth = _mean_in(plane, inside, _DENOISE_PX)
    weights, result = inside, inside
    for _ in range(_ROUNDS):
        deviation = (smooth - _mean_in(smooth, weights, _STAND_OUT_BACKGROUND_PX)) * inside
        floor = _STAND_OUT_FLOOR * float(np.sqrt((deviation[field] ** 2).mean()))
        spread = np.sqrt(_mean_in(deviation**2, weights, _STAND_OUT_SPREAD_PX))
        result = np.asarray(deviation / np.maximum(spread, max(floor, 1e-12)), np.float32)
        weights = inside * np.where(np.abs(result) < _OUTLIER, np.float32(1), np.float32(1e-3))
    return np.asarray(result, np.float32)


def _faded(scaled: FloatImage, field: Mask, background: float) -> FloatImage:
    """Background outside the field, reached within some pixels: a step at the border would look like a ridge."""
    if field.all():
        return scaled.astype(np.float32)
    # twice a Gaussian's share of the field is 1 at a straight border and falls to 0
    around = 2 * ndimage.gaussian_filter((scaled - background) * field, _FADE_PX)
    return np.where(field, scaled, np.clip(background + around, 0, 1)).astype(np.float32)


def _mean_in(values: FloatImage, weights: FloatImage, sigma: float) -> FloatImage:
    """Gaussian mean over the pixels that count (normalized convolution)."""
    total = ndimage.gaussian_filter(values * weights, sigma, truncate=3.0)
    return np.asarray(total / np.maximum(ndimage.gaussian_filter(weights, sigma, truncate=3.0), 1e-6))


_SCALES: Mapping[Intensity, Callable[[FloatImage, Mask], FloatImage]] = {
    "percentile": _by_percentile,
    "local": _local,
    "ridges": _ridges,
}
