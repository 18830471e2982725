"""Whether an attention map points at what it should: the pointing game (Zhang et al., ECCV 2016) and its relatives.

Heat is non-negative, (*shape), any scale; masks have the same shape. The peak of a map is its largest pixel; where
several are equal, the one in their middle. A map without contrast (all zero) has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medray.metrics.statistics import ratio

Array = NDArray[Any]


def peak(heat: Array) -> tuple[int, ...] | None:
    """Index of the largest value; None where all are equal."""
    if heat.max() <= heat.min():
        return None
    places = np.argwhere(heat == heat.max())
    middle = np.linalg.norm(places - places.mean(axis=0), axis=1).argmin()
    return tuple(int(index) for index in places[middle])


def hit(heat: Array, mask: Array, tolerance_px: float = 0) -> float:
    """The pointing game: whether the map's peak lies within the mask.

    Args:
        heat: (*shape).
        mask: (*shape), nonzero inside.
        tolerance_px: distance from the mask, in pixels, that still counts.

    Returns:
        1 or 0; 0 for a map without peak, nan where the mask is empty.

    Raises:
        ValueError: different shapes, or heat below zero.
    """
    heat, mask = _checked(heat, mask)
    if not mask.any():
        return float("nan")
    place = peak(heat)
    return 0.0 if place is None else float(_dilated(mask, tolerance_px)[place])


def hit_by_chance(mask: Array, tolerance_px: float = 0, inside: Array | None = None) -> float:
    """How often a peak that falls anywhere would be a `hit`: the dilated mask's share of all pixels.

    Args:
        mask: (*shape), nonzero inside.
        tolerance_px: as in `hit`.
        inside: where peaks may fall, (*shape), for example the patient's body; everywhere if None.

    Returns:
        0 to 1; nan where the mask or ``inside`` is empty.

    Raises:
        ValueError: different shapes.
    """
    mask = np.asarray(mask) != 0
    allowed = np.ones_like(mask) if inside is None else np.asarray(inside) != 0
    if allowed.shape != mask.shape:
        raise ValueError(f"mask {mask.shape} and inside {allowed.shape} must have the same shape")
    if not mask.any():
        return float("nan")
    return ratio(float((_dilated(mask, tolerance_px) & allowed).sum()), float(allowed.sum()))


def mass_inside(heat: Array, mask: Array) -> float:
    """Share of the heat that lies within the mask: 0 to 1; 0 for a map of zeros, nan where the mask is empty.

    Raises:
        ValueError: different shapes, or heat below zero.
    """
    heat, mask = _checked(heat, mask)
    if not mask.any():
        return float("nan")
    total = float(heat.sum())
    return float(heat[mask].sum()) / total if total else 0.0


def peak_distance_mm(heat: Array, mask: Array, spacing: Sequence[float]) -> float:
    """Distance from the map's peak to the mask's nearest pixel, between centers, mm; 0 inside.

    Args:
        heat: (*shape).
        mask: (*shape), nonzero inside.
        spacing: mm per array axis.

    Returns:
        nan where the mask is empty or the map has no peak.

    Raises:
        ValueError: different shapes, heat below zero, or not one spacing for each axis.
    """
    heat, mask = _checked(heat, mask)
    if len(spacing) != mask.ndim:
        raise ValueError(f"spacing {tuple(spacing)} needs one number for each axis of {mask.shape}")
    place = peak(heat)
    if place is None or not mask.any():
        return float("nan")
    offsets = (np.argwhere(mask) - np.asarray(place)) * np.asarray(spacing, dtype=float)
    return float(np.linalg.norm(offsets, axis=1).min())


def _checked(heat: Array, mask: Array) -> tuple[Array, Array]:
    heat, mask = np.asarray(heat, dtype=np.float64), np.asarray(mask) != 0
    if heat.shape != mask.shape:
        raise ValueError(f"heat {heat.shape} and mask {mask.shape} must have the same shape")
    if not heat.min() >= 0:
        raise ValueError(f"heat must not be negative or nan, its minimum is {heat.min()}")
    return heat, mask


def _dilated(mask: Array, tolerance_px: float) -> Array:
    return mask if tolerance_px <= 0 else np.asarray(ndimage.distance_transform_edt(~mask) <= tolerance_px)
