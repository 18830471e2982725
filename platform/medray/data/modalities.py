"""2D cases with a main image, an auxiliary one and a label map, as small arrays that lie on each other.

Intensities as M-VAAL has them of MRI (Khanal et al., MIUA 2023, sec. 3.2): the brightest and darkest percent clipped,
then divided by the largest value, so that they lie in [0, 1]; masks become 0 and 1. Radiographs likewise, which the
paper divides by 255: files have other depths too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.transform import resize

from medray.data.cache import SampleCache
from medray.data.case import Case, Volume
from medray.data.fields import case_fingerprint
from medray.data.resized import stretched
from medray.errors import UserError
from medray.storage import StorageError

MAIN, AUXILIARY, LABEL = "image", "auxiliary", "label"
_TAIL = 0.01


class ModalReader:
    """Reads fields of 2D cases at one size, through the cache.

    Args:
        size: rows and columns of what is read, px; the image's own where None.
        crop: side of the middle square that is cut out first, px; None takes all. Smaller images are taken whole.
        cache: keeps what was decoded.
    """

    def __init__(self, size: int | None, *, crop: int | None = None, cache: SampleCache | None = None) -> None:
        self.size, self.crop = size, crop
        self.cache = cache or SampleCache()

    def image(self, case: Case, field: str = MAIN) -> NDArray[np.float32]:
        """(1, H, W) in [0, 1], float32; several channels become their mean.

        Raises:
            UserError: the field cannot be read, or is not 2D.
        """
        return self._read(case, field, self._gray)

    def label(self, case: Case) -> NDArray[np.uint8]:
        """(1, H, W), the values of the label map.

        Raises:
            UserError: as `image`.
        """
        return self._read(case, LABEL, self._values)

    def read_ahead(self, cases: Iterable[Case], fields: Sequence[str] = (MAIN,)) -> None:
        """Put slices of volumes into the cache, volume by volume, so that each volume is decoded once.

        For training, which reads them in random order. Other cases are passed over, and what is missing or unreadable.

        Raises:
            StorageError: object storage cannot be used.
        """
        for case in sorted((case for case in cases if "slice" in case.attributes), key=lambda case: case.id):
            for field in (name for name in fields if name in case.fields):
                try:
                    self.label(case) if field == LABEL else self.image(case, field)
                except StorageError:
                    raise
                except UserError:
                    continue

    def on_grid(self, volume: Volume) -> NDArray[np.float32]:
        """An image that was read already, as `image` gives it."""
        return self._gray(_flat(volume))

    def _read(self, case: Case, field: str, make: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
        key = ("modality", self.size, self.crop, make.__name__, case_fingerprint(case, [field]))
        return self.cache.get(key, lambda: {"array": make(_flat(case.volume(field)))})["array"]

    def _gray(self, array: NDArray[Any]) -> NDArray[np.float32]:
        gray = array.mean(axis=0, dtype=np.float32)
        low, high = np.quantile(gray, (_TAIL, 1 - _TAIL))
        if low < high and len(np.unique(gray)) > 2:  # else a mask, or less than a percent that is not background
            gray = np.clip(gray, low, high)
        gray = (gray - min(0.0, float(gray.min()))) / max(float(gray.max() - min(0.0, float(gray.min()))), 1e-6)
        cut = self._cut(gray)
        return stretched(cut[None], cut.shape if self.size is None else (self.size, self.size))

    def _values(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        cut = self._cut(array.max(axis=0))
        if self.size is not None and cut.shape != (self.size, self.size):
            cut = resize(cut, (self.size, self.size), order=0, mode="edge", anti_aliasing=False, preserve_range=True)
        return np.asarray(cut[None], dtype=np.uint8)

    def _cut(self, array: NDArray[Any]) -> NDArray[Any]:
        if self.crop is None:
            return array
        starts = [max(0, (n - self.crop) // 2) for n in array.shape]
        return array[tuple(slice(start, start + self.crop) for start in starts)]


def _flat(volume: Volume) -> NDArray[Any]:
    if volume.spatial_dims != 2:
        shape = " x ".join(str(n) for n in volume.shape)
        raise UserError(f"{volume.source} is 3D ({shape}) where a 2D image is expected")
    return volume.array
