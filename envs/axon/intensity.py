"""Gray values as the paper's trackers see them: 0 to 1, structures bright."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PERCENTILE = 99.5


def by_percentile(image: NDArray[Any], field: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Linear from the lowest value (0) to the 99.5th percentile (1), clipped; structures must be bright already.

    Args:
        image: of any shape.
        field: pixels that the two are taken from; all unless given.

    Raises:
        ValueError: it is empty or the same value everywhere.
    """
    plane = np.asarray(image, np.float32)
    values = plane if field is None else plane[field]
    if not values.size or values.min() == values.max():
        raise ValueError("the image is empty or the same value everywhere: there is nothing to track")
    low, high = float(values.min()), float(np.percentile(values, PERCENTILE))
    if high <= low:  # structures so sparse that the percentile is background
        high = float(values.max())
    return ((plane - low) / np.float32(high - low)).clip(0, 1)
