"""Pictures of traced structures: traces colored by entropy, errors, entropy on and off track, a tracker at work."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from envs.axon.options import TrackingOptions
from envs.axon.rendering import draw_tracker
from envs.axon.scene import Scene
from envs.axon.traces import Trace
from medray.figures.drawing import PALETTE, to_png
from medray.metrics.tracing import COVERED_PX, LOST_PX
from medray.metrics.track_entropy import EntropyRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = NDArray[np.float64]
_TRUTH, _PLAIN = PALETTE[4], PALETTE[1]
_ENTROPY_MAP = "plasma"
_PANEL_INCHES = 3.4
_OVERLAY_PX = 512
_FRAME_MS, _LAST_MS = 80, 1500
_MAX_FRAMES = 120


def traces_png(
    image: NDArray[Any], traces: Sequence[Trace], truths: Sequence[FloatArray] = (), *, title: str = ""
) -> bytes:
    """An image, and beside it the true lines under the traces, whose color is the entropy.

    Args:
        image: (H, W), 0 to 1.
        traces: what was traced; without entropy in one color.
        truths: lines (m, 2).
        title: above everything.
    """
    from matplotlib.figure import Figure

    height, width = image.shape
    figure = Figure(figsize=(2 * _PANEL_INCHES + 0.6, _PANEL_INCHES * height / width + 0.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    for line in truths:
        right.plot(line[:, 0], line[:, 1], color=_TRUTH, linewidth=3.0, alpha=0.6)
    shown = _draw_traces(right, traces)
    right.set_title("truth (wide, blue) and traces, from the dots", fontsize=8)
    left.set_title("image", fontsize=8)
    if shown is not None:
        bar = figure.colorbar(shown, ax=right, shrink=0.8)
        bar.set_label("entropy, nats", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    if title:
        figure.suptitle(title, fontsize=10)
    return to_png(figure)


def _draw_traces(axes: Axes, traces: Sequence[Trace]) -> Any:
    """Draw traces; returns what a color bar is for, None where no entropy is known."""
    from matplotlib.collections import LineCollection

    known = np.concatenate([np.zeros(0), *[trace.entropy for trace in traces]])
    known = known[np.isfinite(known)]
    shown = None
    for trace in traces:
        pieces = np.stack([trace.points[:-1], trace.points[1:]], axis=1)
        lines = LineCollection(list(pieces), linewidths=1.4, colors=None if len(known) else _PLAIN)
        if len(known):
            lines.set(cmap=_ENTROPY_MAP, clim=(known.min(), known.max()), array=trace.entropy[:-1])
            shown = lines
        axes.add_collection(lines)
        axes.plot(*trace.points[0], "o", color=_PLAIN, markersize=4, markeredgecolor="black", markeredgewidth=0.5)
    return shown


def errors_png(errors: FloatArray, *, title: str = "") -> bytes:
    """Histogram of the distances (n,) of traced points to their line, px; those beyond 12 px in the last bar."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(np.minimum(errors, 12.0), bins=[0.25 * edge for edge in range(49)], color=PALETTE[0])
    for limit, name, side in ((COVERED_PX, "covered", -4), (LOST_PX, "lost", -4)):
        axes.axvline(limit, color="#666666", linewidth=1.0, linestyle="--")
        axes.annotate(name, (limit, 1), xycoords=("data", "axes fraction"), xytext=(side, -8), fontsize=7, ha="right",
                      textcoords="offset points")  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("distance of a traced point to its line, px (12: further)", fontsize=8)
    axes.set_ylabel("points", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, fontsize=9)
    return to_png(figure)


def entropy_png(rows: Sequence[EntropyRow], *, title: str = "") -> bytes:
    """Mean entropy on track and off track of each image that has both, joined by a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    both = [row for row in rows if row.num_on and row.num_off]
    for row in both:
        rises = row.off_mean > row.on_mean
        color, style = (PALETTE[0], "-") if rises else (PALETTE[5], "--")
        axes.plot((0, 1), (row.on_mean, row.off_mean), style, marker="o", color=color, markersize=3, linewidth=0.9)
    if both:
        means = [np.mean([row.on_mean for row in both]), np.mean([row.off_mean for row in both])]
        axes.plot((0, 1), means, "s-", color="black", markersize=6, linewidth=2, label="mean over images")
        axes.legend(fontsize=7, frameon=False)
    else:
        axes.text(0.5, 0.5, "no image has points on and off track", ha="center", fontsize=8, transform=axes.transAxes)
    axes.set_xticks((0, 1), ("on track (< 3 px)", "off track"), fontsize=8)
    axes.set_xlim(-0.4, 1.4)
    axes.set_ylabel("entropy, nats", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, fontsize=9)
    return to_png(figure)


def animation_png(scene: Scene, points: FloatArray, options: TrackingOptions) -> bytes:
    """A tracker on its way along a path (n, 2), frame by frame: an animated PNG, which browsers play."""
    from PIL import Image

    ends = np.unique(np.linspace(1, len(points), min(len(points), _MAX_FRAMES)).round().astype(int))
    frames = [Image.fromarray(draw_tracker(scene, points[:end], options)) for end in ends]
    durations = [_FRAME_MS] * (len(frames) - 1) + [_LAST_MS]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, format="PNG", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False
    )
    return buffer.getvalue()


def overlay_png(image: NDArray[Any], traces: Sequence[Trace]) -> bytes:
    """An image (H, W), 0 to 1, with its traces, at its own size or enlarged to 512 px: entropy from dark to bright."""
    from matplotlib import colormaps
    from PIL import Image, ImageDraw

    scale = max(1, -(-_OVERLAY_PX // max(image.shape)))
    gray = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    picture = gray.resize((gray.width * scale, gray.height * scale), Image.Resampling.NEAREST).convert("RGB")
    pen = ImageDraw.Draw(picture)
    known = np.concatenate([np.zeros(0), *[trace.entropy[np.isfinite(trace.entropy)] for trace in traces]])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    for trace in traces:
        places = (trace.points + 0.5) * scale - 0.5
        for start, end, entropy in zip(places[:-1], places[1:], trace.entropy, strict=False):
            share = (entropy - low) / max(high - low, 1e-9) if np.isfinite(entropy) else 0.5
            color = tuple(int(255 * part) for part in colormaps[_ENTROPY_MAP](share)[:3])
            pen.line((*start, *end), fill=color, width=max(1, scale // 2))
        (x, y), radius = places[0], max(2, scale)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_PLAIN, width=max(1, scale // 2))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
