"""Shoulder slices for CSS-Net: any image as a square of fixed size, and results back on the user's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medray.data.cache import SampleCache
from medray.data.case import Case, FieldRef, Volume
from medray.data.fields import case_fingerprint
from medray.data.geometry import Grid, resample
from medray.data.intensity import normalize_intensity
from medray.data.orientation import has_position, slice_plane, upright_spacing, upright_view
from medray.data.pictures import gray
from medray.errors import UserError

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


@dataclass(frozen=True)
class Page:
    """A slice as a radiologist looks at it, with its whole range of values.

    Attributes:
        array: (1, rows, columns).
        spacing: mm along both, or in pixels of unknown size.
    """

    array: NDArray[Any]
    spacing: tuple[float, float]

    def square_grid(self, size: int) -> Grid:
        """(size, size) pixels that hold all of it, in its middle, with its true aspect; the page's own is `grid`."""
        extent = np.array(self.array.shape[1:]) * self.spacing
        pixel = float(extent.max()) / size
        affine = np.diag([pixel, pixel, 1.0, 1.0])
        affine[:2, 3] = (extent - np.array(self.spacing)) / 2 - pixel * (size - 1) / 2
        return Grid((size, size), affine)

    @property
    def grid(self) -> Grid:
        """Of its own pixels."""
        return Grid((int(self.array.shape[1]), int(self.array.shape[2])), np.diag([*self.spacing, 1.0, 1.0]))

    def as_square(self, size: int, order: Literal[0, 1]) -> NDArray[Any]:
        """(1, size, size), linear or (order 0) nearest; what lies beyond the page is its minimum, or 0."""
        fill = 0.0 if order == 0 else None
        return resample(Volume(self.array, self.grid.affine), self.square_grid(size), order=order, fill=fill).array

    def from_square(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values (C, size, size) of the square on the page's pixels, (C, rows, columns), linear."""
        given = Volume(values, self.square_grid(values.shape[-1]).affine)
        return np.asarray(resample(given, self.grid, order=1, antialias=False).array, np.float32)


def page_of(volume: Volume) -> Page:
    """A slice upright.

    Raises:
        UserError: it is not a gray slice.
    """
    one = as_looked_at(gray(volume))
    if one.spatial_dims != 2:
        shape = " x ".join(str(n) for n in one.shape)
        raise UserError(f"{one.source} is {one.spatial_dims}D ({shape}) where a slice is expected")
    return Page(np.ascontiguousarray(upright_view(one.array, one)), upright_spacing(one))


def as_looked_at(volume: Volume) -> Volume:
    """A 2D NIfTI (or the like) that claims to be axial or sagittal is an exported picture: rows, then columns.

    Its affine was made up by whoever saved it; that of DICOM is the scanner's, and is refused in `problems`.
    """
    made_up = volume.spatial_dims == 2 and volume.header.get("format") != "dicom"
    if made_up and slice_plane(volume) in ("axial", "sagittal"):
        return replace(volume, header={**volume.header, "format": "raster"})
    return volume


def knows_its_spacing(volume: Volume) -> bool:
    """Whether a pixel's size in mm is known; picture files do not tell it, and then the affine is the identity."""
    return has_position(volume) or not np.array_equal(volume.affine, np.eye(4))


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

    def image(self, page: Page) -> NDArray[np.float32]:
        """(1, size, size), from 0 to 1."""
        unit = normalize_intensity(page.array, self.normalize)
        if self.normalize == "percentile":
            unit = np.asarray((unit + 1) / 2, np.float32)
        return np.asarray(replace(page, array=unit).as_square(self.size, 1), np.float32)

    def _decode(self, case: Case, labelled: bool) -> dict[str, NDArray[Any]]:
        kept: dict[str, NDArray[Any]] = {"image": self.image(page_of(case.volume("image")))}
        if labelled:
            kept["label"] = page_of(case.volume("label")).as_square(self.size, 0)[0].astype(np.uint8)
        return kept


@dataclass(frozen=True)
class DrawnOn:
    """A label map saved as a picture, laid on an image that is none: PNG masks beside DICOM slices.

    Attributes:
        label: rows and columns, as the image is looked at.
        image: what it was drawn on.
    """

    label: FieldRef
    image: FieldRef

    def load(self) -> Volume:
        """The label map on the image's own pixels.

        Raises:
            UserError: one of them cannot be read, or they differ in size.
        """
        label, image = self.label.load(), self.image.load()
        if image.spatial_dims != 2 or not has_position(image) or has_position(label):
            return label  # type: ignore[no-any-return]
        array = np.zeros((1, *image.shape), label.array.dtype)
        page = upright_view(array, as_looked_at(image))
        if page.shape[1:] != label.shape:
            sizes = [" x ".join(str(n) for n in shape) for shape in (label.shape, page.shape[1:])]
            raise UserError(f"{label.source} has {sizes[0]} rows and columns, its image {sizes[1]}")
        page[...] = label.array
        return Volume(array, image.affine, label.source, image.header)

    def fingerprint(self) -> str:
        """Of both."""
        return f"drawn {self.label.fingerprint()} {self.image.fingerprint()}"


def drawn_on(cases: Sequence[Case]) -> list[Case]:
    """Cases whose label maps may be pictures beside DICOM slices, laid on those slices."""
    found = []
    for case in cases:
        image, label = case.fields.get("image"), case.fields.get("label")
        fields = dict(case.fields)
        if image is not None and label is not None:
            fields["label"] = DrawnOn(label, image)
        found.append(replace(case, fields=fields))
    return found
