"""The picture of one registered pair, as reports and predictions show it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from medray.figures.drawing import registration_overview, to_png
from medray.nn.warp import warp
from medray.system import Figure
from medray.systems.registration.pair_reader import ImagePair


def overview_figure(
    pair: ImagePair,
    displacement: NDArray[np.float32],
    *,
    name: str,
    caption: str,
    label_names: Mapping[int, str] | None = None,
) -> Figure:
    """Images, checkerboards and outlines before and after, and the deformed grid.

    Args:
        pair: the images on the work grid, with labels where there are any.
        displacement: (D, *shape) in pixels.
        name: of the picture's file, without suffix.
        caption: what the report says under it; also stands above the picture.
        label_names: organ value to name, for the legend.
    """
    moving = torch.from_numpy(pair.moving)[None, None]
    warped = warp(moving, torch.from_numpy(np.ascontiguousarray(displacement))[None])[0, 0].numpy()
    figure = registration_overview(
        pair.moving,
        pair.fixed,
        warped,
        displacement,
        moving_label=pair.moving_label,
        fixed_label=pair.fixed_label,
        label_names=label_names,
        affine=pair.affine,
        title=caption,
    )
    return Figure(name=name, caption=caption, png=to_png(figure))
