"""Is a tracker less certain off the track than on it? Entropy within 3 px of the centreline and beyond, per image.

Dai et al., MIDL 2019, table 6. Their caption speaks of a paired test on all points within all images; points on and off
the track have no partners, so the pairs here are the two means of each image that has both, and all points together are
compared by Welch's test, which needs no pairs (and takes neighboring points for independent, which they are not).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medray.metrics.tracing import COVERED_PX

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class EntropyRow:
    """One image.

    Attributes:
        image: its name.
        on_mean: mean entropy of the points less than 3 px off, in nats; nan where there is none.
        on_sd: their standard deviation.
        off_mean: the same of the other points.
        off_sd: their standard deviation.
        num_on: how many are on the track.
        num_off: and how many off it.
    """

    image: str
    on_mean: float
    on_sd: float
    off_mean: float
    off_sd: float
    num_on: int
    num_off: int


@dataclass(frozen=True)
class EntropyTable:
    """All images.

    Attributes:
        rows: one per image.
        difference: mean over the images that have points on and off track of off - on; above 0 if entropy tells.
        p_images: two-tailed paired t-test of those images' two means; nan for fewer than two.
        num_images: of the paired test.
        point_difference: mean of all points off the track - mean of all on it.
        p_points: two-tailed Welch's t-test of all points.
    """

    rows: Sequence[EntropyRow]
    difference: float
    p_images: float
    num_images: int
    point_difference: float
    p_points: float


def entropy_table(
    images: Mapping[str, tuple[FloatArray, FloatArray]], *, threshold: float = COVERED_PX
) -> EntropyTable:
    """Compare entropy on and off track.

    Args:
        images: by name, entropy (n,) in nats and distance to the centreline (n,) in px of all traced points; points
            whose entropy is nan are left out.
        threshold: a point nearer than this is on the track.
    """
    on, off = [], []
    for entropy, distance in images.values():
        known = np.isfinite(entropy)
        near = distance[known] < threshold
        on.append(entropy[known][near])
        off.append(entropy[known][~near])
    rows = [
        EntropyRow(name, *_mean_sd(a), *_mean_sd(b), len(a), len(b)) for name, a, b in zip(images, on, off, strict=True)
    ]
    pairs = np.array([[row.on_mean, row.off_mean] for row in rows if row.num_on and row.num_off]).reshape(-1, 2)
    all_on, all_off = (np.concatenate([np.zeros(0), *values]) for values in (on, off))
    return EntropyTable(
        rows=rows,
        difference=float(np.diff(pairs, axis=1).mean()) if len(pairs) else float("nan"),
        p_images=_p(stats.ttest_rel(pairs[:, 0], pairs[:, 1])) if len(pairs) > 1 else float("nan"),
        num_images=len(pairs),
        point_difference=_mean_sd(all_off)[0] - _mean_sd(all_on)[0],
        p_points=_p(stats.ttest_ind(all_on, all_off, equal_var=False))
        if min(len(all_on), len(all_off)) > 1
        else float("nan"),
    )


def _mean_sd(values: FloatArray) -> tuple[float, float]:
    return (float(values.mean()), float(values.std())) if len(values) else (float("nan"), float("nan"))


def _p(result: Any) -> float:
    return float(result.pvalue)
