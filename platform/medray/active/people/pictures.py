"""A 2D image as the picture that an annotator sees, and what was drawn on it back on the image's own grid.

A slice with a position in the patient is turned to how clinicians read it (`medray.figures.views`); a film or
photograph stays as it is. Pixels are neither stretched nor resampled.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medray.data.case import Volume
from medray.data.modalities import ModalReader
from medray.errors import UserError
from medray.figures.views import View, views

_THUMBNAIL_PX = 320


def layout(image: Volume) -> View:
    """How a 2D image lies on its picture."""
    (view,) = views(image.shape, affine=image.affine if has_position(image) else None)
    return view


def has_position(image: Volume) -> bool:
    """Whether the image says where it lies in the patient; files that do not are read with the identity."""
    return not np.array_equal(image.affine, np.eye(4))


def picture(image: Volume) -> NDArray[np.uint8]:
    """The whole image, (rows, columns) of the picture, gray, its outermost percents clipped.

    Raises:
        UserError: it is not 2D.
    """
    gray = ModalReader(None).on_grid(image)[0]
    page: NDArray[np.uint8] = layout(image).plane(np.rint(gray * 255).astype(np.uint8))
    return page


def off_picture(drawn: NDArray[Any], image: Volume) -> NDArray[Any]:
    """What was drawn on the picture, on the image's grid.

    Args:
        drawn: (rows, columns) of the picture.
        image: the one of the picture.

    Returns:
        (H, W) of the image.

    Raises:
        UserError: another size.
    """
    order = layout(image).plane(np.arange(image.shape[0] * image.shape[1]).reshape(image.shape))
    if drawn.shape != order.shape:
        swapped = "; rows and columns are swapped" if drawn.T.shape == order.shape else ""
        raise UserError(f"it has {size_text(drawn.shape)} where the picture has {size_text(order.shape)}{swapped}")
    mask = np.empty(image.shape, drawn.dtype)
    mask.flat[order.ravel()] = drawn.ravel()
    return mask


def size_text(shape: tuple[int, ...]) -> str:
    """Width first, as image editors say it.

    >>> size_text((60, 80))
    '80 x 60 px (width x height)'
    """
    return f"{shape[1]} x {shape[0]} px (width x height)"


def png(pixels: NDArray[np.uint8]) -> bytes:
    """The bytes of a gray PNG."""
    return _encoded(Image.fromarray(pixels), "PNG")


def thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """The bytes of a small JPEG, for a page of many."""
    small = Image.fromarray(pixels)
    small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    return _encoded(small, "JPEG")


def _encoded(image: Image.Image, name: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=name)
    return buffer.getvalue()
