"""Pictures of traces: what is where, and that animations move."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from envs.axon import Scene, TrackingOptions
from envs.axon.traces import Trace
from medray.figures.tracing import animation_png, entropy_png, errors_png, overlay_png, traces_png
from medray.metrics.track_entropy import entropy_table

IMAGE = np.full((64, 64), 0.2, np.float32)
POINTS = np.stack([np.arange(10.0, 50.0), np.full(40, 32.0)], axis=1)
TRACE = Trace(POINTS, np.append(np.linspace(-4, -1, 39), np.nan), "steps")
PLAIN = Trace(POINTS, np.full(40, np.nan), "ridge lost")


def _open(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def test_an_overlay_is_enlarged_and_colored_along_the_trace() -> None:
    picture = np.asarray(_open(overlay_png(IMAGE, [TRACE])), dtype=int)
    assert picture.shape == (512, 512, 3)
    colored = (picture.max(axis=2) - picture.min(axis=2)) > 20
    rows = np.flatnonzero(colored.any(axis=1))
    assert abs(rows.mean() - 32.5 * 8) < 4
    middle = picture[round(32.5 * 8)]
    assert middle[45 * 8, 0] > middle[15 * 8, 0] + 100  # from purple to yellow: less and less certain


def test_a_large_image_keeps_its_size() -> None:
    assert _open(overlay_png(np.zeros((600, 700), np.float32), [PLAIN])).size == (700, 600)


def test_an_animation_ends_with_the_whole_path() -> None:
    moving = _open(animation_png(Scene(IMAGE, POINTS), POINTS, TrackingOptions()))
    assert moving.format == "PNG"
    assert moving.n_frames == len(POINTS)  # type: ignore[attr-defined]
    first = np.asarray(moving.convert("RGB"))
    moving.seek(moving.n_frames - 1)  # type: ignore[attr-defined]
    last = np.asarray(moving.convert("RGB"))
    changed = np.flatnonzero((first != last).any(axis=2).any(axis=0))
    assert changed.max() - changed.min() > 8 * 35


def test_panels_and_plots_are_pictures_whatever_is_known() -> None:
    on_off = entropy_table({"a": (TRACE.entropy, np.linspace(0, 6, 40)), "b": (PLAIN.entropy, np.zeros(40))})
    nothing = entropy_table({"b": (PLAIN.entropy, np.zeros(40))})
    for png in (
        traces_png(IMAGE, [TRACE, PLAIN], [POINTS], title="both"),
        traces_png(IMAGE, [PLAIN]),
        errors_png(np.array([0.1, 2.0, 40.0])),
        entropy_png(on_off.rows, title="one"),
        entropy_png(nothing.rows),
    ):
        assert min(_open(png).size) > 200
