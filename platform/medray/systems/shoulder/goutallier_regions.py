"""From the U-Net's output to the picture that the classifier sees: threshold, largest piece, box, crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from monai.transforms.utils import get_largest_connected_component_mask
from numpy.typing import NDArray

from medray.data.resized import stretched

THRESHOLD = 0.5
Mask = NDArray[np.bool_]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Region:
    """What of an image is looked at.

    Attributes:
        box: first row, row behind the last, first column, column behind the last, px of the original image.
        inside: (rows, columns) of the box, the muscle's pixels.
        is_fallback: whether no muscle was found, so that the region is the whole image.
    """

    box: tuple[int, int, int, int]
    inside: Mask
    is_fallback: bool = False


def muscle_mask(probability: FloatArray, shape: Sequence[int]) -> Mask:
    """The muscle on the image's own pixels: the largest piece of what is likelier muscle than not.

    Args:
        probability: (S, S), of the network's input.
        shape: rows and columns of the image.

    Returns:
        (H, W); all False where nothing reaches the threshold.
    """
    above = stretched(probability[None], shape)[0] >= THRESHOLD
    if not above.any():
        return np.asarray(above)
    return np.asarray(get_largest_connected_component_mask(above, connectivity=1), dtype=bool)


def region_of(mask: Mask, margin: float = 0.0) -> Region:
    """The muscle's bounding box, cut off at the image's border; the whole image where the mask is empty.

    Args:
        mask: (H, W).
        margin: added to each side, as a share of the box's length along that axis.
    """
    if not mask.any():
        return Region(whole_image(mask).box, np.ones_like(mask), is_fallback=True)
    box: list[int] = []
    for axis in (0, 1):
        hit = np.flatnonzero(mask.any(axis=1 - axis))
        more = round(margin * (hit[-1] + 1 - hit[0]))
        box += [max(0, int(hit[0]) - more), min(mask.shape[axis], int(hit[-1]) + 1 + more)]
    top, bottom, left, right = box
    return Region((top, bottom, left, right), mask[top:bottom, left:right])


def whole_image(mask: Mask) -> Region:
    """All of the image, with the muscle in it."""
    return Region((0, mask.shape[0], 0, mask.shape[1]), mask)


def crop(image: FloatArray, region: Region, size: int, *, mask_background: bool = False) -> FloatArray:
    """The region stretched to the network's input, (1, size, size).

    Args:
        image: (H, W), the original.
        region: of it.
        size: rows and columns.
        mask_background: whether what is not muscle becomes 0.
    """
    top, bottom, left, right = region.box
    part = image[top:bottom, left:right]
    if mask_background:
        part = np.where(region.inside, part, np.float32(0))
    return stretched(part[None], (size, size))
