"""CSS-Net on a user's file: a slice, or a volume slice by slice, by the segmentation module alone."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medray.data.case import Volume
from medray.data.orientation import slice_axis, slice_of, slice_plane, upright_view
from medray.data.pictures import gray
from medray.data.readers import read_volume
from medray.data.writers import beside, write_bytes, write_json, write_volume
from medray.errors import UserError
from medray.figures.drawing import to_png
from medray.system import Prediction, PredictRequest
from medray.systems.shoulder.css_building import trained_segmenter
from medray.systems.shoulder.css_config import CssConfig
from medray.systems.shoulder.css_evaluation import segment
from medray.systems.shoulder.css_pictures import Marked, marked_slices
from medray.systems.shoulder.css_reading import Page, SliceSquares, as_looked_at, knows_its_spacing, page_of
from medray.systems.shoulder.css_substitution import TEAR, TENDON

_SHOWN = 4
_ANTERIOR = 1


@dataclass(frozen=True)
class Found:
    """One slice of the input.

    Attributes:
        index: along the volume; 0 for a slice.
        page: the slice upright.
        labels: (rows, columns) uint8, 0 to 2.
        tear: largest probability of a tear among its pixels.
    """

    index: int
    page: Page
    labels: NDArray[np.uint8]
    tear: float


def predict_file(config: CssConfig, weights: Path | None, request: PredictRequest) -> Prediction:
    """Segment a file and write label map, measurements, a table of slices, and a picture.

    Raises:
        UserError: the input is no gray slice or coronal volume, or the result cannot be written as asked for.
    """
    volume = gray(read_volume(request.inputs[0]))
    refuse_other_planes(volume)
    read, segmenter = SliceSquares(config.size_px, config.normalize), trained_segmenter(config, weights)
    result = replace(volume, array=np.zeros(volume.array.shape, np.uint8))
    found: list[Found] = []
    started = time.perf_counter()
    for index, (one, target) in enumerate(zip(slices_of(volume), slices_of(result), strict=True)):
        page = page_of(one)
        probabilities = segment(segmenter, read, page)
        labels = probabilities.argmax(0).astype(np.uint8)
        upright_view(target.array, as_looked_at(one))[0][...] = labels
        found.append(Found(index, page, labels, float(probabilities[TEAR].max())))
    seconds = time.perf_counter() - started
    known = knows_its_spacing(volume)
    rows = [measure(one, known) for one in found]
    measured = _overall(rows, known)
    shown = sorted(found, key=lambda one: (-int((one.labels == TEAR).sum()), -int((one.labels > 0).sum())))[:_SHOWN]
    name = Path(volume.source).name
    marked = [
        Marked(one.page.array[0], one.labels, None, f"{name}" + (f"  slice {one.index}" if len(found) > 1 else ""),
               one.page.spacing if known else None)
        for one in shown
    ]  # fmt: skip
    files = {
        "labels": write_volume(result, request.out),
        "measurements": write_json(beside(request.out, "_measurements.json"), measured),
        "slices": write_bytes(beside(request.out, "_slices.csv"), _table(rows)),
        "picture": write_bytes(beside(request.out, "_overview.png"), to_png(marked_slices(marked))),
    }
    return Prediction(files, measured, seconds)


def refuse_other_planes(volume: Volume) -> None:
    """CSS-Net has seen oblique-coronal slices.

    Raises:
        UserError: the file says that its slices are axial or sagittal.
    """
    if reason := other_plane(volume):
        raise UserError(f"{volume.source}: {reason}")


def other_plane(volume: Volume) -> str:
    """Why the slices of an image are not coronal; empty where they are, or where the file does not say."""
    plane = slice_plane(as_looked_at(volume))
    return f"its slices are {plane} where (oblique) coronal ones are expected" if plane not in ("", "coronal") else ""


def slices_of(volume: Volume) -> Iterator[Volume]:
    """The slices of a volume in order, each a 2D image in its place, without copies; a 2D image itself."""
    if volume.spatial_dims == 2:
        yield volume
        return
    axis = slice_axis(volume, _ANTERIOR)
    for index in range(volume.shape[axis]):
        yield slice_of(volume, axis, index)


def measure(one: Found, known: bool) -> dict[str, float]:
    """Areas of tendon and tear and the tear's length in a slice, in mm where a pixel's size is known."""
    spacing = one.page.spacing if known else (1.0, 1.0)
    area, length = ("mm2", "mm") if known else ("px", "px")
    pixel = spacing[0] * spacing[1]
    return {
        "slice": float(one.index),
        f"tendon_area_{area}": pixel * float((one.labels == TENDON).sum()),
        f"tear_area_{area}": pixel * float((one.labels == TEAR).sum()),
        f"tear_length_{length}": longest_extent(one.labels == TEAR, spacing),
        "tear_probability_max": one.tear,
    }


def longest_extent(mask: NDArray[np.bool_], spacing: tuple[float, float]) -> float:
    """Length of a mask along its main axis, from edge to edge of its outermost pixels; 0 where it is empty."""
    places = np.argwhere(mask) * np.array(spacing)
    if not len(places):
        return 0.0
    spread = places - places.mean(axis=0)
    main = np.linalg.svd(spread, full_matrices=False)[2][0] if len(places) > 1 else np.array([1.0, 0.0])
    along = spread @ main
    return float(along.max() - along.min() + np.abs(main) @ np.array(spacing))


def _overall(rows: list[dict[str, float]], known: bool) -> dict[str, float]:
    """The largest over the slices, and how many show a tear."""
    area, length = ("mm2", "mm") if known else ("px", "px")
    names = (f"tendon_area_{area}", f"tear_area_{area}", f"tear_length_{length}", "tear_probability_max")
    told = {name: max(row[name] for row in rows) for name in names}
    torn = sum(row[f"tear_area_{area}"] > 0 for row in rows)
    return {**told, "slices_with_tear": float(torn), "num_slices": float(len(rows))}


def _table(rows: list[dict[str, float]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
    return buffer.getvalue().encode()
