"""A registration model on a user's own two scans, with everything written on the user's own grid."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from medray.data.case import Case, Volume
from medray.data.fields import FileRef
from medray.data.geometry import Grid, to_original, warp
from medray.data.readers import suffix_of
from medray.data.writers import write_bytes, write_displacement, write_volume
from medray.errors import UserError
from medray.metrics.registration import folded_pixels
from medray.system import Prediction, PredictRequest
from medray.systems.registration.pair_reader import ImagePair, PairReader, WorkGrid, slice_pair
from medray.systems.registration.pairs import PairRef
from medray.systems.registration.pictures import overview_figure

AlignPair = Callable[[ImagePair], NDArray[np.float32]]


def predict_pair(align: AlignPair, grid: WorkGrid, request: PredictRequest) -> Prediction:
    """Align the moving to the fixed image and write what follows from it.

    A model for slices takes volumes too and aligns them slice by slice, with no motion across slices.

    Args:
        align: displacement in pixels of a pair on the work grid.
        grid: the model's work grid.
        request: moving and fixed image; with labels, the moving image's label map.

    Returns:
        Files: warped (the moving image on the fixed image's grid), displacement (mm along world x, y, z), labels where
        a label map was given, picture. Metrics: mean_displacement_mm, max_displacement_mm, folded_percent.

    Raises:
        UserError: an input cannot be used or ``out`` not be written.
    """
    base = _base(request.out)
    fields = {name: FileRef(str(path)) for name, path in zip(("moving", "fixed"), request.inputs, strict=True)}
    case = Case("prediction", "prediction", fields)
    reader = PairReader(grid)
    placed = reader.place(PairRef(case.id, case, case))
    pair = reader.on_grid(placed)
    started = time.perf_counter()
    displacement = _align(align, grid, pair)
    seconds = time.perf_counter() - started

    moving, fixed = case.volume("moving"), case.volume("fixed")
    field = to_original(displacement, placed.grid, Grid.of(fixed), placed.place)
    field = Volume(field.array, field.affine, fixed.source, fixed.header)
    files = {
        "warped": write_volume(warp(moving, field, fill=None), request.out),
        "displacement": write_displacement(field, base.with_name(base.name + "_displacement.nii.gz")),
    }
    if request.labels:
        if len(request.labels) > 1:
            raise UserError(f"--labels takes the moving image's label map alone, got {len(request.labels)} files")
        labels = warp(FileRef(str(request.labels[0]), "label").load(), field, order=0)
        suffix = suffix_of(request.out)
        files["labels"] = write_volume(labels, base.with_name(f"{base.name}_labels{suffix}"))
    files["picture"] = write_bytes(base.with_name(base.name + "_overview.png"), _picture(pair, displacement, grid))
    folded, count = folded_pixels(torch.from_numpy(displacement)[None])
    length_mm = np.linalg.norm(field.array, axis=0)
    metrics = {
        "mean_displacement_mm": float(length_mm.mean()),
        "max_displacement_mm": float(length_mm.max()),
        "folded_percent": 100 * float(folded.sum()) / float(count.sum()),
    }
    return Prediction(files=files, metrics=metrics, seconds=seconds)


def _align(align: AlignPair, grid: WorkGrid, pair: ImagePair) -> NDArray[np.float32]:
    if pair.moving.ndim == grid.spatial_dims:
        return align(pair)
    slices = (slice_pair(pair, z) for z in range(pair.fixed.shape[-1]))
    still = np.zeros((2, *pair.fixed.shape[:2]), dtype=np.float32)
    in_plane = np.stack([align(one) if _shows_something(one) else still for one in slices], axis=-1)
    return np.concatenate([in_plane, np.zeros_like(in_plane[:1])])


def _shows_something(pair: ImagePair) -> bool:
    """Whether neither image is constant: slices beyond the body have nothing to align."""
    return bool(np.ptp(pair.moving) > 0 and np.ptp(pair.fixed) > 0)


def _picture(pair: ImagePair, displacement: NDArray[np.float32], grid: WorkGrid) -> bytes:
    if pair.moving.ndim > grid.spatial_dims:
        middle = pair.fixed.shape[-1] // 2
        pair, displacement = slice_pair(pair, middle), displacement[:2, ..., middle]
    return overview_figure(pair, displacement, name="prediction", caption="prediction").png


def _base(out: Path) -> Path:
    """The output path without its suffix; by-products are named after it.

    Raises:
        UserError: a suffix that images cannot be written with.
    """
    suffix = suffix_of(out)
    if not suffix:
        raise UserError(f"--out {out}: name the warped image with a suffix like .nii.gz, .mha or .png")
    return out.with_name(out.name[: -len(suffix)])
