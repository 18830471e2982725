"""A small volume with a heat map that the report lets its reader turn: shrunk, turned to the patient, eight bits.

Kept as JSON beside the picture it belongs to, with gzip and base64 inside; the report's page holds the same record.
"""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medray.data.geometry import orientation
from medray.figures.drawing import to_gray

Array = NDArray[Any]
MAX_SIDE = 64
_PATIENT = (("S", "I"), ("A", "P"), ("R", "L"))


@dataclass(frozen=True)
class Scene:
    """An image with heat, ready to be shown.

    Attributes:
        image: (D, H, W) uint8, gray.
        heat: (D, H, W) uint8, 255 for 1.
        spacing: mm per array axis.
        mask: (D, H, W) bool whose border is drawn in the planes, for example the true tear.
        letters: what the low and the high end of each axis is called; with a patient's position that is
            superior to inferior, anterior to posterior, right to left, else empty.
    """

    image: NDArray[np.uint8]
    heat: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    mask: NDArray[np.bool_] | None = None
    letters: tuple[tuple[str, str], ...] = ()


def make_scene(
    image: Array, heat: Array, spacing: Sequence[float], *, affine: Array | None = None, mask: Array | None = None
) -> Scene:
    """Shrink and turn a volume for the report.

    Args:
        image: (D, H, W), any scale; shown from its 1st to its 99th percentile.
        heat: (D, H, W), 0 to 1.
        spacing: mm per array axis.
        affine: (4, 4), index to mm, RAS+; turns the axes to superior-inferior, anterior-posterior and right-left.
        mask: (D, H, W), nonzero inside.

    Raises:
        ValueError: not three axes, or shapes that differ.
    """
    shapes = [np.shape(array) for array in (image, heat, mask) if array is not None]
    if len(shapes[0]) != 3 or len(set(shapes)) != 1 or min(shapes[0]) < 2:
        raise ValueError(f"a scene needs volumes of one shape (D, H, W) with two voxels along each axis, got {shapes}")
    sizes = [float(size) for size in spacing]
    factors = [min(1.0, MAX_SIDE / length) for length in shapes[0]]
    gray = _eight_bits(to_gray(_shrunk(np.asarray(image, dtype=float), factors)))
    hot = _eight_bits(np.clip(_shrunk(np.asarray(heat, dtype=float), factors), 0, 1))
    inside = None if mask is None else _shrunk(np.asarray(mask != 0, dtype=float), factors) >= 0.5
    sizes = [size * old / new for size, old, new in zip(sizes, shapes[0], gray.shape, strict=True)]
    if affine is None:
        return Scene(gray, hot, (sizes[0], sizes[1], sizes[2]), inside)
    order, mirrored = _page_order(affine)
    return Scene(
        _turned(gray, order, mirrored),
        _turned(hot, order, mirrored),
        (sizes[order[0]], sizes[order[1]], sizes[order[2]]),
        None if inside is None else _turned(inside, order, mirrored),
        _PATIENT,
    )


def scene_record(scene: Scene) -> dict[str, Any]:
    """The scene in JSON's own types, packed; the same scene gives the same record."""
    return {
        "shape": list(scene.image.shape),
        "spacing": list(scene.spacing),
        "letters": [list(pair) for pair in scene.letters],
        "image": _packed(scene.image),
        "heat": _packed(scene.heat),
        "mask": None if scene.mask is None else _packed(scene.mask.astype(np.uint8)),
    }


def read_scene(record: Mapping[str, Any]) -> Scene:
    """The inverse of `scene_record`.

    Raises:
        ValueError: the record is not a scene's.
    """
    try:
        shape = tuple(int(length) for length in record["shape"])
        across, along, through = (float(size) for size in record["spacing"])
        letters = tuple((str(low), str(high)) for low, high in record["letters"])
        image, heat = (_unpacked(record[name], shape) for name in ("image", "heat"))
        mask = None if record["mask"] is None else _unpacked(record["mask"], shape) != 0
    except (KeyError, TypeError, ValueError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"not a scene: {type(error).__name__} {error}") from None
    sized = len(shape) == 3 and min(shape) >= 2 and max(shape) <= MAX_SIDE
    if not sized or len(letters) not in (0, 3) or not all(0 < size < np.inf for size in (across, along, through)):
        raise ValueError(f"not a scene: shape {shape}, spacing {record['spacing']}, letters {record['letters']}")
    return Scene(image, heat, (across, along, through), mask, letters)


def _packed(array: NDArray[np.uint8]) -> str:
    return base64.b64encode(gzip.compress(array.tobytes(), mtime=0)).decode()


def _unpacked(text: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress(base64.b64decode(text)), dtype=np.uint8).reshape(shape)


def _eight_bits(values: Array) -> NDArray[np.uint8]:
    return np.asarray(np.rint(255 * values), dtype=np.uint8)


def _shrunk(array: Array, factors: Sequence[float]) -> Array:
    if min(factors) == 1:
        return array
    smooth = ndimage.gaussian_filter(array, [(1 / factor - 1) / 2 for factor in factors])
    return np.asarray(ndimage.zoom(smooth, factors, order=1, mode="nearest", grid_mode=True))


def _page_order(affine: Array) -> tuple[list[int], list[bool]]:
    """Array axes that run along superior-inferior, anterior-posterior and right-left, and whether they run back."""
    permutation, against = orientation(affine, 3)
    return permutation[::-1], [not flip for flip in against[::-1]]


def _turned(array: Any, order: Sequence[int], mirrored: Sequence[bool]) -> Any:
    axes = tuple(axis for axis, mirror in enumerate(mirrored) if mirror)
    return np.ascontiguousarray(np.flip(array.transpose(order), axes))
