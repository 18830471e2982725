"""What the sublevel sets of an image look like: how many pieces, how many holes, at every gray value.

Pixels are closed squares, so two dark pixels that touch at a corner hang together and a hole is enclosed through its
sides alone. That is the cubical complex of GUDHI's and giotto-tda's "top-dimensional cells".

Betti curves need no persistence diagram. The pieces at a threshold are counted by labelling, the Euler characteristic
of all thresholds comes from one pass over vertices, edges and squares, and in the plane holes = pieces - Euler.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from medray.errors import UserError

FloatArray = NDArray[np.float64]
_EIGHT = np.ones((3, 3), dtype=bool)


def betti_curves(values: ArrayLike, thresholds: ArrayLike) -> NDArray[np.int64]:
    """Numbers of connected components and of holes of the sublevel sets ``values <= t``, for every threshold t.

    Args:
        values: (H, W).
        thresholds: (T,), ascending.

    Returns:
        (2, T): beta_0 and beta_1.

    Raises:
        ValueError: not an image, or thresholds that do not ascend.
    """
    values, thresholds = np.asarray(values), np.asarray(thresholds)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"Betti curves are those of an image (rows, columns), got shape {values.shape}")
    if (np.diff(thresholds) <= 0).any():
        raise ValueError("thresholds must ascend")
    level = np.searchsorted(thresholds, values)  # the first threshold that covers the pixel
    count = len(thresholds)
    pieces = np.zeros(count, dtype=np.int64)
    entering = np.bincount(level.ravel(), minlength=count + 1)[:count]
    for index in range(count):
        same = index and not entering[index]
        pieces[index] = pieces[index - 1] if same else ndimage.label(level <= index, _EIGHT)[1]
    return np.stack([pieces, pieces - _euler_curve(level, count)])


def _euler_curve(level: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Vertices - edges + squares of the squares up to each level; a side enters with the first square that has it."""
    padded = np.pad(level, 1, constant_values=count)
    across = np.minimum(padded[1:-1, :-1], padded[1:-1, 1:])
    down = np.minimum(padded[:-1, 1:-1], padded[1:, 1:-1])
    rows = np.minimum(padded[:-1], padded[1:])
    corners = np.minimum(rows[:, :-1], rows[:, 1:])

    def entering(cells: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(cells.ravel(), minlength=count + 1)[:count]

    euler = entering(corners) - entering(across) - entering(down) + entering(level)
    return np.asarray(np.cumsum(euler))


def own_grid(values: ArrayLike, num_thresholds: int) -> tuple[FloatArray, FloatArray]:
    """Thresholds from an image's own first birth to its last death, for components and for holes.

    What giotto-tda's Betti curve uses when it is fitted to every image on its own, as in the authors' code. The last
    component lives up to the image's maximum.

    Returns:
        (T,) each; a dimension in which nothing is ever born gets the range of the components.
    """
    levels = np.unique(np.asarray(values)).astype(float)
    holes = np.nonzero(betti_curves(values, levels)[1])[0]
    first, last = (holes[0], min(holes[-1] + 1, len(levels) - 1)) if len(holes) else (0, len(levels) - 1)
    spans = ((levels[0], levels[-1]), (levels[first], levels[last]))
    zero, one = (np.linspace(low, high if high > low else low + 1, num_thresholds) for low, high in spans)
    return zero, one


def persistence_bars(values: ArrayLike, dimension: int) -> FloatArray:
    """Births and deaths of components (0) or holes (1), (B, 2); the last component dies at the image's maximum.

    Raises:
        UserError: GUDHI is not installed.
    """
    values = np.asarray(values, dtype=float)
    complex_ = _gudhi().CubicalComplex(top_dimensional_cells=values)
    complex_.compute_persistence()
    bars = np.asarray(complex_.persistence_intervals_in_dimension(dimension), dtype=float).reshape(-1, 2)
    return np.asarray(np.minimum(bars, values.max()))


def silhouette(bars: FloatArray, thresholds: FloatArray, power: float) -> FloatArray:
    """Mean of the bars' triangles, each weighted by its length to the ``power``, at evenly spaced thresholds, (T,).

    Raises:
        UserError: GUDHI is not installed.
    """
    _gudhi()
    from gudhi.representations import Silhouette

    lasting = bars[bars[:, 1] > bars[:, 0]]
    if not len(lasting):
        return np.zeros(len(thresholds))
    made = Silhouette(
        weight=lambda bar: (bar[1] - bar[0]) ** power,
        resolution=len(thresholds),
        sample_range=[thresholds[0], thresholds[-1]],
        keep_endpoints=True,
    )
    return np.asarray(made.fit_transform([lasting])[0] / np.sqrt(2))  # GUDHI's triangles are those of landscapes


def _gudhi() -> Any:
    try:
        import gudhi
    except ImportError:
        raise UserError("silhouettes need GUDHI; install it with `pip install medray[topology]`") from None
    return gudhi
