"""Grading a user's file: the muscle on the file's own grid, the decision and the fat as JSON and CSV, and a picture."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medray.data.case import Volume
from medray.data.orientation import slice_axis, slice_of, upright_view
from medray.data.readers import read_label, read_volume
from medray.data.writers import beside, write_bytes, write_json, write_volume
from medray.errors import UserError
from medray.system import Prediction, PredictRequest, Trained
from medray.systems.shoulder.goutallier_config import GoutallierConfig
from medray.systems.shoulder.goutallier_images import read_mask, read_y_view
from medray.systems.shoulder.goutallier_inference import Finding, attention, find
from medray.systems.shoulder.goutallier_labels import NAMES
from medray.systems.shoulder.goutallier_measures import knows_mm, measures
from medray.systems.shoulder.goutallier_pictures import Shown, attention_png
from medray.systems.shoulder.goutallier_regions import Mask
from medray.systems.shoulder.goutallier_scores import THRESHOLD

_RIGHT = 0  # the world axis across sagittal slices


@dataclass(frozen=True)
class Given:
    """A user's image.

    Attributes:
        volume: as it was read.
        slice: of a volume the number of the Y-view; None where it is a single slice.
    """

    volume: Volume
    slice: int | None

    def single(self, volume: Volume) -> Volume:
        """The Y-view of the image, or of a mask on its grid."""
        if self.slice is None:
            return volume
        return slice_of(volume, slice_axis(self.volume, _RIGHT), self.slice)


def predict_file(config: GoutallierConfig, trained: Trained, request: PredictRequest) -> Prediction:
    """Grade one image; the mask goes to ``request.out``, the rest is named after it.

    Args:
        config: the model's settings.
        trained: the model.
        request: the image, and for a model on manual crops the mask; ``slice`` among the options names the Y-view of
            a series, from 0.

    Raises:
        UserError: not one gray Y-view, a mask of another shape or empty, an unknown option.
    """
    given = read_given(request.inputs[0], request.options)
    single = given.single(given.volume)
    view, drawn = read_y_view(single), _drawn(config, given, request.inputs[1:])
    started = time.perf_counter()
    (finding,) = find(config, trained.files, [view.image], [drawn])
    seconds = time.perf_counter() - started
    in_mm = knows_mm(given.volume)
    measured = measures(view, finding.muscle, in_mm=in_mm)
    files = {"mask": write_volume(_on_grid(given, finding.muscle), request.out)}
    told = _told(request.inputs[0], finding, measured)
    files["measurements"] = write_json(beside(request.out, "_measurements.json"), told)
    files["table"] = write_bytes(beside(request.out, "_measurements.csv"), _csv(told))
    heats = attention(config, trained.files, view.image, finding)
    shown = Shown(request.inputs[0].name, "", view, finding, heats)
    files["picture"] = write_bytes(beside(request.out, "_overview.png"), attention_png([shown], in_mm=in_mm))
    return Prediction(files=files, metrics={"probability_risky": finding.probability, **measured}, seconds=seconds)


def read_given(path: Path, options: Mapping[str, str]) -> Given:
    """Read the image and find the slice that is meant.

    Raises:
        UserError: it cannot be read, several slices and none chosen, a slice that is not there, an unknown option.
    """
    unknown = sorted(set(options) - {"slice"})
    if unknown:
        raise UserError(f"--option {unknown[0]} is unknown; there is slice=NUMBER, for the Y-view of a series")
    volume = read_volume(path)
    if volume.spatial_dims == 2:
        if "slice" in options:
            raise UserError(f"{path} is a single slice; leave --option slice out")
        return Given(volume, None)
    count = volume.shape[slice_axis(volume, _RIGHT)]
    if "slice" not in options:
        raise UserError(f"{path} has {count} slices; say which is the Y-view with --option slice=0 to {count - 1}")
    if not options["slice"].isdigit() or int(options["slice"]) >= count:
        raise UserError(f"--option slice is a number from 0 to {count - 1} for {path}, got {options['slice']!r}")
    return Given(volume, int(options["slice"]))


def _drawn(config: GoutallierConfig, given: Given, masks: Sequence[Path]) -> Mask:
    """The mask that a manual model needs; nothing for others."""
    if config.roi != "manual":
        single = given.single(given.volume)
        return np.zeros(read_mask(single).shape, dtype=bool)
    label = read_label(masks[0])
    if label.shape != given.volume.shape:
        sizes = [" x ".join(str(n) for n in volume.shape) for volume in (label, given.volume)]
        raise UserError(f"{masks[0]} has {sizes[0]} pixels where the image has {sizes[1]}")
    mask = read_mask(given.single(label))
    if not mask.any():
        raise UserError(f"{masks[0]} is empty, and this model crops by the mask; outline the supraspinatus in it")
    return mask


def _on_grid(given: Given, muscle: Mask) -> Volume:
    """The mask on the file's own grid, zero on other slices of a series."""
    array = np.zeros((1, *given.volume.shape), dtype=np.uint8)
    whole = replace(given.volume, array=array)
    single = given.single(whole)
    upright_view(single.array, single)[0][...] = muscle
    return whole


def _told(path: Path, finding: Finding, measured: Mapping[str, float]) -> dict[str, Any]:
    risky = finding.probability >= THRESHOLD
    return {
        "input": path.name,
        "decision": NAMES[risky],
        "probability_risky": finding.probability,
        "probability_of_decision": finding.probability if risky else 1 - finding.probability,
        **measured,
        "muscle_found": bool(finding.muscle.any()),
        "graded_on_whole_image": finding.region.is_fallback,
        "lowest_fold_probability_risky": min(finding.fold_probabilities),
        "highest_fold_probability_risky": max(finding.fold_probabilities),
    }


def _csv(told: Mapping[str, Any]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows((told.keys(), told.values()))
    return buffer.getvalue().encode()
