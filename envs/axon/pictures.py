"""Pictures for tracking: whatever a microscope or fundus camera saved, as one float32 plane (rows, columns).

| stored | becomes |
|---|---|
| 8 or 16-bit, other integers, floating point | float32 with the values as they are |
| color | luminance 0.299 R + 0.587 G + 0.114 B, or one of the channels (fundus photographs: green is usual) |
| a stack of planes | its maximum along the stack's axes, or its minimum (dark structures) |

Intensities are put on a common scale later, by `envs.axon.preparation`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

FloatImage = NDArray[np.float32]
Color = Literal["luminance", "red", "green", "blue"]
Projection = Literal["max", "min"]

WINDOW_PX = 21
"""The wider of the agent's two windows; a smaller image holds nothing to track."""
_WEIGHTS = {"luminance": (0.299, 0.587, 0.114), "red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
_COLOR_AXES = "CS"
_TIFF = (".tif", ".tiff")


def read_picture(path: str | Path, *, color: Color = "luminance", projection: Projection = "max") -> FloatImage:
    """Read a PNG, TIFF, JPEG or BMP.

    Args:
        path: the file; a TIFF may be a stack.
        color: what becomes of three color channels.
        projection: what becomes of a stack.

    Returns:
        (H, W) float32, values as stored.

    Raises:
        ValueError: not an image, damaged, or one of what `plane_of` refuses.
        OSError: the file cannot be opened.
    """
    array, axes = _load(Path(path))
    return plane_of(array, axes=axes, color=color, projection=projection, name=str(path))


def plane_of(
    array: NDArray[Any],
    *,
    axes: str = "",
    color: Color = "luminance",
    projection: Projection = "max",
    name: str = "the image",
) -> FloatImage:
    """One plane to track in, from an array of two to four axes.

    Args:
        array: numbers or booleans.
        axes: a letter for each axis: Y (rows) and X (columns), C or S for color channels, any other for a stack, as
            tifffile writes them. Guessed where empty: rows and columns are the last two axes; a last axis of 3 or 4
            behind two longer ones is color; axes before them are stacks.
        color: what becomes of color channels; a fourth one is transparency and dropped.
        projection: what becomes of a stack.
        name: for messages.

    Returns:
        (H, W) float32, values as they were.

    Raises:
        ValueError: another number of axes or channels, complex or not finite values, smaller than 21 x 21 px, or
            the same value everywhere.
    """
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {array.dtype} values where brightness is expected")
    axes = axes or _guessed(array.shape)
    shape = " x ".join(map(str, array.shape))
    if len(axes) != array.ndim or axes.count("Y") != 1 or axes.count("X") != 1:
        raise ValueError(
            f"{name} has {array.ndim} axes ({shape}) where an image of rows and columns, or a stack, is expected"
        )
    if 0 in array.shape:
        raise ValueError(f"{name} is empty, its shape is {shape}")
    plane = np.asarray(array, dtype=np.float32)
    plane, axes = _without_color(plane, axes, color, name)
    stacks = tuple(number for number, axis in enumerate(axes) if axis not in "YX")
    plane = plane.max(axis=stacks) if projection == "max" else plane.min(axis=stacks)
    if axes.index("X") < axes.index("Y"):
        plane = plane.T
    check_plane(plane, name)
    return np.ascontiguousarray(plane)


def check_plane(plane: NDArray[Any], name: str = "the image") -> None:
    """See that an image (H, W) is one to track in.

    Raises:
        ValueError: not two axes, values that are not finite, smaller than 21 x 21 px, or the same value everywhere.
    """
    if plane.ndim != 2:
        raise ValueError(f"{name} has {plane.ndim} axes where rows and columns are expected")
    height, width = plane.shape
    if min(height, width) < WINDOW_PX:
        raise ValueError(
            f"{name} is {width} x {height} px (width x height), smaller than the tracker's window of "
            f"{WINDOW_PX} x {WINDOW_PX}"
        )
    if not np.isfinite(plane).all():
        raise ValueError(f"{name} holds {int((~np.isfinite(plane)).sum())} values that are NaN or infinite")
    if plane.min() == plane.max():
        raise ValueError(f"{name} has the same value everywhere ({plane.flat[0]:g}): there is nothing to track")


def _guessed(shape: tuple[int, ...]) -> str:
    if len(shape) > 2 and shape[-1] in (3, 4) and min(shape[-3:-1]) > 4:
        return "QZ"[: len(shape) - 3] + "YXS"
    return "QZYX"[-len(shape) :] if 2 <= len(shape) <= 4 else ""


def _without_color(plane: FloatImage, axes: str, color: Color, name: str) -> tuple[FloatImage, str]:
    for letter in _COLOR_AXES:
        if letter not in axes:
            continue
        place = axes.index(letter)
        channels = plane.shape[place]
        if channels not in (1, 3, 4):
            raise ValueError(
                f"{name} has {channels} channels where 1, 3 (color) or 4 are expected; save the one with the structures"
            )
        weights = np.array(_WEIGHTS[color] if channels > 1 else (1,), dtype=np.float32)
        plane = np.tensordot(np.moveaxis(plane, place, -1)[..., : len(weights)], weights, axes=1)
        axes = axes.replace(letter, "")
    return plane, axes


def _load(path: Path) -> tuple[NDArray[Any], str]:
    """The pixels of a file and the letters of their axes."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    if path.suffix.lower() in _TIFF:
        try:
            with tifffile.TiffFile(path) as file:
                series = file.series[0]
                return series.asarray(), series.axes
        except (tifffile.TiffFileError, ValueError, IndexError, KeyError) as error:
            raise ValueError(f"{path} is damaged or not a TIFF: {' '.join(str(error).split())}") from error
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if image.mode not in ("1", "L", "RGB", "F") and not image.mode.startswith("I"):
                array = np.asarray(image.convert("L" if image.mode == "LA" else "RGB"))
            else:
                array = np.asarray(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not an image, or damaged at its start") from error
    except (SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    return array, "YXS" if array.ndim == 3 else "YX"
