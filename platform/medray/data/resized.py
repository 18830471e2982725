"""2D images stretched to one size, for networks that take all of an image whatever its extent; and results back.

For photographs, radiographs and ultrasound, whose files carry no spacing. What is cut into slices on a grid of mm is
read by `medray.data.slices`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.transform import resize

from medray.data.cache import SampleCache
from medray.data.case import Case, Volume
from medray.data.fields import case_fingerprint, is_label_name
from medray.data.intensity import Mode, normalize_intensity
from medray.errors import UserError


@dataclass(frozen=True)
class ResizedImage:
    """An image on the network's grid.

    Attributes:
        image: (1, size, size), gray.
        mask: (size, size), 1 where any of the case's label maps is not 0; None where it has none.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.uint8] | None


class ResizedReader:
    """Reads 2D cases at one size, through the cache.

    Args:
        size: rows and columns, px.
        normalize: intensities, before resizing.
        cache: keeps what was decoded.
    """

    def __init__(self, size: int, *, normalize: Mode = "unit", cache: SampleCache | None = None) -> None:
        self.size, self.normalize = size, normalize
        self.cache = cache or SampleCache()

    def read(self, case: Case) -> ResizedImage:
        """The case's ``image``, and the union of its label maps (data sets keep a file per lesion).

        Raises:
            UserError: a file cannot be read, or is no 2D image.
        """
        labels = [name for name in case.fields if is_label_name(name)]
        key = ("resized", self.size, self.normalize, case_fingerprint(case, ["image", *labels]))
        kept = self.cache.get(key, lambda: self._decode(case, labels))
        return ResizedImage(kept["image"], kept.get("mask"))

    def on_grid(self, image: Volume) -> NDArray[np.float32]:
        """An image (C, H, W) as (1, size, size).

        Raises:
            UserError: it is not 2D.
        """
        if image.spatial_dims != 2:
            shape = " x ".join(str(n) for n in image.shape)
            raise UserError(f"{image.source} is 3D ({shape}) where a 2D image is expected")
        gray = normalize_intensity(image.array.mean(axis=0, keepdims=True, dtype=np.float32), self.normalize)
        return stretched(gray, (self.size, self.size))

    def _decode(self, case: Case, labels: Sequence[str]) -> dict[str, NDArray[Any]]:
        kept: dict[str, NDArray[Any]] = {"image": self.on_grid(case.volume("image"))}
        if labels:
            masks = [(case.volume(name).array != 0).any(axis=0) for name in labels]
            union = np.logical_or.reduce(masks).astype(np.float32)
            kept["mask"] = (stretched(union[None], (self.size, self.size))[0] >= 0.5).astype(np.uint8)
        return kept


def back_to(values: NDArray[np.float32], original: Volume) -> NDArray[np.float32]:
    """Per-pixel values (size, size), such as probabilities, on the image's own pixels (H, W)."""
    return stretched(values[None], original.shape)[0]


def stretched(channels: NDArray[np.floating[Any]], shape: Sequence[int]) -> NDArray[np.float32]:
    """Channels (C, H, W) of another size, linear; smoothed first where they become smaller."""
    if channels.shape[1:] == tuple(shape):
        return channels.astype(np.float32)
    smaller = any(new < old for new, old in zip(shape, channels.shape[1:], strict=True))
    made = [resize(c, tuple(shape), order=1, mode="edge", anti_aliasing=smaller) for c in channels]
    return np.stack(made).astype(np.float32)
