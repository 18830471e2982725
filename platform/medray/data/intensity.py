"""Intensities of different scanners on one scale."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Mode = Literal["percentile", "ct", "zscore", "unit", "none"]
MODES: tuple[Mode, ...] = ("percentile", "ct", "zscore", "unit", "none")
CT_WINDOW = (-160.0, 240.0)
"""Abdominal soft tissue, HU."""


def normalize_intensity(
    array: NDArray[Any],
    mode: Mode = "percentile",
    *,
    window: tuple[float, float] = CT_WINDOW,
    percentiles: tuple[float, float] = (1.0, 99.0),
) -> NDArray[np.float32]:
    """Map an image's values to a common scale, channel by channel.

    ``ct``: HU clipped to ``window`` and mapped linearly to [-1, 1], the same map for every image. ``percentile``:
    clipped to the channel's own ``percentiles`` and mapped to [-1, 1], for modalities without a unit (MR, ultrasound).
    ``zscore``: mean 0, standard deviation 1. ``unit``: the channel's minimum and maximum to 0 and 1. ``none``: only the
    type changes. A constant channel becomes 0 in the modes that look at the image.

    Args:
        array: (C, *spatial), real.
        mode: one of `MODES`.
        window: HU, for ``ct``.
        percentiles: in percent, for ``percentile``.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: unknown mode, or limits not in ascending order.
    """
    values = np.asarray(array, dtype=np.float32)
    if mode == "none":
        return values
    if mode not in MODES:
        raise ValueError(f"intensity mode is one of {', '.join(MODES)}, got {mode!r}")
    low, high = window if mode == "ct" else percentiles
    if not low < high:
        raise ValueError(f"limits must ascend, got {low:g} and {high:g}")
    if mode == "ct":
        return _to_unit(values, low, high)
    if mode == "unit":
        return np.stack([_min_max(channel) for channel in values])
    return np.stack([_zscore(c) if mode == "zscore" else _to_unit(c, *np.percentile(c, (low, high))) for c in values])


def _to_unit(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    if high <= low:
        return np.zeros_like(values)
    clipped = np.clip(values, np.float32(low), np.float32(high))
    return np.asarray((clipped - np.float32(low)) * np.float32(2.0 / (high - low)) - np.float32(1.0), dtype=np.float32)


def _min_max(values: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = float(values.min()), float(values.max())
    return np.asarray((values - low) / (high - low or 1.0), dtype=np.float32)


def _zscore(values: NDArray[np.float32]) -> NDArray[np.float32]:
    mean, deviation = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    return np.asarray((values - mean) / (deviation or 1.0), dtype=np.float32)
