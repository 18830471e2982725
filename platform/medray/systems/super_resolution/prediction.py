"""Super-resolution of a user's files: PNG, NIfTI and DICOM in, four times the pixels over the same place out.

| input | slices | result |
|---|---|---|
| picture (PNG, TIFF, ...) | itself | picture, or NIfTI |
| NIfTI, MHA, NRRD | itself, or the axial ones | NIfTI, MHA, NRRD |
| DICOM file or series | as acquired | DICOM files in a series of their own, or NIfTI |
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medray.data.case import Volume
from medray.data.derived_dicom import Derivation, dicom_slices, result_files, write_derived
from medray.data.formats.dicom import SUFFIXES as DICOM_SUFFIXES
from medray.data.geometry import orientation
from medray.data.pictures import gray
from medray.data.readers import read_volume, suffix_of
from medray.data.writers import beside, write_bytes, write_json, write_volume
from medray.errors import UserError
from medray.system import Prediction, PredictRequest
from medray.systems.super_resolution.blimsr_config import MIN_CROP_PX
from medray.systems.super_resolution.degradation import SCALE
from medray.systems.super_resolution.enlarging import Tiles, axial_axis, enlarge, planes, upsampler
from medray.systems.super_resolution.high_res import IntensityRange, Scaling, range_of
from medray.systems.super_resolution.pictures import comparison_png
from medray.systems.super_resolution.scores import image_scores

_SHOWN_PX = 128


@dataclass(frozen=True)
class Given:
    """What is to be enlarged.

    Attributes:
        volume: (1, *spatial).
        through: the axis across its slices; None for a 2D image.
        scale: values that are 0 and 1 to the network.
    """

    volume: Volume
    through: int | None
    scale: IntensityRange


def predict_file(
    generator: nn.Module, request: PredictRequest, *, window: tuple[float, float], scaling: Scaling, name: str
) -> Prediction:
    """Enlarge a file and write the result, its measurements and a picture beside bicubic interpolation.

    Args:
        generator: (B, 1, h, w) in [0, 1] to (B, 1, 4h, 4w).
        request: one input; ``labels`` may hold its high-resolution reference; options ``tile`` and ``overlap`` in
            pixels of the input, see `enlarging.Tiles`.
        window: of CT, HU.
        scaling: see `high_res.range_of`.
        name: of the method, for DICOM.

    Raises:
        UserError: the input is not a gray image or too small, the result cannot be written as asked for, or the
            reference is of another size or turned.
    """
    tiles, path = tiles_of(request.options), request.inputs[0]
    given = read_given(path, window, scaling)
    originals = _originals(path, request.out)
    dicom = bool(originals)
    started = time.perf_counter()
    blank = np.zeros((1, *_finer_shape(given)), np.float32) if dicom else None  # DICOM files have a type of their own
    result = enlarge(given.volume, upsampler(generator), given.scale, through=given.through, tiles=tiles, out=blank)
    seconds = time.perf_counter() - started
    files = {"image": request.out}
    if dicom:
        _write_dicom(originals, result, request.out, name)
    else:
        write_volume(_writable(result, request.out), request.out)
    measured = _measurements(given, result, seconds)
    reference = _reference(request, result)
    if reference is not None:
        measured |= _scores(given, result, reference)
    files["measurements"] = write_json(beside(request.out, "_measurements.json"), measured)
    files["picture"] = write_bytes(beside(request.out, "_overview.png"), _picture(given, result, reference, name))
    return Prediction(files=files, metrics=measured, seconds=seconds)


def tiles_of(options: Mapping[str, str]) -> Tiles:
    """The options of a prediction.

    Raises:
        UserError: an unknown one, or not a whole number in range.
    """
    unknown = sorted(set(options) - {"tile", "overlap"})
    if unknown:
        raise UserError(f"--option {unknown[0]} is unknown; there are tile=PIXELS and overlap=PIXELS")
    try:
        return Tiles(**{name: int(value) for name, value in options.items()})
    except ValueError as error:
        raise UserError(f"--option tile and overlap are whole numbers of pixels: {error}") from None


def read_given(path: Path, window: tuple[float, float], scaling: Scaling) -> Given:
    """Read an image with what its enlargement needs.

    Raises:
        UserError: not gray, or slices of fewer pixels than a network can take.
    """
    volume = gray(read_volume(path))
    through = _through(volume)
    sides = [length for axis, length in enumerate(volume.shape) if axis != through]
    if min(sides) < MIN_CROP_PX // SCALE:
        least = MIN_CROP_PX // SCALE
        raise UserError(f"{path} has slices of {sides[0]} x {sides[1]} px where at least {least} x {least} are needed")
    return Given(volume, through, range_of(volume, scaling, window))


def _through(volume: Volume) -> int | None:
    """The axis across the slices: DICOM has them last, in whatever plane, a TIFF has its pages first."""
    if volume.spatial_dims == 2:
        return None
    of_format = {"dicom": 2, "raster": 0}.get(str(volume.header.get("format")))
    return axial_axis(volume) if of_format is None else of_format


def _finer_shape(given: Given) -> tuple[int, ...]:
    return tuple(n if axis == given.through else SCALE * n for axis, n in enumerate(given.volume.shape))


def _originals(path: Path, out: Path) -> list[Path]:
    """The DICOM files whose results will be DICOM files, a file named so or a folder; none where it is not DICOM.

    Refuses what could not be written, before the work is done.
    """
    given = path.is_dir() or suffix_of(path) in DICOM_SUFFIXES
    wanted = suffix_of(out) in DICOM_SUFFIXES or not out.suffix
    if wanted and not given:
        raise UserError(f"--out {out}: DICOM is written from DICOM; name the result .nii.gz or as the input")
    if not wanted:
        return []
    originals = dicom_slices(path)
    result_files(originals, out)
    return originals


def _write_dicom(originals: Sequence[Path], result: Volume, out: Path, name: str) -> None:
    array = result.array[0]
    stack = array[..., None] if array.ndim == 2 else array  # (columns, rows, slices)
    text = f"{name}: super-resolution, {SCALE} times the rows and columns; not acquired detail"
    slices = [stack[..., index].T for index in range(stack.shape[-1])]
    write_derived(originals, slices, out, Derivation(factor=SCALE, text=text, name=f"{name} x{SCALE}"))


def _writable(result: Volume, out: Path) -> Volume:
    """Pictures hold whole numbers: floating point in [0, 1], as some formats have it, has no place there."""
    if result.array.dtype.kind == "f" and suffix_of(out) in (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp"):
        raise UserError(f"--out {out}: the input holds floating point, which pictures cannot; name the result .nii.gz")
    return result


def _measurements(given: Given, result: Volume, seconds: float) -> dict[str, float]:
    """Size, spacing, time, and how much of the input lay beyond the range that the network knows."""
    within = [axis for axis in range(result.spatial_dims) if axis != given.through]
    array = given.volume.array
    beyond = (array < given.scale.low) | (array > given.scale.high)
    return {
        **{f"size{number}_px": float(result.shape[axis]) for number, axis in enumerate(within)},
        **{f"spacing{number}_mm": result.spacing[axis] for number, axis in enumerate(within)},
        "num_slices": float(1 if given.through is None else result.shape[given.through]),
        "clipped_percent": 100 * float(beyond.mean()),
        "seconds": seconds,
    }


def _reference(request: PredictRequest, result: Volume) -> Volume | None:
    if not request.labels:
        return None
    reference = gray(read_volume(request.labels[0]))
    if reference.shape != result.shape:
        sizes = [" x ".join(str(n) for n in volume.shape) for volume in (reference, result)]
        raise UserError(f"{request.labels[0]} has {sizes[0]} voxels where the enlarged image has {sizes[1]}")
    if orientation(reference.affine, reference.spatial_dims) != orientation(result.affine, result.spatial_dims):
        raise UserError(f"{request.labels[0]} has axes in other directions than the image compared with it")
    return reference


def _scores(given: Given, result: Volume, reference: Volume) -> dict[str, float]:
    """Means over slices, on the scale of the input."""
    made, true = (planes(volume.array, given.volume.affine, given.through) for volume in (result, reference))
    found = []
    for pair in zip(made, true, strict=True):
        image, truth = (torch.from_numpy(given.scale.to_unit(plane[None])) for plane in pair)
        found.append(image_scores(image, truth, None, brief=True))
    return {name: float(np.mean([scores[name] for scores in found])) for name in ("psnr_db", "ssim")}


def _picture(given: Given, result: Volume, reference: Volume | None, name: str) -> bytes:
    """The middle of the middle slice."""
    volumes = [given.volume, result, *([] if reference is None else [reference])]
    stacks = [list(planes(volume.array, given.volume.affine, given.through)) for volume in volumes]
    middle = len(stacks[0]) // 2
    low, *high = (given.scale.to_unit(stack[middle]) for stack in stacks)
    low = _middle(low, _SHOWN_PX)
    high = [_middle(image, SCALE * _SHOWN_PX) for image in high]
    picture = given.volume.header.get("format") == "raster"
    return comparison_png(low, high[0], high[1] if len(high) > 1 else None, name=name, picture=picture)


def _middle(image: NDArray[Any], side: int) -> NDArray[Any]:
    """The middle (side, side) of an image, or as much as it has."""
    first = [max(0, (length - side) // 2) for length in image.shape]
    return image[first[0] : first[0] + side, first[1] : first[1] + side]
