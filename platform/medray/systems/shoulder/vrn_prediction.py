"""One scan of a user's: class, probabilities, where the tear is, as files beside the result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medray.data.case import Volume
from medray.data.fields import FileRef
from medray.data.orientation import slice_plane
from medray.data.writers import beside, write_bytes, write_json, write_volume
from medray.errors import UserError
from medray.figures.attention import rendering, three_planes
from medray.figures.drawing import to_png
from medray.metrics.localisation import peak
from medray.system import Prediction, PredictRequest, Trained
from medray.systems.shoulder.vrn_config import Plane, VrnConfig
from medray.systems.shoulder.vrn_inference import Finding, look_at, trained_network
from medray.systems.shoulder.vrn_labels import CLASSES
from medray.systems.shoulder.vrn_volumes import Cube, on_scan, parse_center

OPTIONS = ("center",)


def predict_scan(config: VrnConfig, trained: Trained, request: PredictRequest) -> Prediction:
    """Classify a volume or a DICOM series.

    Writes class and probabilities as JSON and as CSV, the heat map as NIfTI on the scan's own grid, and two pictures.

    Raises:
        UserError: not a volume, slices in another plane, the cube does not fit, an unknown option, another suffix than
            .json.
    """
    if request.out.suffix != ".json":
        raise UserError(f"--out {request.out}: name the result with the suffix .json; the heat map goes beside it")
    path = request.inputs[0]
    center = _center(request.options)
    scan = FileRef(str(path)).load()
    if reason := other_plane(scan, config.plane):
        raise UserError(f"{path}: {reason}")
    network = trained_network(config, trained.weights)
    started = time.perf_counter()
    cube = config.cropper.cut(scan, center)
    finding = look_at(network, cube, repeats=config.repeats, key="predict")
    heat = on_scan(finding.shown(config), cube.grid, scan)
    seconds = time.perf_counter() - started
    heat_path = write_volume(heat, beside(request.out, "_cam.nii.gz"))
    result = _result(config, path, cube, finding, given=center is not None) | {"heat_map": heat_path.name}
    table = "".join(f"{name},{p:.6g}\n" for name, p in zip(CLASSES, finding.probability, strict=True))
    files = {
        "result": write_json(request.out, result),
        "table": write_bytes(beside(request.out, ".csv"), f"class,probability\n{table}".encode()),
        "heat_map": heat_path,
        **_pictures(request.out, path, cube, finding, finding.shown(config)),
    }
    metrics = {f"probability_{name}": float(p) for name, p in zip(CLASSES, finding.probability, strict=True)}
    return Prediction(files=files, metrics={**metrics, "probability_tear": finding.p_tear}, seconds=seconds)


def other_plane(scan: Volume, wanted: Plane) -> str:
    """Why the slices of a scan are not of the wanted plane; empty where they are, or where the file does not say."""
    plane = slice_plane(scan)
    if wanted == "any" or plane in ("", wanted):
        return ""
    return f"its slices are {plane} where {wanted} ones are expected; give the {wanted} series"


def _center(options: Mapping[str, str]) -> tuple[float, float, float] | None:
    unknown = [name for name in options if name not in OPTIONS]
    if unknown:
        raise UserError(f"there is no option {unknown[0]!r}; known is center=x,y,z of the humeral head in mm, RAS+")
    return parse_center(options["center"], "--option center") if "center" in options else None


def _result(config: VrnConfig, path: Path, cube: Cube, finding: Finding, *, given: bool) -> dict[str, Any]:
    heat = finding.shown(config)
    place = peak(heat)
    middle = cube.grid.center
    result: dict[str, Any] = {
        "input": str(path),
        "class": CLASSES[finding.predicted],
        "probabilities": {name: float(p) for name, p in zip(CLASSES, finding.probability, strict=True)},
        "probability_tear": finding.p_tear,
        "tear": finding.p_tear > 0.5,
        "heat_map_of": "any tear" if config.cam == "tear" or not finding.predicted else CLASSES[finding.predicted],
        "heat_map_peak_mm": None if place is None else _mm(cube.affine @ np.array([*place, 1.0])),
        "cube_center_mm": _mm(middle),
        "cube_center_from": "--option center" if given else "the scan's middle, since no --option center was given",
        "cube_edge_mm": config.edge_mm,
    }
    if len(finding.repeats):
        share = np.bincount(finding.repeats, minlength=len(CLASSES)) / len(finding.repeats)
        result["repeats_with_dropout"] = {name: float(part) for name, part in zip(CLASSES, share, strict=True)}
    return result


def _mm(position: np.ndarray[Any, Any]) -> list[float]:
    return [round(float(value), 1) for value in position[:3]]


def _pictures(out: Path, path: Path, cube: Cube, finding: Finding, heat: np.ndarray[Any, Any]) -> dict[str, Path]:
    kind = CLASSES[finding.predicted]
    title = f"{path.name}: {kind}, P({kind}) {finding.probability.max():.2f}, P(tear) {finding.p_tear:.2f}"
    spacing = cube.grid.spacing
    planes = to_png(three_planes(cube.gray, heat, spacing, affine=cube.affine, title=title))
    turned = to_png(rendering(cube.gray, heat, spacing, affine=cube.affine, title=title))
    return {
        "picture": write_bytes(beside(out, "_overview.png"), planes),
        "rendering": write_bytes(beside(out, "_rendering.png"), turned),
    }
