"""High-resolution images of cases: slices of volumes, and pictures, all with intensities from 0 to 1.

How intensities become [0, 1] is decided once for a whole volume, so that its slices stay comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medray.data.cache import SampleCache
from medray.data.case import Case, Volume
from medray.data.fields import case_fingerprint
from medray.data.intensity import normalize_intensity
from medray.data.pictures import gray
from medray.data.sliced import SliceField, slices_as_cases
from medray.errors import UserError
from medray.systems.super_resolution.degradation import SCALE

Scaling = Literal["auto", "hu", "uint8", "percentile"]
_BELOW_ALL_BUT_CT = -200.0
_PERCENTILES = (0.1, 99.9)


@dataclass(frozen=True)
class IntensityRange:
    """The values of an image that become 0 and 1; what lies beyond them is cut off."""

    low: float
    high: float

    def to_unit(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Values of the image, any shape, as [0, 1]."""
        return np.asarray((normalize_intensity(array, "ct", window=(self.low, self.high)) + 1) / 2, dtype=np.float32)

    def from_unit(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """[0, 1] as values of the image."""
        return np.asarray(array * np.float32(self.high - self.low) + np.float32(self.low), dtype=np.float32)


def range_of(volume: Volume, scaling: Scaling, window: tuple[float, float]) -> IntensityRange:
    """Which values of an image become 0 and 1.

    Args:
        volume: the whole image.
        scaling: ``hu`` takes ``window``, ``uint8`` 0 and 255, ``percentile`` the 0.1th and 99.9th percentile, and
            ``auto`` the second for 8-bit images, the first where values reach below -200, which only CT does, and
            the third for everything else.
        window: HU.

    Raises:
        UserError: not one channel of real numbers.
    """
    array = gray(volume).array
    if scaling == "auto":
        scaling = "uint8" if array.dtype == np.uint8 else "hu" if array.min() < _BELOW_ALL_BUT_CT else "percentile"
    if scaling == "hu":
        return IntensityRange(*window)
    if scaling == "uint8":
        return IntensityRange(0.0, 255.0)
    low, high = (float(value) for value in np.percentile(array, _PERCENTILES))
    return IntensityRange(low, high if high > low else low + 1.0)


def as_slices(cases: Sequence[Case]) -> list[Case]:
    """Volumes as one case per axial slice that shows something of the patient; 2D images as they are."""
    return slices_as_cases(cases, ("image",), min_label_px=0)


class HighResReader:
    """Reads a case as an image with intensities from 0 to 1. Picklable.

    Args:
        window: of CT, HU.
        scaling: see `range_of`.
        cache: keeps what was decoded.
    """

    def __init__(
        self, window: tuple[float, float], scaling: Scaling = "auto", cache: SampleCache | None = None
    ) -> None:
        self.window = window
        self.scaling = scaling
        self.cache = cache or SampleCache(memory_gb=1.0)

    def image(self, case: Case) -> Tensor:
        """(1, H, W) float32, cut at the far ends of its axes so that both are multiples of `SCALE`.

        Raises:
            UserError: the field ``image`` cannot be read, is not 2D or not gray.
        """
        key = ("high_res", self.window, self.scaling, case_fingerprint(case, ["image"]))
        return torch.from_numpy(self.cache.get(key, lambda: {"image": self._decode(case)})["image"])

    def _decode(self, case: Case) -> NDArray[np.float32]:
        volume = gray(case.volume("image"))
        if volume.spatial_dims != 2:
            raise UserError(f"{volume.source} is {volume.spatial_dims}D where an image or a slice is expected")
        rows, columns = (length // SCALE * SCALE for length in volume.shape)
        return np.ascontiguousarray(self._range(case, volume).to_unit(volume.array)[:, :rows, :columns])

    def _range(self, case: Case, volume: Volume) -> IntensityRange:
        field = case.fields["image"]
        if not isinstance(field, SliceField):
            return range_of(volume, self.scaling, self.window)
        key = ("range", self.window, self.scaling, field.ref.fingerprint())
        limits = self.cache.get(key, lambda: _as_array(range_of(field.whole(), self.scaling, self.window)))["range"]
        return IntensityRange(*(float(limit) for limit in limits))


def _as_array(found: IntensityRange) -> dict[str, NDArray[np.float64]]:
    return {"range": np.array([found.low, found.high])}
