"""Pictures of a tracker at work."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from envs.axon.options import WINDOW_PX, TrackingOptions
from envs.axon.scene import Scene

TRUTH, PATH, WINDOW = (0, 158, 115), (230, 159, 0), (86, 180, 233)
"""Colours that people with any colour vision tell apart (Okabe and Ito)."""
_MIN_SIDE = 512


def draw_tracker(scene: Scene, path: NDArray[np.float64], options: TrackingOptions) -> NDArray[np.uint8]:
    """The image enlarged, its centreline in green, the path so far in orange and the windows seen now in blue.

    Args:
        scene: image and centreline.
        path: (n, 2) positions, px.
        options: say how large the windows are.

    Returns:
        (H, W, 3), at least 512 px on the shorter side.
    """
    scale = max(1, -(-_MIN_SIDE // min(scene.image.shape)))
    gray = Image.fromarray((scene.image * 255).astype(np.uint8))
    picture = gray.resize((gray.width * scale, gray.height * scale), Image.Resampling.NEAREST).convert("RGB")
    pen = ImageDraw.Draw(picture)
    if scene.centreline is not None:
        pen.line(_on(scene.centreline, scale), fill=TRUTH, width=max(1, scale // 2))
    pen.line(_on(path, scale), fill=PATH, width=max(2, scale // 2), joint="curve")
    for spacing in options.scales:
        half = spacing * options.view_scale * WINDOW_PX / 2
        low, high = _on(np.array([path[-1] - half, path[-1] + half]), scale)
        pen.rectangle((*low, *high), outline=WINDOW)
    (x, y), radius = _on(path[-1:], scale)[0], max(2, scale)
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=PATH)
    return np.asarray(picture)


def _on(points: NDArray[np.float64], scale: int) -> list[tuple[float, float]]:
    """Positions in the enlarged picture: pixel centres are at integers in both."""
    return [((x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5) for x, y in points]


class Screen:
    """A window that shows picture after picture, by Matplotlib.

    Args:
        seconds: how long each stays.
    """

    def __init__(self, seconds: float) -> None:
        import matplotlib.pyplot as plt

        self._plt, self._seconds = plt, seconds
        self._figure, axes = plt.subplots(figsize=(6, 6))
        axes.set_axis_off()
        self._axes = axes
        self._shown: Any = None

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Replace what is shown."""
        if self._shown is None or self._shown.get_array().shape != picture.shape:
            self._axes.clear()
            self._axes.set_axis_off()
            self._shown = self._axes.imshow(picture)
        self._shown.set_data(picture)
        self._figure.canvas.draw_idle()
        self._figure.canvas.flush_events()
        if self._plt.get_backend().lower() != "agg":
            self._plt.pause(self._seconds)

    def close(self) -> None:
        """Close the window."""
        self._plt.close(self._figure)
