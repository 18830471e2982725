"""Scores of segmentations: counts that can be added over images before they are divided, and distances in mm."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from numpy.typing import NDArray

from medray.metrics.statistics import ratio

Mask = NDArray[Any]


@dataclass(frozen=True)
class Confusion:
    """Pixels by what was predicted and what is true."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    def rates(self) -> dict[str, float]:
        """Dice (F1), IoU, sensitivity, specificity, precision and accuracy; nan where nothing can be divided."""
        tp, fp, fn, tn = self.tp, self.fp, self.fn, self.tn
        return {
            "dice": ratio(2 * tp, 2 * tp + fp + fn),
            "iou": ratio(tp, tp + fp + fn),
            "sensitivity": ratio(tp, tp + fn),
            "specificity": ratio(tn, tn + fp),
            "precision": ratio(tp, tp + fp),
            "accuracy": ratio(tp + tn, tp + fp + fn + tn),
        }


def confusion(predicted: Mask, truth: Mask) -> Confusion:
    """Count the pixels of two masks of one shape; everything that is not 0 belongs to the object.

    Raises:
        ValueError: the shapes differ.
    """
    ours, theirs = np.asarray(predicted) != 0, np.asarray(truth) != 0
    if ours.shape != theirs.shape:
        raise ValueError(f"predicted {ours.shape} and truth {theirs.shape} must have the same shape")
    tp, sum_ours, sum_theirs = int((ours & theirs).sum()), int(ours.sum()), int(theirs.sum())
    return Confusion(tp, sum_ours - tp, sum_theirs - tp, ours.size - sum_ours - sum_theirs + tp)


def pooled(counts: Sequence[Confusion]) -> dict[str, float]:
    """Rates over all images at once, as if they were one."""
    return sum(counts, Confusion()).rates()


def dice(predicted: Mask, truth: Mask, *, both_empty: float = float("nan")) -> float:
    """Dice of one image.

    Args:
        predicted: mask.
        truth: mask of the same shape.
        both_empty: what it is where there is nothing and nothing was found. nan leaves such images out of means; 1
            rewards them, which raises the mean of data with many empty images.
    """
    counts = confusion(predicted, truth)
    return counts.rates()["dice"] if counts.tp + counts.fp + counts.fn else both_empty


def hausdorff_mm(predicted: Mask, truth: Mask, spacing: Sequence[float], *, percentile: float = 100.0) -> float:
    """Hausdorff distance between the borders of two masks, by MONAI.

    Args:
        predicted: mask, two or three axes.
        truth: mask of the same shape.
        spacing: pixel size in mm, one value per axis.
        percentile: 95 for HD95, which forgives a few stray pixels.

    Returns:
        mm; nan where both are empty, and the length of the image's diagonal where only one is (the worst there can be).
    """
    ours, theirs = np.asarray(predicted) != 0, np.asarray(truth) != 0
    if not ours.any() and not theirs.any():
        return float("nan")
    if not ours.any() or not theirs.any():
        return float(np.linalg.norm([n * s for n, s in zip(ours.shape, spacing, strict=True)]))
    first, second = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (ours, theirs))
    with warnings.catch_warnings():  # MONAI 1.6 warns of an argument that it passes itself
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy")
        found = compute_hausdorff_distance(
            first, second, include_background=True, percentile=percentile, spacing=list(spacing)
        )
    return float(found.item())
