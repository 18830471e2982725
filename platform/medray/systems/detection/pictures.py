"""Pictures of detected points."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from medray.figures.drawing import PALETTE, to_png

_RING_PX = 5
_PANEL_PX = 160


def overlay_png(pixels: NDArray[np.uint8], points: NDArray[np.float64]) -> bytes:
    """The image at its own size with a ring around every point (N, 2), rows and columns."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for row, column in points:
        box = (column - _RING_PX, row - _RING_PX, column + _RING_PX, row + _RING_PX)
        draw.ellipse(tuple(v + d for v, d in zip(box, (-1, -1, 1, 1), strict=True)), outline="black")
        draw.ellipse(box, outline=PALETTE[6])
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def detection_figure(
    pixels: NDArray[np.uint8],
    maps: dict[str, NDArray[np.float32]],
    detected: NDArray[np.float64],
    reference: NDArray[np.float64],
    *,
    title: str,
) -> bytes:
    """The upper left part of an image with detections (rings) and references (crosses), beside the maps it came from.

    Args:
        pixels: (H, W, 3).
        maps: what to show beside it, (H, W) each, under its caption; each on a scale of its own.
        detected: (N, 2), rows and columns, px.
        reference: (M, 2), likewise.
        title: above everything.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * (1 + len(maps)), 3.9), layout="constrained")
    part = (slice(0, _PANEL_PX), slice(0, _PANEL_PX))
    axes = figure.subplots(1, 1 + len(maps), squeeze=False)[0]
    bright = max(float(np.percentile(pixels, 99.5)), 1.0)  # fluorescence is dark
    axes[0].imshow(np.clip(pixels[part] / bright, 0, 1))
    style = {"s": 70, "facecolors": "none", "linewidths": 1.4}
    axes[0].scatter(detected[:, 1], detected[:, 0], edgecolors=PALETTE[6], label="detected", **style)
    axes[0].scatter(reference[:, 1], reference[:, 0], marker="+", s=45, c=PALETTE[2], label="reference")
    axes[0].set_title("detected (rings) and annotated (crosses)", fontsize=8)
    for one, (caption, values) in zip(axes[1:], maps.items(), strict=True):
        shown = one.imshow(values[part], cmap="gray_r", interpolation="nearest")
        one.set_title(caption, fontsize=8)
        figure.colorbar(shown, ax=one, shrink=0.75).ax.tick_params(labelsize=7)
    for one in axes:
        one.set(xticks=[], yticks=[], xlim=(-0.5, min(_PANEL_PX, pixels.shape[1]) - 0.5))
        one.set_ylim(min(_PANEL_PX, pixels.shape[0]) - 0.5, -0.5)
    figure.suptitle(title, fontsize=10)
    return to_png(figure)
