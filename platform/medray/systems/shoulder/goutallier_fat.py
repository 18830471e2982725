"""How much of the muscle is fat: brighter than a threshold that tells muscle and fat apart around it."""

from __future__ import annotations

import numpy as np
from skimage.filters import threshold_otsu

from medray.systems.shoulder.goutallier_regions import FloatArray, Mask, region_of

NEIGHBORHOOD = 0.25
"""Margin of the box that the threshold is found in, as a share of the muscle's own."""


def fat_mask(image: FloatArray, muscle: Mask) -> Mask:
    """Fat inside the muscle.

    Otsu's threshold separates the dark and the bright pixels of the muscle's box with a margin; fat is what is nearer
    to the mean of the bright ones. There is fat around the muscle in its fossa, so that the box has both even where the
    muscle has none; inside the contour alone Otsu would halve the noise of a healthy muscle. The box is small, so that
    the coil's bias hardly matters. A box that is fat through and through cannot be told from one that has none.

    Args:
        image: (H, W), of a sequence in which fat is brighter than muscle (T1, T2 without fat suppression).
        muscle: (H, W).

    Returns:
        (H, W), inside ``muscle``; all False where it is empty or the box has a single value.
    """
    top, bottom, left, right = region_of(muscle, NEIGHBORHOOD).box
    box = image[top:bottom, left:right]
    if not muscle.any() or box.min() == box.max():
        return np.zeros_like(muscle)
    bright = box > threshold_otsu(box)
    return np.asarray(muscle & (image > (box[bright].mean() + box[~bright].mean()) / 2))


def fat_fraction_percent(fat: Mask, muscle: Mask) -> float:
    """Share of the muscle's pixels that are fat; nan where there is no muscle."""
    return 100.0 * float((fat & muscle).sum()) / float(muscle.sum()) if muscle.any() else float("nan")
