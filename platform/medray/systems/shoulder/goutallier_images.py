"""Y-view images and masks from cases: one gray channel, upright, intensities from 0 to 1."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from medray.data.cache import SampleCache
from medray.data.case import Case, Volume
from medray.data.fields import case_fingerprint
from medray.data.intensity import normalize_intensity
from medray.data.orientation import slice_plane, upright_spacing, upright_view
from medray.data.pictures import gray
from medray.data.resized import stretched
from medray.errors import UserError
from medray.systems.shoulder.goutallier_regions import FloatArray, Mask, Region, crop

_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class YView:
    """One image.

    Attributes:
        image: (H, W), 0 to 1 between its own percentiles; rows down, columns to the right.
        spacing: size of a pixel, downward and to the right, mm; 1 where the file does not say.
    """

    image: FloatArray
    spacing: tuple[float, float]


def one_slice(volume: Volume) -> Volume:
    """The image, if it is a single gray slice that could be a Y-view.

    Raises:
        UserError: a volume of several slices, color, or a DICOM slice that says it is axial or coronal.
    """
    if volume.spatial_dims != 2:
        shape = " x ".join(str(n) for n in volume.shape)
        raise UserError(f"{volume.source} is a volume ({shape}) where one Y-view slice is expected")
    plane = slice_plane(volume)
    if volume.header.get("format") == "dicom" and plane in ("axial", "coronal"):
        raise UserError(f"{volume.source} is of the {plane} plane where the sagittal Y-view is expected")
    return gray(volume)


def read_y_view(volume: Volume) -> YView:
    """An image as the networks and people see it.

    Raises:
        UserError: as `one_slice`.
    """
    single = one_slice(volume)
    unit = (normalize_intensity(single.array, "percentile", percentiles=_PERCENTILES) + 1) / 2
    return YView(np.ascontiguousarray(upright_view(unit, single)[0]), upright_spacing(single))


def read_mask(volume: Volume) -> Mask:
    """A mask as it is looked at, (H, W)."""
    return np.ascontiguousarray(upright_view(volume.array[:1] != 0, volume)[0])


def network_input(image: FloatArray, size: int) -> FloatArray:
    """An image (H, W) as a network sees it, (1, size, size)."""
    return stretched(image[None], (size, size))


def shared_cache(cache: SampleCache) -> SampleCache:
    """The same for all folds that a process trains, since they see the same images.

    Args:
        cache: of one fold; its bounds and folder decide.
    """
    return _shared(*cache.__getstate__().items())


@functools.lru_cache(maxsize=1)
def _shared(*state: tuple[str, Any]) -> SampleCache:
    cache = SampleCache()
    cache.__setstate__(dict(state))
    return cache


class YViewReader:
    """Reads cases through the cache. Picklable.

    Args:
        size: rows and columns of the networks' input.
        cache: keeps what was decoded.
    """

    def __init__(self, size: int, cache: SampleCache | None = None) -> None:
        self.size = size
        self.cache = cache or SampleCache(memory_gb=1.0)

    def read_ahead(self, cases: Iterable[Case]) -> None:
        """Decode everything now, for processes forked from this one later: else each decodes for itself.

        Raises:
            UserError: as `image` and `mask`.
        """
        for case in cases:
            self.network_image(case)
            self.network_mask(case)

    def image(self, case: Case) -> FloatArray:
        """The original, (H, W), 0 to 1.

        Raises:
            UserError: it cannot be read, or is not a gray 2D image.
        """
        key = ("y_view", case_fingerprint(case, ["image"]))
        return self.cache.get(key, lambda: {"image": read_y_view(case.volume("image")).image})["image"]

    def mask(self, case: Case) -> Mask:
        """The muscle as it was drawn, (H, W).

        Raises:
            UserError: it cannot be read.
        """
        key = ("y_mask", case_fingerprint(case, ["image", "label"]))
        return self.cache.get(key, lambda: {"mask": read_mask(case.volume("label"))})["mask"]

    def network_image(self, case: Case) -> FloatArray:
        """The image stretched to the network's input, (1, S, S)."""
        key = ("y_input", self.size, case_fingerprint(case, ["image"]))
        return self.cache.get(key, lambda: {"image": network_input(self.image(case), self.size)})["image"]

    def network_mask(self, case: Case) -> FloatArray:
        """The mask on the same pixels, (1, S, S), 0 and 1."""
        key = ("y_target", self.size, case_fingerprint(case, ["image", "label"]))
        return self.cache.get(key, lambda: {"mask": self._target(case)})["mask"]

    def _target(self, case: Case) -> FloatArray:
        return (network_input(self.mask(case).astype(np.float32), self.size) >= 0.5).astype(np.float32)

    def crop(self, case: Case, region: Region, *, mask_background: bool) -> FloatArray:
        """What the classifier sees of a region, (1, S, S); see `goutallier_regions.crop`."""
        inside = region.inside.tobytes() if mask_background else b""
        key = ("y_crop", self.size, case_fingerprint(case, ["image"]), region.box, inside)
        kept = self.cache.get(
            key, lambda: {"image": crop(self.image(case), region, self.size, mask_background=mask_background)}
        )
        return kept["image"]
