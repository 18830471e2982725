"""Pictures as microscopes and cameras save them: color with 8 bits and three channels, and gray ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medray.data.case import Volume
from medray.errors import UserError


def rgb_pixels(volume: Volume, *, color: bool = False) -> NDArray[np.uint8]:
    """The pixels of a 2D picture, (H, W, 3), 0 to 255.

    16-bit pictures are scaled to 8 bits, floating point is taken as 0 to 1. One gray channel stands for three equal
    ones, unless ``color`` asks for real color.

    Raises:
        UserError: not 2D, neither one nor three channels, values out of range, or gray where ``color`` is asked for.
    """
    array, where = volume.array, volume.source or "the image"
    if volume.spatial_dims != 2:
        shape = " x ".join(str(n) for n in volume.shape)
        raise UserError(f"{where} is {volume.spatial_dims}D ({shape}) where a 2D picture is expected")
    if array.shape[0] not in (1, 3):
        raise UserError(f"{where} has {array.shape[0]} channels where a picture has 1 (gray) or 3 (red, green, blue)")
    pixels = np.moveaxis(_eight_bits(array, where), 0, -1)
    if color and (pixels.shape[2] == 1 or (pixels == pixels[..., :1]).all()):
        raise UserError(f"{where} is a grayscale image where an RGB image is expected")
    return np.ascontiguousarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)


def gray(volume: Volume) -> Volume:
    """The image with one channel; three equal ones, as gray pictures are often saved, become one.

    Raises:
        UserError: color, several channels, or complex numbers.
    """
    array = volume.array
    if array.dtype.kind == "c":
        raise UserError(f"{volume.source} holds complex numbers where a gray image is expected")
    if len(array) == 1:
        return volume
    if len(array) == 3 and (array == array[:1]).all():
        return Volume(array[:1], volume.affine, volume.source, volume.header)
    kind = "is in color" if len(array) == 3 else f"has {len(array)} channels"
    raise UserError(f"{volume.source} {kind} where a gray image is expected")


def _eight_bits(array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    low, high = float(array.min()), float(array.max())
    scale = 255.0 if array.dtype.kind == "f" else 255 / 65535 if array.dtype == np.uint16 else 1.0
    if low < 0 or high * scale > 255.5:
        raise UserError(
            f"{where} holds values from {low:g} to {high:g}; a picture has 8 or 16-bit whole numbers, or 0 to 1"
        )
    return np.rint(array * scale).astype(np.uint8)
