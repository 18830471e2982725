"""The final network of a campaign on a new scan, with the result on the scan's own grid.

A volume is turned to Right, Anterior, Superior and looked at slice by slice across its last axis, from the feet up, as
`medray.data.slices` has it; a 2D image is a stack of one slice, as it is stored. Slices without any contrast, such as
those above the head, are not looked at.

A network that was trained by the paper's rule has only seen slices with a lesion (1000 pixels or more), and may well
find some in slices without; the volume it gives for a whole scan can then be far too large.

Shape letters: Z slices, H rows, W columns of a slice, L classes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medray.data.case import Volume
from medray.data.geometry import Grid, canonical
from medray.data.readers import read_volume, suffix_of
from medray.data.resized import back_to
from medray.data.slices import put_back
from medray.data.writers import beside, write_bytes, write_json, write_volume
from medray.errors import UserError
from medray.figures.classification import prediction_figure
from medray.figures.drawing import to_png
from medray.figures.segmentation import Example, outlines
from medray.figures.views import views
from medray.system import Prediction, PredictRequest
from medray.systems.active_learning.network_task import NetworkTask
from medray.systems.active_learning.task_learner import in_portions

_SLICES_AT_ONCE = 16
_SLICES_SHOWN = 8
_NO_SPACING = ("raster", "array")
_VOLUME_SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd")

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class _Scan:
    """A scan.

    Attributes:
        original: as it was read.
        turned: to Right, Anterior, Superior.
        slices: (1, H, W) as the network sees them, by number; only those with contrast, or all where none has any.
    """

    original: Volume
    turned: Volume
    slices: Mapping[int, FloatArray]

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """By which slices are turned for pictures; None for a 2D image, which is shown as it is stored."""
        return self.turned.affine if self.turned.spatial_dims == 3 else None

    def gray(self, index: int) -> NDArray[Any]:
        """A slice with its own pixels, (H, W), channels averaged."""
        return _slice(self.turned, index).array.mean(axis=0)


def predict(task: NetworkTask[Any], weights: Path | None, request: PredictRequest) -> Prediction:
    """Use a trained task network on one 2D image or volume.

    A segmentation writes the mask (``--out``), probabilities, measurements with their units and a picture; a
    classification JSON with the probability of every class, of every slice of a volume too, and a picture.

    Args:
        task: what the network was trained for.
        weights: of its last training.
        request: one input.

    Raises:
        UserError: the image cannot be read, the weights are of another network, or the result cannot be written.
    """
    if task.kind != "mask" and request.out.suffix != ".json":
        raise UserError(f"--out {request.out}: name the result with the suffix .json")
    scan = _read(task, request.inputs[0])
    return (_segment if task.kind == "mask" else _classify)(task, weights, scan, request.out)


def _read(task: NetworkTask[Any], path: Path) -> _Scan:
    original = read_volume(path)
    turned = canonical(original) if original.spatial_dims == 3 else original
    reader = task.reader()
    slices = {index: reader.on_grid(_slice(turned, index)) for index in range(_depth(turned))}
    return _Scan(original, turned, {index: one for index, one in slices.items() if np.ptp(one) > 0} or slices)


def _depth(turned: Volume) -> int:
    return turned.shape[2] if turned.spatial_dims == 3 else 1


def _slice(turned: Volume, index: int) -> Volume:
    array = turned.array[..., index] if turned.spatial_dims == 3 else turned.array
    return Volume(array, turned.affine, turned.source)


@torch.inference_mode()
def _probabilities(task: NetworkTask[Any], weights: Path | None, scan: _Scan) -> list[FloatArray]:
    """Of each of the slices in turn, as `Seen.probabilities`."""
    network, found = task.load(weights), list[FloatArray]()
    for part in in_portions(list(scan.slices.values()), _SLICES_AT_ONCE):
        images = task.stacked(part, ["the image"] * len(part)).to(network.mean.device)
        found.extend(task.probabilities(network(images).float()).cpu().numpy())
    return found


# Masks ---------------------------------------------------------------------------------------------------------------


def _segment(task: NetworkTask[Any], weights: Path | None, scan: _Scan, out: Path) -> Prediction:
    started = time.perf_counter()
    found = _probabilities(task, weights, scan)
    seconds = time.perf_counter() - started
    stack = np.zeros((_depth(scan.turned), *scan.turned.shape[:2]), dtype=np.float32)
    for index, probabilities in zip(scan.slices, found, strict=True):
        stack[index] = back_to(probabilities[1], _slice(scan.turned, index))
    probability = put_back(stack, Grid.of(scan.turned), scan.original)
    inside = probability.array > 0.5
    white = 255 if scan.original.header.get("format") == "raster" else 1
    mask = replace(scan.original, array=(inside * white).astype(np.uint8))
    measured = _measure(inside[0], probability.array[0], scan.original)
    ending = suffix_of(out) if suffix_of(out) in _VOLUME_SUFFIXES else ".npz"
    files = {
        "mask": write_volume(mask, out),
        "probability": write_volume(probability, beside(out, f"_probability{ending}")),
        "measurements": write_json(beside(out, "_measurements.json"), measured),
        "picture": write_bytes(beside(out, "_overview.png"), _overview(scan, stack > 0.5)),
    }
    return Prediction(files, measured, seconds)


def _measure(inside: NDArray[np.bool_], probability: FloatArray, image: Volume) -> dict[str, float]:
    """Lesions (pixels that touch at a side) and their size; in mm where the file knows its spacing."""
    unit = "px" if inside.ndim == 2 else "voxels"
    told = {
        "num_lesions": float(ndimage.label(inside)[1]),
        f"size_{unit}": float(inside.sum()),
        "mean_probability": float(probability[inside].mean()) if inside.any() else float(probability.max()),
    }
    if image.header.get("format") in _NO_SPACING:
        return told
    size = told[f"size_{unit}"] * float(np.prod(image.spacing))
    return {**told, **({"area_mm2": size} if inside.ndim == 2 else {"volume_ml": size / 1000})}


def _overview(scan: _Scan, masks: NDArray[np.bool_]) -> bytes:
    """The slices with the largest lesions, from the feet up; the middle one where nothing was found."""
    sizes = masks.sum(axis=(1, 2))
    largest = sorted(np.argsort(-sizes, kind="stable")[:_SLICES_SHOWN])
    shown = [int(index) for index in largest if sizes[index]] or [len(masks) // 2]
    name = Path(scan.original.source).name
    titles = [name if len(masks) == 1 else f"{name} z={index}" for index in shown]
    examples = [Example(scan.gray(i), masks[i], title=title) for i, title in zip(shown, titles, strict=True)]
    spacing = scan.turned.spacing[:2] if scan.affine is None else None
    return to_png(outlines(examples, affine=scan.affine, spacing=spacing))


# Classes -------------------------------------------------------------------------------------------------------------


def _classify(task: NetworkTask[Any], weights: Path | None, scan: _Scan, out: Path) -> Prediction:
    """A volume's probability is the largest of its slices where classes are independent, else their mean."""
    started = time.perf_counter()
    each, looked = np.stack(_probabilities(task, weights, scan)), list(scan.slices)
    seconds = time.perf_counter() - started
    whole = each.max(axis=0) if task.kind == "classes" else each.mean(axis=0)
    told: dict[str, Any] = {"input": scan.original.source, "probabilities": _named(task, whole)}
    if scan.turned.spatial_dims == 3:
        told["slices"] = [{"z": z, "probabilities": _named(task, p)} for z, p in zip(looked, each, strict=True)]
    shown = int(each[:, int(whole.argmax())].argmax())
    name = Path(scan.original.source).name
    title = name if scan.turned.spatial_dims == 2 else f"{name}, slice z={looked[shown]}"
    picture = prediction_figure(_page(scan, looked[shown]), task.classes, each[shown].tolist(), title=title)
    files = {
        "result": write_bytes(out, (json.dumps(told, indent=1) + "\n").encode()),
        "picture": write_bytes(beside(out, "_overview.png"), to_png(picture)),
    }
    return Prediction(files, {f"probability_{name}": p for name, p in _named(task, whole).items()}, seconds)


def _named(task: NetworkTask[Any], probabilities: FloatArray) -> dict[str, float]:
    return {name: float(p) for name, p in zip(task.classes, probabilities, strict=True)}


def _page(scan: _Scan, index: int) -> NDArray[Any]:
    """A slice as it is shown, (1, H, W)."""
    image = scan.gray(index)
    (view,) = views(image.shape, affine=scan.affine)
    return view.plane(image)[None]
