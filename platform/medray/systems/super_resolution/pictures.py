"""An enlarged image beside bicubic interpolation and the truth, whole and where there is most detail."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medray.figures.drawing import to_png
from medray.figures.panels import Panel, panel_rows
from medray.systems.super_resolution.peer_networks import Bicubic

_ZOOM = 4
_ERROR_LIMIT = 0.25
"""Of the range of intensities: white in the picture of the error."""


def bicubic(low: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w) in [0, 1] to (4h, 4w) in [0, 1]."""
    return np.asarray(Bicubic()(torch.from_numpy(low)[None, None])[0, 0].clamp(0, 1))


def comparison_png(
    low: NDArray[np.float32],
    result: NDArray[np.float32],
    reference: NDArray[np.float32] | None,
    *,
    name: str,
    title: str = "",
    picture: bool = False,
) -> bytes:
    """Bicubic interpolation, the result, and where it is known the truth with the error; below, a part of each.

    Args:
        low: (h, w) in [0, 1].
        result: (4h, 4w) in [0, 1].
        reference: the same size, or None.
        name: of the method.
        title: above everything.
        picture: see `panel_rows`.
    """
    shown = {"bicubic": bicubic(low), name: result}
    if reference is not None:
        shown["reference"] = reference
    part = most_detailed(result if reference is None else reference)
    outline = np.zeros(result.shape, dtype=bool)
    outline[part] = True
    whole = [Panel(image, told, (0.0, 1.0), outline=outline) for told, image in shown.items()]
    inset = [Panel(image[part], told, (0.0, 1.0)) for told, image in shown.items()]
    if reference is not None:
        error = np.abs(result - reference)
        told = f"error, white at {_ERROR_LIMIT:g}"
        whole.append(Panel(error, told, (0.0, _ERROR_LIMIT), "inferno"))
        inset.append(Panel(error[part], told, (0.0, _ERROR_LIMIT), "inferno"))
    return to_png(panel_rows([whole, inset], names=["", f"{_ZOOM} times"], title=title, picture=picture))


def most_detailed(image: NDArray[Any]) -> tuple[slice, slice]:
    """The window of a quarter of the image's sides in which values change most."""
    sides = [max(1, length // _ZOOM) for length in image.shape]
    busy = ndimage.uniform_filter(ndimage.gaussian_gradient_magnitude(np.asarray(image, np.float32), 1.0), sides)
    inside = tuple(slice(side // 2, length - (side - 1) // 2) for side, length in zip(sides, image.shape, strict=True))
    place = np.unravel_index(int(busy[inside].argmax()), busy[inside].shape)
    rows, columns = (slice(int(first), int(first) + side) for first, side in zip(place, sides, strict=True))
    return rows, columns
