"""Tears of the supraspinatus in the size classes of surgeons, with the mix of Shim et al., Scientific Reports 2020."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from medray.data.phantoms.shoulder_anatomy import Tear
from medray.data.phantoms.shoulder_scanner import drawn_class

Size = Literal["none", "partial", "small", "medium", "large"]
SIZES: tuple[Size, ...] = get_args(Size)
"""In their order."""
MIX: Mapping[Size, int] = {"none": 692, "partial": 254, "small": 205, "medium": 518, "large": 255}
"""Patients of each class in the training set of the paper."""
LENGTHS_MM: Mapping[Size, tuple[float, float]] = {
    "partial": (6.0, 15.0),
    "small": (4.0, 10.0),
    "medium": (10.0, 30.0),
    "large": (30.0, 46.0),
}
"""From front to back; a partial tear's class is its depth, not its length."""
_DEPTH = (0.35, 0.65)  # of a partial tear, share of the tendon's thickness
_RETRACTION = (0.4, 0.6)  # gap along the tendon, of the length
_START_MM = (0.5, 6.0)


def drawn_size(seed: int, index: int, *, torn: bool = False) -> Size:
    """Class of the index-th case, or of the index-th that is torn: over any stretch of cases with about the mix."""
    sizes = SIZES[1:] if torn else SIZES
    return sizes[drawn_class(seed, "sizes", index, [MIX[size] for size in sizes])]


def drawn_tear(random: np.random.Generator, size: Size, *, factor: float = 1.0, error_mm: float = 0.0) -> Tear:
    """A tear of a class, at the tendon's insertion.

    Args:
        random: its stream.
        size: its class, not "none".
        factor: of its lengths.
        error_mm: standard deviation of what the length in the scan differs from the one the class was judged by, so
            that neighboring classes overlap.
    """
    length = random.uniform(*LENGTHS_MM[size])
    length = max(3.0, factor * length + error_mm * random.normal())
    return Tear(
        start_mm=random.uniform(*_START_MM),
        gap_mm=max(2.5, length * random.uniform(*_RETRACTION)),
        middle_mm=0.0,
        length_mm=length,
        depth=random.uniform(*_DEPTH) if size == "partial" else 1.0,
        articular=bool(random.random() < 0.7),
    )
