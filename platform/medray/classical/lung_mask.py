"""The lungs in a frontal chest radiograph by a shape that is laid over the film and bent to its intensities.

For auxiliary images where nobody drew masks. No training: a generic outline of two lungs stands for what anatomy is
likely, the film's own intensities decide where they can. Four steps, on the film at 128 x 128:

1. contrast: percentiles to [0, 1], contrast-limited histogram equalization (Pizer et al., CVGIP 1987), a little blur;
2. placement: of many shifts and scales of the outline, the one that is darkest inside compared with a band around it;
3. region: the posterior of two Gaussians per lung (inside, around it) with the outline's signed distance as the prior,
   fitted by expectation maximization (atlas-based, as Van Leemput et al., TMI 1999, do it for brains);
4. shape: the largest piece on each side, holes filled, opened and closed.

Where a lung's region is implausible (its size, or how far it is from the outline) the placed outline stands in for it.
The film is upright, with the patient's right on the left. Masks are (H, W); the settings were chosen by looking at films
and on the phantom, see docs/systems/mvaal.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import polygon2mask
from skimage.exposure import equalize_adapthist
from skimage.measure import label as components
from skimage.morphology import disk, reconstruction
from skimage.transform import resize

from medray.data.case import Case, FieldRef, Volume

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]

METHOD = "outline 1"
"""Changes when masks do."""

_SIZE = 128
_SHAPE_SIZE = 96
_MARGIN = 0.35
# fmt: off
_PLAIN = (  # a lung in its box: from the side (0) to the middle (1), from the apex (0) to the base (1)
    (0.62, 0.00), (0.45, 0.05), (0.28, 0.17), (0.15, 0.34), (0.06, 0.54), (0.02, 0.74), (0.00, 0.96), (0.04, 1.00),
    (0.22, 0.92), (0.48, 0.86), (0.72, 0.87), (0.94, 0.92), (0.99, 0.80), (0.97, 0.55), (0.92, 0.38), (0.94, 0.22),
    (0.90, 0.08), (0.78, 0.01),
)
_WITH_HEART = (  # the other one gives way to the heart
    *_PLAIN[:9], (0.45, 0.88), (0.60, 0.88), (0.63, 0.76), (0.72, 0.62), (0.84, 0.50), (0.90, 0.38), (0.94, 0.22),
    (0.90, 0.08), (0.78, 0.01),
)
# fmt: on
_TYPICAL = np.array([0.50, 0.06, 0.33, 0.14, 0.62])
_SPREAD = np.array([0.05, 0.02, 0.04, 0.06, 0.14])
_LOW, _HIGH = np.array([0.40, 0.02, 0.20, 0.00, 0.36]), np.array([0.60, 0.11, 0.40, 0.28, 0.92])
_COARSE, _FINE = 600, 200
_BELIEF = 0.03
_BAND, _BASE = 0.06, 0.82
_LARGER = 0.2  # else only the darkest part of the lungs is found
_AIR, _RIM = 0.35, 0.05


def lung_mask(image: NDArray[np.generic]) -> Mask:
    """Which pixels of a frontal chest radiograph are lung.

    Args:
        image: (H, W), brighter where more is absorbed (bones are bright).

    Returns:
        (H, W). Never empty: see the module's text for what happens where the lungs cannot be told.

    Raises:
        ValueError: the image is not 2D.
    """
    if image.ndim != 2:
        raise ValueError(f"a radiograph is (rows, columns), got the shape {image.shape}")
    film = _contrast(np.asarray(image, dtype=np.float64))
    depths = _outline(_place(film))
    lungs = [_lung(film, depth) for depth in depths]
    mask = np.logical_or(*lungs)
    return np.asarray(resize(mask.astype(np.float64), image.shape, order=1, anti_aliasing=False) > 0.5)


def _contrast(image: FloatArray) -> FloatArray:
    low, high = np.quantile(image, (0.01, 0.99))
    scaled = np.clip((image - low) / max(high - low, 1e-6), 0.0, 1.0)
    small = resize(scaled, (_SIZE, _SIZE), order=1, anti_aliasing=True)
    air = _air(small)
    small[air] = np.median(small)
    even = equalize_adapthist(small, kernel_size=_SIZE // 2, clip_limit=0.01)
    even[air] = np.quantile(even, 0.75)  # as bright as the chest wall
    return np.asarray(ndimage.gaussian_filter(even, 1.5))


def _air(film: FloatArray) -> Mask:
    """What is dark and runs down to the left or right border without a rim between: the room beside the patient."""
    walled = np.ones_like(film)
    walled[:, [0, -1]] = film[:, [0, -1]]
    depth = reconstruction(walled, film, method="erosion") - film  # of the hollow that a pixel lies in
    return np.asarray((film < _AIR) & (depth < _RIM))


@lru_cache(maxsize=1)
def _shapes() -> FloatArray:
    """Signed distance to the outline of both lungs in their boxes, positive inside, in box heights, (2, S, S).

    The box fills the middle of the array; there is a margin of `_MARGIN` around it.
    """
    inner = _SHAPE_SIZE / (1 + 2 * _MARGIN)
    found = []
    for corners, mirrored in ((_PLAIN, False), (_WITH_HEART, True)):
        points = np.array([(y, 1 - x if mirrored else x) for x, y in corners])
        inside = polygon2mask((_SHAPE_SIZE, _SHAPE_SIZE), (points + _MARGIN) * inner)
        distance = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
        found.append(distance / inner)
    return np.stack(found)


def _outline(at: FloatArray, size: int = _SIZE) -> FloatArray:
    """Signed distance to the outline of both lungs, in image heights, (2, size, size).

    Args:
        at: column between the lungs, half the gap between them, width of a lung, row of the apex, height; in parts of
            the image.
        size: rows and columns.
    """
    middle, gap, width, top, height = at
    line = (np.arange(size) + 0.5) / size
    rows = (line - top) / height
    found = []
    for shape, left in zip(_shapes(), (middle - gap - width, middle + gap), strict=True):
        columns = (line - left) / width
        index = [
            np.clip(((values + _MARGIN) / (1 + 2 * _MARGIN) * _SHAPE_SIZE).astype(int), 0, _SHAPE_SIZE - 1)
            for values in (rows, columns)
        ]
        found.append(shape[np.ix_(*index)] * height)
    return np.stack(found)


def _place(film: FloatArray) -> FloatArray:
    """The best of many placements, see `_outline`; drawn around the typical one, then around the best so far."""
    random = np.random.default_rng(0)
    small = film[1::2, 1::2]
    candidates = np.clip(_TYPICAL + 1.5 * _SPREAD * random.normal(size=(_COARSE, 5)), _LOW, _HIGH)
    best = max(candidates, key=lambda at: _fit(small, at))
    nearby = np.clip(best + 0.3 * _SPREAD * random.normal(size=(_FINE, 5)), _LOW, _HIGH)
    return np.asarray(max([best, *nearby], key=lambda at: _fit(small, at)))


def _fit(film: FloatArray, at: FloatArray) -> float:
    """How much darker it is inside than in a band around, less what an unusual placement costs.

    The band counts in three parts, below, between and beside the lungs: else a part that is bright enough (the middle)
    makes up for one that is not there (a diaphragm).
    """
    depth = _outline(at, len(film)).max(axis=0)
    inside, band = depth > 0, (depth <= 0) & (depth > -_BAND)
    line = (np.arange(len(film)) + 0.5) / len(film)
    middle, gap, width, top, height = at
    below = band & (line[:, None] > top + _BASE * height)
    between = band & ~below & (np.abs(line - middle)[None] < gap + 0.5 * width)
    parts = [film[part].mean() for part in (below, between, band & ~below & ~between) if part.any()]
    contrast = float(np.mean(parts) - film[inside].mean())
    unusual = float((((at - _TYPICAL) / _SPREAD) ** 2).mean()) + (max(0.0, top + height - 0.95) / 0.03) ** 2
    return contrast * float(inside.mean()) ** _LARGER - _BELIEF * unusual


def _lung(film: FloatArray, depth: FloatArray) -> Mask:
    """One lung, given its placed outline."""
    near = depth > -0.06
    prior = np.clip(depth / 0.015, -4.0, 4.0)
    odds = prior
    for _ in range(6):
        inside = 1 / (1 + np.exp(-odds[near]))
        odds = prior + np.clip(_evidence(film, film[near], inside), -4.0, 4.0)
    region = _tidy((ndimage.gaussian_filter(odds, 1.0) > 0) & near)
    placed = depth > 0
    overlap = 2 * (region & placed).sum() / (region.sum() + placed.sum())
    return region if overlap > 0.6 else placed


def _evidence(film: FloatArray, values: FloatArray, inside: FloatArray) -> FloatArray:
    """Log odds of two Gaussians, fitted to ``values`` that are ``inside`` to some degree."""
    log = np.zeros_like(film)
    for weight, sign in ((inside, 1.0), (1 - inside, -1.0)):
        mean = np.average(values, weights=weight)
        deviation = max(float(np.sqrt(np.average((values - mean) ** 2, weights=weight))), 0.03)
        log += sign * (-0.5 * ((film - mean) / deviation) ** 2 - np.log(deviation))
    return log


def _tidy(region: Mask) -> Mask:
    pieces = components(ndimage.binary_opening(region, disk(2)))
    if pieces.max() == 0:
        return np.zeros_like(region)
    largest = pieces == np.argmax(np.bincount(pieces.ravel())[1:]) + 1
    closed = ndimage.binary_closing(np.pad(largest, 12), disk(8))[12:-12, 12:-12]
    return np.asarray(ndimage.binary_fill_holes(closed))
