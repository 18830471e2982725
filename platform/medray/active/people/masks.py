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

from medray.active.people.pictures import has_position, off_picture
from medray.active.people.rules import LabelRules
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
    if kind == "raster":
        if mask.spatial_dims != 2:
            raise UserError(f"it has {mask.shape[0]} pages where one picture is expected")
        return off_picture(mask.array[0], image)
    if kind == "array" and not has_position(mask):  # laid out as the array that the image is read as
        if mask.shape != image.shape:
            raise UserError(f"it is an array of {mask.shape} where the image is one of {image.shape}")
        return mask.array[0]
    index = _voxels_of(mask, image)
    if index is None:
        raise UserError(f"it does not lie on the image: {_difference(mask, image)}")
    voxels = mask.array[0] if mask.spatial_dims == 3 else mask.array[0][..., None]
    found: NDArray[Any] = voxels[tuple(index)].reshape(image.shape)
    return found


def _voxels_of(mask: Volume, image: Volume) -> NDArray[np.int64] | None:
    """The mask's voxel at each of the image's pixels, (3, H * W); None unless they are a whole plane of its voxels."""
    shape = mask.shape if mask.spatial_dims == 3 else (*mask.shape, 1)
    to_voxel = np.linalg.inv(mask.affine) @ image.affine
    exact = to_voxel[:3, :3] @ np.indices((*image.shape, 1)).reshape(3, -1) + to_voxel[:3, 3:]
    nearest = np.rint(exact)
    inside = (nearest >= 0).all() and (nearest < np.reshape(shape, (3, 1))).all()
    if not inside or np.abs(exact - nearest).max() > _TOLERANCE_PX:
        return None
    index = nearest.astype(np.int64)
    across = [n for n, places in zip(shape, index, strict=True) if places.min() != places.max()]
    no_voxel_twice = len(np.unique(np.ravel_multi_index(tuple(index), shape))) == index.shape[1]
    none_left_out = sorted(across) == sorted(n for n in image.shape if n > 1)
    return index if no_voxel_twice and none_left_out else None


def _difference(mask: Volume, image: Volume) -> str:
    """Why a mask does not lie on its image, and what to do."""
    if not has_position(image):
        return "the image has no position in the patient; save its mask as PNG"
    turned = np.rint((np.linalg.inv(mask.affine) @ image.affine)[:2, :2])
    if not has_position(mask):
        reason = "its header gives no position in the patient"
    elif mask.spatial_dims == 2 and mask.shape != image.shape:
        reason = f"it is a grid of {_by(mask.shape)} where the image has {_by(image.shape)}"
    elif np.array_equal(np.abs(turned), np.eye(2)) and (turned < 0).any():
        reason = "it is mirrored"
    elif np.array_equal(np.abs(turned), np.eye(2)[::-1]):
        reason = "its axes are swapped"
    else:
        reason = "its position or pixel size is another one"
    return f"{reason}; draw it on the image itself and save it on the image's grid"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
