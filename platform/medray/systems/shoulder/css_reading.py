"""Shoulder slices for CSS-Net: any image as a square of fixed size, and results back on the user's own pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medray.data.cache import SampleCache
from medray.data.case import Case, FieldRef, Volume
from medray.data.fields import FileRef, case_fingerprint
from medray.data.geometry import Grid, resample
from medray.data.intensity import normalize_intensity
from medray.data.slices import on_grid
from medray.errors import UserError
from medray.figures.views import views

Normalize = Literal["unit", "percentile"]


@dataclass(frozen=True)
class Square:
    """A slice as the networks see it.

    Attributes:
        image: (1, size, size), the head up, from 0 to 1.
        label: (size, size) uint8; None where the case has none.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8] | None


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


def knows_its_spacing(volume: Volume) -> bool:
    """Whether a pixel's size in mm is known; picture files do not tell it, and then the affine is the identity."""
    return volume.header.get("format") != "raster" or not np.allclose(volume.affine, np.eye(4))


def is_picture(volume: Volume) -> bool:
    """Whether the array's axes are rows and columns, as of PNG files."""
    return volume.header.get("format") == "raster"


def upright(volume: Volume) -> Volume:
    """A slice with its rows running down and its columns to the right, as a radiologist looks at it.

    Pictures are so already; others are turned by their affine: up is superior, left the patient's right.
    """
    if is_picture(volume):
        return volume
    (view,) = views(volume.shape, affine=volume.affine)
    affine = volume.affine.copy()
    affine[:, 0], affine[:, 1] = volume.affine[:, view.down], volume.affine[:, view.across]
    for axis, old in enumerate((view.down, view.across)):
        if old in view.mirror:
            affine[:3, 3] += affine[:3, axis] * (volume.shape[old] - 1)
            affine[:3, axis] *= -1
    array = np.stack([view.plane(channel) for channel in volume.array])
    return Volume(np.ascontiguousarray(array), affine, volume.source, volume.header)


def square_grid(volume: Volume, size: int) -> Grid:
    """(size, size) pixels that hold all of an upright slice, in its middle, with its true aspect."""
    spacing = np.array(volume.spacing)
    pixel = float((np.array(volume.shape) * spacing).max()) / size
    affine = volume.affine.copy()
    affine[:3, :2] *= pixel / spacing
    middle = (np.array([*volume.shape, 1, 1]) - 1) / 2
    middle[2:] = 0, 1
    end = np.array([(size - 1) / 2, (size - 1) / 2, 0, 1])
    affine[:3, 3] += (volume.affine @ middle - affine @ end)[:3]
    return Grid((size, size), affine)


class SliceSquares:
    """Reads cases as squares, through the cache. Picklable.

    Args:
        size: rows and columns.
        normalize: see `CssConfig.normalize`.
        cache: keeps what was decoded.
    """

    def __init__(self, size: int, normalize: Normalize = "unit", cache: SampleCache | None = None) -> None:
        self.size, self.normalize = size, normalize
        self.cache = cache or SampleCache(memory_gb=1.0)

    def read(self, case: Case) -> Square:
        """A case's ``image`` and, where it has one, ``label``.

        Raises:
            UserError: a field cannot be read, or the image is not a gray slice.
        """
        fields = [name for name in ("image", "label") if name in case.fields]
        key = ("css", self.size, self.normalize, case_fingerprint(case, fields))
        kept = self.cache.get(key, lambda: self._decode(case, "label" in fields))
        return Square(kept["image"], kept.get("label"))

    def square(self, volume: Volume) -> NDArray[np.float32]:
        """An upright slice as (1, size, size).

        Raises:
            UserError: it is not a gray slice.
        """
        volume = gray(volume)
        if volume.spatial_dims != 2:
            shape = " x ".join(str(n) for n in volume.shape)
            raise UserError(f"{volume.source} is {volume.spatial_dims}D ({shape}) where a slice is expected")
        unit = normalize_intensity(volume.array, self.normalize)
        unit = unit if self.normalize == "unit" else (unit + 1) / 2
        made = on_grid(Volume(unit, volume.affine), square_grid(volume, self.size), 1)
        return np.asarray(made.array, np.float32)

    def _decode(self, case: Case, labelled: bool) -> dict[str, NDArray[Any]]:
        image = upright(case.volume("image"))
        kept: dict[str, NDArray[Any]] = {"image": self.square(image)}
        if labelled:
            label = upright(case.volume("label"))
            kept["label"] = on_grid(label, square_grid(image, self.size), 0).array[0].astype(np.uint8)
        return kept


def on_own_pixels(values: NDArray[np.float32], slice_: Volume) -> NDArray[np.float32]:
    """Values (C, size, size) of a square on the pixels of the upright slice it was made from, linear."""
    grid = square_grid(slice_, values.shape[-1])
    made = resample(Volume(values, grid.affine), Grid.of(slice_), order=1, fill=0.0, antialias=False)
    return np.asarray(made.array, np.float32)


@dataclass(frozen=True)
class DrawnOn:
    """A label map saved as a picture, for an image that is none: PNG masks beside DICOM slices.

    Attributes:
        label: rows and columns, as the image is looked at.
        image: what it was drawn on.
    """

    label: FieldRef
    image: FieldRef

    def load(self) -> Volume:
        """The label map upright on the image's own place.

        Raises:
            UserError: one of them cannot be read, or they differ in size.
        """
        label, image = self.label.load(), self.image.load()
        if image.spatial_dims != 2 or is_picture(image) or not is_picture(label):
            return label  # type: ignore[no-any-return]
        page = upright(image)
        if page.shape != label.shape:
            sizes = [" x ".join(str(n) for n in one.shape) for one in (label, page)]
            raise UserError(f"{label.source} has {sizes[0]} rows and columns, its image {sizes[1]}")
        return Volume(label.array, page.affine, label.source, image.header)

    def fingerprint(self) -> str:
        """Of both."""
        return f"drawn {self.label.fingerprint()} {self.image.fingerprint()}"


def drawn_on(case: Case) -> Case:
    """A case whose label map may be a picture beside a DICOM slice, laid on that slice."""
    image, label = case.fields.get("image"), case.fields.get("label")
    if image is None or label is None or not isinstance(image, FileRef):
        return case
    return Case(case.id, case.patient, {**case.fields, "label": DrawnOn(label, image)}, case.attributes)
