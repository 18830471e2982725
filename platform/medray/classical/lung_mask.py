"""The lungs in a frontal chest radiograph: an outline is laid over the film and bent to its intensities.

For auxiliary images where nobody drew masks. Nothing is trained: a generic outline of two lungs says what anatomy is
likely, the film's own intensities what it is here. Four steps, at 128 x 128:

1. contrast: percentiles to [0, 1], the air beside the patient painted over, contrast-limited histogram equalization
   (Pizer et al., CVGIP 1987), a little blur;
2. placement: of 2000 shifts and scales of the outline, and of 100 around the best one, the one that is darkest inside
   compared with a band around it;
3. region: for each lung the posterior of two Gaussians (inside, around it), the prior being the distance to the placed
   outline, fitted by expectation maximization (as Van Leemput et al., TMI 1999, segment brains with an atlas);
4. shape: the largest piece, opened, closed and filled.

A lung whose region overlaps little with its outline (it is white, or the film is unusual) gets the placed outline.

Films are (H, W), rows from head to feet, with the patient's right side on the left, as picture files have them; bones
are bright. The settings were chosen by looking at 90 films.
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
from medray.errors import UserError

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]

METHOD = "outline 1"
"""Part of a mask's fingerprint; another one whenever masks change."""

_SIZE = 128
_AIR, _RIM = 0.35, 0.05  # how dark it is, and how high the walls around it may be, in parts of the contrast
_SHAPE_SIZE, _MARGIN = 96, 0.35  # of the array that holds an outline, px, and around its box, in parts of the box
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
_TYPICAL = np.array([0.50, 0.06, 0.33, 0.14, 0.62])  # a placement, see `_outline`
_SPREAD = np.array([0.05, 0.02, 0.04, 0.06, 0.14])
_LOW, _HIGH = np.array([0.40, 0.02, 0.20, 0.00, 0.36]), np.array([0.60, 0.11, 0.40, 0.28, 0.92])
_COARSE, _FINE = 2000, 100
_BAND, _BASE = 0.06, 0.82  # width of the band, and where its lower part begins
_LOWEST = 0.95  # row below which lungs hardly reach
_BELIEF = 0.03  # contrast that a placement must gain to be a standard deviation off
_LARGER = 0.2  # 0 would find the darkest part of the lungs only
_REACH, _STEEP, _MOST = 0.06, 0.015, 4.0  # of the prior: where it ends, its slope, its largest log odds
_OVERLAP = 0.6


def lung_mask(image: NDArray[np.generic]) -> Mask:
    """Which pixels of a frontal chest radiograph are lung.

    Args:
        image: (H, W), brighter where more is absorbed (bones are bright).

    Returns:
        (H, W). Never empty: where lungs cannot be told, they are where lungs mostly are.

    Raises:
        ValueError: the image is not 2D.
    """
    if image.ndim != 2:
        raise ValueError(f"a radiograph is (rows, columns), got the shape {image.shape}")
    film = _contrast(np.asarray(image, dtype=np.float64))
    mask = np.logical_or(*(_lung(film, depth) for depth in _outline(_place(film))))
    return np.asarray(resize(mask.astype(np.float64), image.shape, order=1, anti_aliasing=False) > 0.5)


@dataclass(frozen=True)
class LungMaskOf:
    """A field that is the lung mask of another one, found when loaded.

    Attributes:
        image: the radiograph, as a picture file holds it.
    """

    image: FieldRef

    def load(self) -> Volume:
        """(1, H, W), uint8, 0 and 1, on the radiograph's grid.

        Raises:
            UserError: the radiograph cannot be read, or is not 2D.
        """
        film = self.image.load()
        if not isinstance(film, Volume) or film.spatial_dims != 2:
            raise UserError(f"{getattr(film, 'source', self.image)} is no 2D image where a radiograph is expected")
        mask = lung_mask(film.array.mean(axis=0, dtype=np.float64))
        return Volume(mask[None].astype(np.uint8), film.affine, f"lungs of {film.source}")

    def fingerprint(self) -> str:
        """The radiograph's and the method's."""
        return f"{self.image.fingerprint()} {METHOD}"


def with_lung_masks(cases: Sequence[Case]) -> list[Case]:
    """Cases of radiographs with their lung masks as the field ``auxiliary``; those that have the field pass."""
    return [
        replace(case, fields={**case.fields, "auxiliary": LungMaskOf(case.fields["image"])})
        if "image" in case.fields and "auxiliary" not in case.fields
        else case
        for case in cases
    ]


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
    """The best of many placements, see `_outline`; from everywhere, then from around the best so far."""
    places, weights, costs = _everywhere()
    start = places[int(np.argmax(weights @ film[2::4, 2::4].ravel() - costs))]
    nearby = start + 0.25 * _SPREAD * np.random.default_rng(1).normal(size=(_FINE, 5))
    small = film[1::2, 1::2]

    def fit(at: FloatArray) -> float:
        weight, cost = _weights(at, len(small))
        return float((weight * small).sum() - cost)

    return np.asarray(max([start, *np.clip(nearby, _LOW, _HIGH)], key=fit))


@lru_cache(maxsize=1)
def _everywhere() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Placements (N, 5) that are tried on every film, with their weights (N, pixels) and costs (N,)."""
    drawn = _TYPICAL + 1.5 * _SPREAD * np.random.default_rng(0).normal(size=(_COARSE, 5))
    places = np.clip(drawn, _LOW, _HIGH)
    made = [_weights(at, _SIZE // 4) for at in places]
    return places, np.stack([weight.ravel() for weight, _ in made]), np.array([cost for _, cost in made])


def _weights(at: FloatArray, size: int) -> tuple[FloatArray, float]:
    """How well a placement fits a film is the film times these weights, (size, size), summed, less this cost.

    That is how much darker it is inside than in a band around, and what is unusual about the placement. The band counts
    in three parts, below, between and beside the lungs: else one that is bright enough (the middle) would make up for
    another that is not there (a diaphragm).
    """
    depth = _outline(at, size).max(axis=0)
    inside, band = depth > 0, (depth <= 0) & (depth > -_BAND)
    line = (np.arange(size) + 0.5) / size
    middle, gap, width, top, height = at
    below = band & (line[:, None] > top + _BASE * height)
    between = band & ~below & (np.abs(line - middle)[None] < gap + 0.5 * width)
    parts = [part for part in (below, between, band & ~below & ~between) if part.any()]
    weights = sum(part / (len(parts) * part.sum()) for part in parts) - inside / inside.sum()
    unusual = float((((at - _TYPICAL) / _SPREAD) ** 2).mean()) + (max(0.0, top + height - _LOWEST) / 0.03) ** 2
    return np.asarray(weights * inside.mean() ** _LARGER), _BELIEF * unusual


def _lung(film: FloatArray, depth: FloatArray) -> Mask:
    """One lung, given the signed distance to its placed outline, (H, W)."""
    near = depth > -_REACH
    prior = np.clip(depth / _STEEP, -_MOST, _MOST)
    odds = prior
    for _ in range(6):
        inside = 1 / (1 + np.exp(-odds[near]))
        odds = prior + np.clip(_evidence(film, film[near], inside), -_MOST, _MOST)
    region = _tidy((ndimage.gaussian_filter(odds, 1.0) > 0) & near)
    placed = depth > 0
    overlap = 2 * (region & placed).sum() / (region.sum() + placed.sum())
    return region if overlap > _OVERLAP else placed


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
