"""Gray values as trackers see them: 0 to 1, structures bright."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PERCENTILE = 99.5


def by_percentile(image: NDArray[Any]) -> NDArray[np.float32]:
    """Divided by its 99.5th percentile and clipped to 0 .. 1; structures must be bright already.

    Raises:
        ValueError: the image has no such percentile above 0: it is empty or black.
    """
    top = float(np.percentile(image, PERCENTILE)) if image.size else 0.0
    if not top > 0:
        raise ValueError("the image is empty or black: its gray values do not reach above 0")
    return (np.asarray(image, np.float32) / np.float32(top)).clip(0, 1)
