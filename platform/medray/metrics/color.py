"""How the colors of images compare, and whether an image shows where it was cut into tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

Pixels = NDArray[np.uint8]


def color_counts(images: Iterable[Pixels]) -> NDArray[np.int64]:
    """Pixels at each of 256 levels of each channel over all images (H, W, 3), as (3, 256)."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for image in images:
        for channel in range(3):
            counts[channel] += np.bincount(image[..., channel].ravel(), minlength=256)
    return counts


def color_distance(counts: NDArray[np.int64], others: NDArray[np.int64]) -> float:
    """Wasserstein distance of two color distributions, averaged over the channels, in gray levels of 255.

    Args:
        counts: of `color_counts`.
        others: likewise.
    """
    levels = np.arange(256)
    return float(np.mean([wasserstein_distance(levels, levels, a, b) for a, b in zip(counts, others, strict=True)]))


def seam_ratio(image: NDArray[np.generic], borders: Sequence[int], *, axis: int = 0) -> float:
    """Mean absolute jump across tile borders over the mean absolute jump everywhere else; 1 where nothing shows.

    Args:
        image: (H, W, C).
        borders: first rows (or columns, with ``axis`` 1) of tiles.
        axis: along which the borders lie one after the other.

    Raises:
        ValueError: no border inside the image.
    """
    jumps = np.abs(np.diff(np.asarray(image, dtype=np.float64), axis=axis)).mean(axis=(1 - axis, 2))
    at = np.array([border - 1 for border in borders if 0 < border < image.shape[axis]], dtype=int)
    if not len(at):
        raise ValueError(f"none of the borders {list(borders)} lies inside {image.shape[axis]} pixels")
    elsewhere = np.delete(jumps, at)
    return float(jumps[at].mean() / max(elsewhere.mean(), 1e-12))


def weighted_dice(predicted: NDArray[np.generic], truth: NDArray[np.generic], classes: Sequence[int]) -> float:
    """Dice averaged over the classes, each weighted by its share of the true pixels; nan where none of them occurs."""
    total = weight = 0.0
    for value in classes:
        ours, theirs = predicted == value, truth == value
        share = float(theirs.sum())
        if share:
            total += share * 2 * float((ours & theirs).sum()) / float(ours.sum() + theirs.sum())
            weight += share
    return total / weight if weight else float("nan")
