"""PNG, TIFF, JPEG and BMP through Pillow.

Array axis 0 is the rows, axis 1 the columns; a TIFF of several pages is a 3D image with the pages first. These files
carry no dependable position: the spacing is 1 mm and the affine is the identity.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medray.data.case import Volume
from medray.errors import UserError

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
LOSSY = (".jpg", ".jpeg")


def read(path: Path, *, label: bool = False) -> Volume:
    """Read one file as (1, H, W), (3, H, W) for color, (1, pages, H, W) for several pages.

    Transparency is dropped and a palette is looked up. For a label map the palette index itself is the class, three
    equal color channels count as one, and a mask of 0 and 255 becomes 0 and 1.

    Raises:
        UserError: truncated, not an image, or (label) in color.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            pages = []
            for page in range(getattr(image, "n_frames", 1)):
                image.seek(page)
                pages.append(_pixels(image, label=label))
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image, or damaged at its start") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is truncated or damaged: {' '.join(str(error).split())}") from error
    if len({page.shape for page in pages}) > 1:
        raise UserError(
            f"{path} holds pages of different sizes, {sorted({p.shape[:2] for p in pages})}; split it first"
        )
    array = np.moveaxis(np.stack(pages), -1, 0) if len(pages) > 1 else np.moveaxis(pages[0], -1, 0)
    if label:
        array = _class_indices(path, array)
    return Volume(np.ascontiguousarray(array), np.eye(4), str(path), {"format": "raster"})


def _pixels(image: Any, *, label: bool) -> NDArray[Any]:
    """One page as (H, W, C)."""
    if (image.mode == "P" and not label) or image.mode in ("RGBA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "PA"):
        image = image.convert("RGB")
    elif image.mode == "LA":
        image = image.convert("L")
    array = np.asarray(image)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype.byteorder not in ("=", "|"):
        array = array.astype(array.dtype.newbyteorder("="))
    return array if array.ndim == 3 else array[..., None]


def _class_indices(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    if array.shape[0] > 1 and not (array == array[:1]).all():
        raise UserError(f"{path} is a color image where a label map is expected; save class indices in one channel")
    array = array[:1]
    values = np.unique(array)
    return (array > 0).astype(np.uint8) if set(values.tolist()) <= {0, 255} else array


def write(volume: Volume, path: Path) -> bytes:
    """The bytes of an image file with these pixels.

    Raises:
        UserError: not 2D, not 8 or 16-bit, or neither one nor three channels.
    """
    from PIL import Image

    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    if volume.spatial_dims != 2 or array.shape[0] not in (1, 3):
        raise UserError(
            f"{path}: {path.suffix} holds 2D images of 1 or 3 channels, not {array.shape[0]} channel(s) of "
            f"{volume.spatial_dims}D; use .nii.gz"
        )
    if array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255:
        array = array.astype(np.uint8)
    elif array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 65535 and array.shape[0] == 1:
        array = array.astype(np.uint16)
    else:
        raise UserError(f"{path}: {path.suffix} holds whole numbers from 0 to 65535; use .nii.gz or .npz for others")
    if path.suffix.lower() in (*LOSSY, ".bmp") and array.dtype != np.uint8:
        raise UserError(f"{path}: {path.suffix} holds 8-bit images; use .png for 16 bits")
    buffer = io.BytesIO()
    name = {".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".png": "PNG"}.get(path.suffix.lower(), "TIFF")
    Image.fromarray(array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)).save(buffer, format=name)
    return buffer.getvalue()
