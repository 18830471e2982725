"""STL, PLY, OBJ, OFF (through trimesh), XYZ, NPY and NPZ: surfaces, point clouds and a label for each of their points.

A file that is a surface by its kind must have faces; points alone are XYZ, NPY or NPZ. Vertices keep the file's order,
so that labels stored beside the file fit. An STL has no shared vertices, three for each facet: equal positions are
merged in order of first occurrence, and labels may be given per merged vertex, per facet or per corner (`per_vertex`).
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medray.data.case import Mesh
from medray.errors import UserError

Labels = NDArray[np.int64]
_SURFACES = (".stl", ".ply", ".obj", ".off")
_POINT_NAMES, _LABEL_NAMES = ("vertices", "points"), ("labels", "label")
_STL_HEADER, _STL_FACET = 84, 50  # bytes


def read(path: Path) -> Mesh:
    """Read a surface or a point cloud; see `medray.data.readers.read_mesh`.

    Raises:
        UserError: of no known kind, damaged, without faces, with unusable vertices or faces.
    """
    suffix = path.suffix.lower()
    if suffix in _SURFACES:
        vertices, faces = _surface(path, suffix)
        if len(faces) == 0:
            raise UserError(
                f"{path} is a mesh with no faces ({len(vertices)} vertices); a surface is expected, or save the points "
                "as .xyz or .npz to use them as a point cloud"
            )
    elif suffix in (".xyz", ".npz", ".npy"):
        vertices, faces = _points(path, suffix)
    else:
        raise UserError(f"{path} is of no known kind; meshes are {' '.join(_SURFACES)} and point clouds .xyz .npz .npy")
    _check(path, vertices, faces)
    if suffix != ".stl":
        return Mesh(vertices, faces, source=str(path))
    merged, corners = _merge(vertices)
    triangles = corners[faces]
    return Mesh(merged, triangles, corners=triangles.reshape(-1), source=str(path))


def read_labels(path: Path, key: str = "") -> Labels:
    """Read labels as they are stored; see `medray.data.readers.read_vertex_label`.

    Raises:
        UserError: of no known kind, damaged, or not a list of whole numbers.
    """
    try:
        values = _label_values(path, key)
    except (ValueError, TypeError, KeyError, IndexError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} holds no labels that can be read: {_line(error)}") from error
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iufb" or len(array) == 0:
        raise UserError(f"{path} holds no list of labels, one whole number per vertex")
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.rint(array)).all()):
        raise UserError(f"{path} holds labels that are not whole numbers")
    return array.astype(np.int64)


def per_vertex(mesh: Mesh, labels: Labels) -> Labels:
    """Labels of a mesh's vertices from labels per vertex, per facet, or per corner of an STL.

    Args:
        mesh: with N vertices and F faces.
        labels: (N,), (F,) or, for an STL, (3 F,) in file order. A vertex gets the most frequent label of its facets or
            corners, the smallest of those that are as frequent.

    Returns:
        (N,).

    Raises:
        UserError: another number of labels.
    """
    if len(labels) == len(mesh.vertices):
        return labels
    if len(mesh.faces) and len(labels) == len(mesh.faces):
        return _majority(mesh.faces.reshape(-1), np.repeat(labels, 3), len(mesh.vertices))
    if mesh.corners is not None and len(labels) == len(mesh.corners):
        return _majority(mesh.corners, labels, len(mesh.vertices))
    also = f" or one for each of {len(mesh.faces)} faces" if len(mesh.faces) else ""
    also += f" or one for each of {len(mesh.corners)} corners" if mesh.corners is not None else ""
    raise UserError(
        f"{mesh.source or 'the mesh'} has {len(mesh.vertices)} vertices but {len(labels)} labels; one label per vertex "
        f"is expected{also}"
    )


def write_ply(mesh: Mesh, colors: NDArray[np.uint8], values: Mapping[str, NDArray[Any]]) -> bytes:
    """A binary PLY with a color and further properties for each vertex; viewers show the colors.

    Args:
        mesh: vertices and faces are written as they are.
        colors: (N, 3).
        values: vertex properties by name, each (N,); numbers.
    """
    made = _trimesh().Trimesh(mesh.vertices, mesh.faces, process=False, vertex_colors=colors)
    made.vertex_attributes.update(values)
    return bytes(made.export(file_type="ply"))


def _trimesh() -> ModuleType:
    try:
        import trimesh
    except ImportError:
        raise UserError("meshes need the trimesh library; install medray[mesh]") from None
    return trimesh


def _surface(path: Path, suffix: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    if suffix == ".stl":
        _check_stl_size(path)
    trimesh = _trimesh()
    try:
        with path.open("rb") as file:
            loaded = trimesh.load(
                file, file_type=suffix[1:], process=False, maintain_order=True, skip_materials=True, split_object=False
            )
    except Exception as error:  # trimesh's parsers raise whatever the damage meets first
        raise UserError(f"{path} is truncated, damaged or not {suffix[1:].upper()}: {_line(error)}") from error
    vertices = np.asarray(getattr(loaded, "vertices", np.zeros((0, 3))), dtype=np.float64).reshape(-1, 3)
    faces = np.asarray(getattr(loaded, "faces", np.zeros((0, 3))), dtype=np.int64).reshape(-1, 3)
    return vertices, faces


def _check_stl_size(path: Path) -> None:
    """A binary STL says how many facets follow; trimesh reads a shorter one as nothing."""
    with path.open("rb") as file:
        head = file.read(_STL_HEADER)
    size = path.stat().st_size
    if head.lstrip().lower().startswith(b"solid"):
        return  # text, or a binary file that pretends to be: the parser finds out
    facets = int.from_bytes(head[80:84], "little")
    if len(head) < _STL_HEADER or size < _STL_HEADER + _STL_FACET * facets:
        raise UserError(f"{path} is truncated: {size} bytes where its header announces {facets} facets")


def _points(path: Path, suffix: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    none = np.zeros((0, 3), dtype=np.int64)
    try:
        if suffix == ".xyz":
            points = np.loadtxt(path, comments=("#", "//"), ndmin=2)[:, :3]
        else:
            loaded = np.load(path, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                points = loaded
            else:
                with loaded:
                    points = loaded[_known(path, loaded.files, _POINT_NAMES)]
                    none = loaded["faces"].astype(np.int64) if "faces" in loaded.files else none
        points = np.asarray(points, dtype=np.float64)
    except (OSError, ValueError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged or not a table of points: {_line(error)}") from error
    if points.ndim != 2 or points.shape[1] != 3 or none.ndim != 2 or none.shape[1] != 3:
        raise UserError(f"{path} holds points of shape {points.shape}; (number of points, 3) is expected")
    return points, none


def _check(path: Path, vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> None:
    if len(vertices) == 0:
        raise UserError(f"{path} holds no vertices")
    bad = int((~np.isfinite(vertices)).any(axis=1).sum())
    if bad:
        raise UserError(f"{path}: {bad} of {len(vertices)} vertices have coordinates that are NaN or infinite")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise UserError(f"{path} has faces that name the vertex {faces.max()} but only {len(vertices)} vertices")


def _merge(vertices: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Equal positions once, in order of first occurrence, and which of them each position became."""
    _, first, inverse = np.unique(vertices, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return vertices[first[order]], rank[inverse.reshape(-1)]


def _majority(owner: NDArray[np.int64], labels: Labels, count: int) -> Labels:
    values, codes = np.unique(labels, return_inverse=True)
    votes = np.zeros((count, len(values)), dtype=np.int64)
    np.add.at(votes, (owner, codes.reshape(-1)), 1)
    return np.asarray(values[votes.argmax(axis=1)], dtype=np.int64)


def _label_values(path: Path, key: str) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".json":
        told = json.loads(path.read_text(encoding="utf-8"))
        return told[key or _known(path, told, _LABEL_NAMES)] if isinstance(told, dict) else told
    if suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return file[key or _known(path, file.files, _LABEL_NAMES)]
    if suffix == ".csv":
        table = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
        return table[key or _known(path, table.dtype.names or (), _LABEL_NAMES)]
    if suffix == ".txt":
        return np.loadtxt(path, ndmin=1)
    if suffix == ".ply":
        with path.open("rb") as file:
            loaded = _trimesh().load(io.BytesIO(file.read()), file_type="ply", process=False)
        vertex = loaded.metadata["_ply_raw"]["vertex"]["data"]
        return np.asarray(vertex[key or _known(path, vertex.dtype.names, _LABEL_NAMES)]).reshape(-1)
    raise UserError(f"{path} is of no known kind; vertex labels are .json .npz .npy .csv .txt or a .ply with labels")


def _known(path: Path, names: Any, wanted: tuple[str, ...]) -> str:
    found = next((name for name in wanted if name in names), None)
    if found is None:
        raise UserError(f"{path} has no {' or '.join(wanted)}; it holds {', '.join(sorted(names)) or 'nothing'}")
    return found


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
