"""The part of an image that was imaged: a fundus camera or endoscope leaves a dark surround around a round field."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import convex_hull_image

Mask = NDArray[np.bool_]

_MIN_AREA, _MIN_SOLIDITY, _MIN_DARK = 0.2, 0.9, 0.95  # shares: of the image, of the hull, of the surround
_MIN_STEP = 0.5  # share of the contrast between field and surround that must lie within a few pixels of the border
_NOTCH_PX = 8  # half the width of the widest structure that may cross the border
_BORDER_PX = 3  # the camera's blur at the border of the field


def field_of_view(image: NDArray[Any]) -> Mask:
    """Which pixels of an image (H, W) show something, True everywhere unless there is a dark surround.

    A surround is found where the bright part of the image is one almost convex piece with a steep border and all around
    it is dark; so neither thin bright structures on a dark background nor uneven light are taken for one. The field
    returned ends 3 px inside its border, where the camera's blur is over.
    """
    everything = np.ones(image.shape, dtype=bool)
    smooth = ndimage.gaussian_filter(np.asarray(image, dtype=np.float32), 1.0)
    threshold = threshold_otsu(smooth)
    pieces, count = ndimage.label(smooth > threshold)
    if count == 0:
        return everything
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    piece = pieces == sizes.argmax()
    if piece.mean() < _MIN_AREA:
        return everything
    field = _closed(piece)
    if field.all() or field.sum() < _MIN_SOLIDITY * convex_hull_image(field).sum():
        return everything
    if (smooth[~field] < threshold).mean() < _MIN_DARK or not _steep(smooth, field):
        return everything
    return np.asarray(ndimage.binary_erosion(field, iterations=_BORDER_PX, border_value=1))


def _closed(piece: Mask) -> Mask:
    """A piece without holes and without the notches that dark structures cut into its border."""
    wide = ndimage.distance_transform_edt(np.pad(~piece, _NOTCH_PX, constant_values=True)) <= _NOTCH_PX
    closed = ndimage.distance_transform_edt(np.pad(wide, 1)) > _NOTCH_PX
    inner = slice(_NOTCH_PX + 1, -_NOTCH_PX - 1)
    return np.asarray(ndimage.binary_fill_holes(closed[inner, inner] | piece))


def _steep(image: NDArray[Any], field: Mask) -> bool:
    """Whether most of the contrast between field and surround is a step at the border."""
    inside, outside = ndimage.distance_transform_edt(field), ndimage.distance_transform_edt(~field)
    ring_in = (inside > _BORDER_PX) & (inside <= 2 * _BORDER_PX)
    ring_out = (outside > _BORDER_PX) & (outside <= 2 * _BORDER_PX)
    if not ring_in.any() or not ring_out.any():
        return False
    step = np.median(image[ring_in]) - np.median(image[ring_out])
    return bool(step > _MIN_STEP * (np.median(image[field]) - np.median(image[~field])))
