"""A mask that came back, on the grid of its image: pixel for pixel, without resampling.

What was drawn on the exported picture is turned back with it. A file that knows where it lies in the patient must cover
the image's pixels exactly: the slice, or a volume that holds it, in whatever order its axes are stored.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medray.active.pictures import has_position, off_picture
from medray.active.rules import LabelRules
from medray.data.case import Volume
from medray.data.readers import read_label, suffix_of
from medray.data.writers import write_volume
from medray.errors import UserError

_TOLERANCE_PX = 0.05
"""Headers round positions to 32-bit floats and to decimals."""
_SHOWN = 5


@dataclass(frozen=True)
class Mask:
    """A mask that can be used.

    Attributes:
        content: of the file to keep, on the image's own grid.
        suffix: of that file.
        digest: of the values on that grid, whatever file they came in.
        is_empty: background only.
    """

    content: bytes
    suffix: str
    digest: str
    is_empty: bool


def read_mask(data: bytes, name: str, image: Volume, rules: LabelRules) -> Mask:
    """Read what came back.

    Args:
        data: of the file.
        name: of the file; its suffix says what it is.
        image: of the case, 2D.
        rules: which values count.

    Raises:
        UserError: damaged, another size or place than the image's, or values that are not expected. The sentence says
            "it" for the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"mask{suffix_of(name)}")
        path.write_bytes(data)
        try:
            mask = read_label(path)
            if mask.header.get("format") == "raster":
                _check_pixels(path, rules)
        except UserError as error:
            raise UserError(str(error).replace(str(path), "it")) from error
        except Exception as error:  # damaged files make the libraries fail in ways of their own; a campaign goes on
            raise UserError(f"it is damaged: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if mask.array.shape[0] != 1:
        raise UserError(f"it holds {mask.array.shape[0]} masks on top of each other where one label map is expected")
    on_image = _on_image(mask, image)
    _check_values(on_image, rules)
    return kept_mask(on_image, image)


def kept_mask(mask: NDArray[Any], image: Volume) -> Mask:
    """A mask (H, W) on the image's grid, as a file: PNG, or NIfTI where the image has a position."""
    values = np.ascontiguousarray(mask, dtype=np.uint8)
    suffix = ".nii.gz" if has_position(image) else ".png"
    with tempfile.TemporaryDirectory() as folder:
        volume = Volume(values[None], image.affine, header=image.header)
        content = write_volume(volume, Path(folder, f"mask{suffix}")).read_bytes()
    digest = hashlib.blake2b(repr(values.shape).encode() + values.tobytes(), digest_size=16).hexdigest()
    return Mask(content, suffix, digest, is_empty=not values.any())


def _check_pixels(path: Path, rules: LabelRules) -> None:
    """What the reader lets pass: checksums of a PNG that do not fit, and white, which it takes for 1."""
    with Image.open(path) as pixels:
        pixels.verify()
    if rules.values == (1,):
        return
    with Image.open(path) as pixels:  # a picture that was verified cannot be read any more
        if pixels.mode in ("1", "L") and pixels.getextrema()[1] == 255:
            raise UserError(f"it holds the value 255; expected {rules.values_text()}")


def _check_values(mask: NDArray[Any], rules: LabelRules) -> None:
    wrong = sorted(set(np.unique(mask).tolist()) - {0, *rules.values})
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        found = ", ".join(str(value) for value in wrong[:_SHOWN])
        raise UserError(f"it holds the value{'s' if wrong[1:] else ''} {found}{more}; expected {rules.values_text()}")


def _on_image(mask: Volume, image: Volume) -> NDArray[Any]:
    """The mask's values at the image's pixels, (H, W)."""
    kind = mask.header.get("format")
    if kind == "raster" and mask.spatial_dims == 2:
        return off_picture(mask.array[0], image)
    if kind == "array" and not has_position(mask):  # laid out as the array that the image is read as
        if mask.shape != image.shape:
            raise UserError(f"it is an array of {mask.shape} where the image is one of {image.shape}")
        return mask.array[0]
    voxels = mask.array[0] if mask.spatial_dims == 3 else mask.array[0][..., None]
    to_voxel = np.linalg.inv(mask.affine) @ image.affine
    pixels = np.indices((*image.shape, 1)).reshape(3, -1)
    exact = to_voxel[:3, :3] @ pixels + to_voxel[:3, 3:]
    index = np.rint(exact).astype(np.int64)
    inside = (index >= 0).all() and (index < np.reshape(voxels.shape, (3, 1))).all()
    if not inside or np.abs(exact - index).max() > _TOLERANCE_PX or not _covers(index, voxels.shape, image.shape):
        raise UserError(f"it does not lie on the image: {_difference(mask, image, to_voxel)}")
    found: NDArray[Any] = voxels[tuple(index)].reshape(image.shape)
    return found


def _covers(index: NDArray[np.int64], shape: tuple[int, ...], image_shape: tuple[int, ...]) -> bool:
    """Whether the image's pixels are a whole plane of the mask's voxels, none left out and none taken twice."""
    across = [n for n, places in zip(shape, index, strict=True) if places.min() != places.max()]
    distinct = len(np.unique(np.ravel_multi_index(tuple(index), shape)))
    return distinct == index.shape[1] and sorted(across) == sorted(n for n in image_shape if n > 1)


def _difference(mask: Volume, image: Volume, to_voxel: NDArray[np.float64]) -> str:
    def text(shape: tuple[int, ...]) -> str:
        return " x ".join(str(n) for n in shape)

    turned = np.rint(to_voxel[:2, :2])
    if not has_position(mask):
        reason = "its header gives no position in the patient"
    elif mask.shape != image.shape and mask.spatial_dims == 2:
        reason = f"it has {text(mask.shape)} pixels, the image {text(image.shape)}"
    elif np.array_equal(np.abs(turned), np.eye(2)) and (turned < 0).any():
        reason = "it is mirrored"
    elif np.array_equal(np.abs(turned), np.eye(2)[::-1]):
        reason = "its axes are swapped"
    else:
        reason = "its position or pixel size is another one"
    return f"{reason}; draw it on the image itself and save it on the image's grid"
