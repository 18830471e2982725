"""Slides of stained tissue: where there is tissue, how a slide is translated tile by tile, other colors for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medray.data.regions import Picture, writing_picture
from medray.data.writers import write_bytes
from medray.figures.drawing import to_png
from medray.metrics.color import color_counts, color_distance
from medray.nn.tiling import Tiling, tiled_bands
from medray.system import Prediction

Pixels = NDArray[np.uint8]
_MAX_SEEDS = 200_000
_THUMBNAIL_PX = 600


def to_image(pixels: NDArray[np.generic]) -> Tensor:
    """(H, W, 3) of 0 to 255 as (3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 0)).astype(np.float32)) / 127.5 - 1


def to_pixels(image: Tensor) -> Pixels:
    """(3, H, W) in [-1, 1] as (H, W, 3) of 0 to 255."""
    return np.asarray(((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())


def tissue_pixels(pixels: Pixels, window: int) -> NDArray[np.int64]:
    """Flat indices of pixels darker than their surroundings (adaptive threshold); of all pixels where none is.

    Of large slides a regular part of them.
    """
    from skimage.filters import threshold_local

    gray = pixels.astype(np.float32).mean(axis=2)
    found = np.flatnonzero(gray < threshold_local(gray, window, offset=2.0))
    found = found if len(found) else np.arange(gray.size)
    return found[:: -(-len(found) // _MAX_SEEDS)].astype(np.int64)


def color_augmented(pixels: NDArray[np.generic], draws: Sequence[float]) -> Pixels:
    """Other brightness (+-20 %), contrast (+-30 %), hue (+-0.08 of a turn), saturation and value (+-30 %).

    Args:
        pixels: (H, W, 3), 0 to 255.
        draws: five numbers from 0 to 1; 0.5 changes nothing.
    """
    from skimage.color import hsv2rgb, rgb2hsv

    brightness, contrast, hue, saturation, value = (2 * draw - 1 for draw in draws)
    image = np.asarray(pixels, dtype=np.float32) / 255
    image = (image - image.mean()) * (1 + 0.3 * contrast) + image.mean() + 0.2 * brightness
    hsv = rgb2hsv(np.clip(image, 0, 1))
    hsv[..., 0] = (hsv[..., 0] + 0.08 * hue) % 1
    hsv[..., 1:] = np.clip(hsv[..., 1:] * (1 + 0.3 * np.array([saturation, value])), 0, 1)
    return np.asarray(np.rint(255 * hsv2rgb(hsv)), dtype=np.uint8)


@dataclass(frozen=True)
class Reinhard:
    """Mean and deviation of a lab's slides in CIE Lab, to which another slide is matched (Reinhard et al. 2001)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Pixels) -> Pixels:
        """The slide with this mean and deviation."""
        from skimage.color import lab2rgb, rgb2lab

        lab = rgb2lab(pixels)
        own_mean, own_std = lab.mean(axis=(0, 1)), lab.std(axis=(0, 1))
        moved = (lab - own_mean) / np.maximum(own_std, 1e-3) * np.asarray(self.std) + np.asarray(self.mean)
        return np.asarray(np.rint(255 * np.clip(lab2rgb(moved), 0, 1)), dtype=np.uint8)


def reinhard_of(slides: Iterator[Pixels]) -> Reinhard:
    """Of all pixels of a lab's slides."""
    from skimage.color import rgb2lab

    total, squares, count = np.zeros(3), np.zeros(3), 0
    for pixels in slides:
        lab = rgb2lab(pixels).reshape(-1, 3)
        total, squares, count = total + lab.sum(0), squares + (lab**2).sum(0), count + len(lab)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return Reinhard(tuple(mean.tolist()), tuple(std.tolist()))


def translated_bands(network: nn.Module, slide: Picture, tiling: Tiling, multiple: int) -> Iterator[tuple[int, Pixels]]:
    """A slide through a generator, in bands of finished rows (first row, (rows, W, 3)).

    A slide that fits into one tile goes through as a whole, mirrored to sides the generator takes; its statistics are
    then those of the slide. A larger one goes in overlapping tiles (sec. 3 of de Bel et al., MIDL 2019).
    """
    longest = max(slide.shape[:2])
    if longest <= tiling.tile:
        side = -(-longest // multiple) * multiple
        tiling = Tiling(tile=side, kept=side, step=side)

    @torch.no_grad()
    def predict(tile: NDArray[np.generic]) -> Tensor:
        device = next(network.parameters()).device
        answer: Tensor = network(to_image(tile)[None].to(device))[0]
        return answer.cpu()

    for top, band in tiled_bands(slide.read, slide.shape, predict, tiling):
        yield top, to_pixels(band)


def translated(network: nn.Module, slide: Picture, tiling: Tiling, multiple: int) -> Pixels:
    """The whole translation, (H, W, 3)."""
    out = np.empty(slide.shape, dtype=np.uint8)
    for top, band in translated_bands(network, slide, tiling, multiple):
        out[top : top + len(band)] = band
    return out


def write_translation(
    bands: Callable[[], Iterator[tuple[int, Pixels]]], slide: Picture, reference: NDArray[np.int64], out: Path
) -> Prediction:
    """Write a translation band by band, its measurements as JSON, and a picture of before and after.

    Args:
        bands: the translation, as `translated_bands`.
        slide: what is translated.
        reference: color counts of the lab it is made to look like.
        out: .png, .tif or .tiff.

    Raises:
        UserError: another suffix, or the folder cannot be written.
    """
    started = time.perf_counter()
    counts = np.zeros((2, 3, 256), dtype=np.int64)
    every = max(1, -(-max(slide.shape[:2]) // _THUMBNAIL_PX))
    small: list[list[Pixels]] = [[], []]
    with writing_picture(out, slide.shape[:2]) as pixels:
        for top, band in bands():
            pixels[top : top + len(band)] = band
            before = slide.read(top, 0, len(band), slide.shape[1])
            for which, part in enumerate((before, band)):
                counts[which] += color_counts([part])
                small[which].append(part[-top % every :: every, ::every].copy())
    seconds = time.perf_counter() - started
    metrics = {
        "color_distance_before_levels": color_distance(counts[0], reference),
        "color_distance_after_levels": color_distance(counts[1], reference),
    }
    figure = stain_figure([np.concatenate(part) for part in small], ("before", "after"), title=out.name)
    files = {
        "translated": out,
        "measurements": write_bytes(out.with_name(f"{out.stem}_colors.json"), json.dumps(metrics, indent=1).encode()),
        "picture": write_bytes(out.with_name(f"{out.stem}_overview.png"), figure),
    }
    return Prediction(files=files, metrics=metrics, seconds=seconds)


def stain_figure(images: Sequence[NDArray[np.generic]], captions: Sequence[str], *, title: str) -> bytes:
    """Pictures side by side; label maps (H, W) in colors of their own."""
    from matplotlib.figure import Figure

    last = max((int(image.max()) for image in images if image.ndim == 2), default=1)
    classes = {"cmap": "viridis", "vmin": 0, "vmax": last, "interpolation": "nearest"}
    figure = Figure(figsize=(3.0 * len(images), 3.6), layout="constrained")
    for axes, image, caption in zip(figure.subplots(1, len(images), squeeze=False)[0], images, captions, strict=True):
        axes.imshow(image, **({} if image.ndim == 3 else classes))
        axes.set_title(caption, fontsize=8)
        axes.set(xticks=[], yticks=[])
    figure.suptitle(title, fontsize=9)
    return to_png(figure)
