"""Intra-oral scans as the teeth systems take them: FDI numbers as classes, normalized points, results as files.

The 32 FDI numbers of permanent teeth become 16 classes, both jaws alike, from the patient's right to the left:
18..11, 21..28 and 48..41, 31..38 are classes 1..8, 9..16; gingiva is 0. Seen with its crowns up one jaw mirrors the
other, so classes by side of the patient run opposite ways in the two; ``mirrored`` numbers lower jaws the other way
round, by side of the view.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medray.data.cache import SampleCache
from medray.data.case import BadCase, Case, Mesh
from medray.data.fields import case_fingerprint
from medray.data.formats.mesh import per_vertex, write_ply
from medray.data.mesh_folders import jaw_of
from medray.data.writers import write_bytes
from medray.errors import UserError
from medray.figures.drawing import to_png
from medray.figures.meshes import ColoredMesh, mesh_panels

IntArray = NDArray[np.int64]
LowerJaw = Literal["patient_side", "mirrored"]
NUM_CLASSES = 17
JAWS = ("upper", "lower")
_RIGHT_TO_LEFT = {"upper": (*range(18, 10, -1), *range(21, 29)), "lower": (*range(48, 40, -1), *range(31, 39))}
_GUM_COLOR = (0.93, 0.76, 0.74)
_TYPE_COLORS = ("#0072B2", "#56B4E9", "#009E73", "#F0E442", "#E69F00", "#D55E00", "#CC79A7", "#8C6BB1")


@dataclass(frozen=True)
class DentalScan:
    """One scan.

    Attributes:
        name: the case's id.
        points: (N, 3) float32; mean 0, mean squared length 1.
        classes: (N,), 0 to 16; None where there are no labels.
        scale_mm: length of one unit of ``points``.
    """

    name: str
    points: NDArray[np.float32]
    classes: IntArray | None
    scale_mm: float


def fdi_numbers(jaw: str, lower_jaw: LowerJaw) -> IntArray:
    """FDI number of each of the 17 classes."""
    order = _RIGHT_TO_LEFT[jaw]
    return np.array([0, *(order[::-1] if jaw == "lower" and lower_jaw == "mirrored" else order)])


def jaw_of_labels(labels: IntArray, name: str) -> str:
    """``upper`` or ``lower``.

    Raises:
        UserError: a value that is no FDI number of a permanent tooth, teeth of both jaws, or none.
    """
    values = [int(value) for value in np.unique(labels) if value != 0]
    known = set(_RIGHT_TO_LEFT["upper"]) | set(_RIGHT_TO_LEFT["lower"])
    unknown = [value for value in values if value not in known]
    if unknown:
        raise UserError(
            f"{name}: the label {unknown[0]} is no FDI number of a permanent tooth (11 to 48), nor 0 for gingiva"
        )
    jaws = {"upper" if value < 30 else "lower" for value in values}
    if len(jaws) != 1:
        found = "teeth of both jaws; give each jaw as a case of its own" if jaws else "no tooth, all of it is gingiva"
        raise UserError(f"{name}: its labels show {found}")
    return jaws.pop()


def to_classes(labels: IntArray, lower_jaw: LowerJaw, name: str) -> IntArray:
    """FDI numbers to classes 0 to 16.

    Raises:
        UserError: as `jaw_of_labels`.
    """
    numbers = fdi_numbers(jaw_of_labels(labels, name), lower_jaw)
    lookup = np.zeros(49, dtype=np.int64)
    lookup[numbers] = np.arange(NUM_CLASSES)
    return np.asarray(lookup[labels])


def normalized(vertices: NDArray[np.float64], name: str) -> tuple[NDArray[np.float32], float]:
    """Zero mean and unit variance (sec. 3.1): one scale for all axes, so that shapes stay as they are.

    Returns:
        points (N, 3) whose mean squared length is 1, and the length of a unit in the vertices' unit.

    Raises:
        UserError: all vertices are in one place.
    """
    centered = vertices - vertices.mean(axis=0)
    scale = float(np.sqrt((centered**2).sum(axis=1).mean()))
    if scale <= 1e-9 * max(1.0, float(np.abs(vertices).max())):
        raise UserError(f"{name}: all {len(vertices)} vertices are in one place")
    return (centered / scale).astype(np.float32), scale


def read_scan(case: Case, lower_jaw: LowerJaw, cache: SampleCache) -> DentalScan:
    """A case with the fields ``mesh`` and, where it has one, ``label``; decoded once and kept.

    Raises:
        UserError: it cannot be used; see `scan_problems`.
    """

    def make() -> dict[str, NDArray[Any]]:
        mesh = case.mesh("mesh")
        points, scale = normalized(mesh.vertices, case.id)
        arrays: dict[str, NDArray[Any]] = {"points": points, "scale": np.array(scale)}
        if "label" in case.fields:
            arrays["classes"] = to_classes(per_vertex(mesh, case.load("label")), lower_jaw, case.id)
        return arrays

    kept = cache.get(("dental scan", 1, lower_jaw, case_fingerprint(case, _used(case))), make)
    return DentalScan(case.id, kept["points"], kept.get("classes"), float(kept["scale"]))


def _used(case: Case) -> list[str]:
    return [name for name in ("mesh", "label") if name in case.fields]


def scan_problems(cases: Sequence[Case]) -> list[BadCase]:
    """Scans that load but cannot be learned from or scored, with the sentence that says why."""
    bad = []
    for case in cases:
        try:
            normalized(case.mesh("mesh").vertices, case.id)
            if "label" in case.fields:
                jaw_of_labels(case.load("label"), case.id)
        except TypeError as error:
            bad.append(BadCase(case.id, f"{error}; give a surface (.stl .ply .obj) or a point cloud"))
        except UserError as error:
            bad.append(BadCase(case.id, str(error).removeprefix(f"{case.id}: ")))
    return bad


def jaw_to_write(asked: str, path: Path, trained_on: Sequence[str]) -> str:
    """Which jaw's FDI numbers a prediction has: as asked for, as the file is called, or the only one trained on.

    Raises:
        UserError: an unknown answer, or none.
    """
    if asked and asked not in JAWS:
        raise UserError(f"--option jaw={asked} is not one of {', '.join(JAWS)}")
    jaw = asked or jaw_of(path.stem) or jaw_of(path.parent.name)
    if jaw:
        return jaw
    if len(trained_on) == 1:
        return trained_on[0]
    raise UserError(f"{path} does not say which jaw it shows and the model knows both; add --option jaw=upper or lower")


def colors_of(numbers: IntArray) -> NDArray[np.float64]:
    """(N, 3) in 0 to 1 for FDI numbers: gingiva pale, tooth types by color, the left side of the patient darker."""
    from matplotlib.colors import to_rgb

    table = np.tile(np.array(_GUM_COLOR), (49, 1))
    for quadrant in (1, 2, 3, 4):
        for place, color in enumerate(_TYPE_COLORS, start=1):
            table[10 * quadrant + place] = np.array(to_rgb(color)) * (0.68 if quadrant in (2, 3) else 1.0)
    return np.asarray(table[numbers])


def picture(meshes: Mapping[str, tuple[Mesh, IntArray]]) -> bytes:
    """PNG of scans side by side, by title, with the FDI numbers that occur in a legend."""
    shown = sorted({int(n) for _, numbers in meshes.values() for n in np.unique(numbers)})
    columns = [ColoredMesh(title, mesh, colors_of(numbers)) for title, (mesh, numbers) in meshes.items()]
    legend = [(str(n) if n else "gingiva", colors_of(np.array([n]))[0]) for n in shown]
    return to_png(mesh_panels(columns, legend=legend))


def write_result(mesh: Mesh, numbers: IntArray, probabilities: NDArray[np.float32], out: Path) -> dict[str, Path]:
    """A labelled scan as files.

    Args:
        mesh: as it was read.
        numbers: (N,) FDI numbers.
        probabilities: (N, 17), of the classes.
        out: a .ply, colored and with the vertex property ``label``; what else is written is named after it:
            .npz (vertices, faces, labels, probabilities and, for an STL, ``corner_labels`` in the file's own order),
            .json (per tooth: vertices, centroid and size in mm, mean probability) and .png.

    Raises:
        UserError: another suffix, or the files cannot be written.
    """
    if out.suffix.lower() != ".ply":
        raise UserError(f"--out {out}: the labelled scan is written as a .ply")
    colors = np.rint(255 * colors_of(numbers)).astype(np.uint8)
    arrays: dict[str, NDArray[Any]] = {
        "vertices": mesh.vertices,
        "faces": mesh.faces,
        "labels": numbers.astype(np.int16),
        "probabilities": probabilities.astype(np.float32),
    }
    if mesh.corners is not None:
        arrays["corner_labels"] = arrays["labels"][mesh.corners]
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    teeth = json.dumps(_measured(mesh, numbers, probabilities), indent=1)
    return {
        "labels": write_bytes(out, write_ply(mesh, colors, {"label": numbers.astype(np.int32)})),
        "arrays": write_bytes(out.with_suffix(".npz"), packed.getvalue()),
        "teeth": write_bytes(out.with_suffix(".json"), teeth.encode()),
        "picture": write_bytes(out.with_suffix(".png"), picture({out.stem: (mesh, numbers)})),
    }


def _measured(mesh: Mesh, numbers: IntArray, probabilities: NDArray[np.float32]) -> dict[str, Any]:
    teeth = []
    for number in np.unique(numbers[numbers != 0]):
        own = numbers == number
        points = mesh.vertices[own]
        extent = np.ptp((points - points.mean(axis=0)) @ np.linalg.svd(points - points.mean(axis=0))[2].T, axis=0)
        teeth.append(
            {
                "fdi": int(number),
                "vertices": int(own.sum()),
                "centroid_mm": [round(float(x), 3) for x in points.mean(axis=0)],
                "extent_mm": [round(float(x), 3) for x in extent],
                "mean_probability": round(float(probabilities[own].max(axis=1).mean()), 4),
            }
        )
    return {"teeth": teeth, "vertices": len(numbers), "gingiva_vertices": int((numbers == 0).sum())}
