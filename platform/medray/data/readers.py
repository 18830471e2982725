"""Files in, `Volume`s out: the reader is chosen by the file's name, and every failure is one sentence.

| names | reader |
|---|---|
| .nii .nii.gz | `formats.nifti` |
| .mha .mhd .nrrd .nhdr | `formats.metaimage` (ITK; LPS turned into RAS) |
| a folder, .dcm .dicom .ima | `formats.dicom` (a series, sorted by position, rescaled) |
| .png .tif .tiff .jpg .jpeg .bmp | `formats.raster` (rows, columns; 1 mm) |
| .npy .npz .h5 .hdf5, with #key | `formats.arrays` (1 mm) |
| .stl .ply .obj .off .xyz, .npz with vertices | `read_mesh`: surfaces and point clouds (`formats.mesh`) |
| .json .csv .mat | `read_table`: points, measurements |
| .swc .json | `read_traces`: centrelines of thin structures |

Importing this module loads none of the libraries behind it.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from medray.data.case import Mesh, Volume
from medray.data.fetched import fetched
from medray.data.places import Place, split_key
from medray.errors import UserError
from medray.storage import is_url

Reader = TypeVar("Reader", bound=Callable[..., Any])

_FORMATS: dict[str, str] = {
    **dict.fromkeys((".nii.gz", ".nii"), "nifti"),
    **dict.fromkeys((".mha", ".mhd", ".nrrd", ".nhdr"), "metaimage"),
    **dict.fromkeys((".dcm", ".dicom", ".ima"), "dicom"),
    **dict.fromkeys((".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp"), "raster"),
    **dict.fromkeys((".npy", ".npz", ".h5", ".hdf5"), "arrays"),
}
TABLE_SUFFIXES = (".json", ".csv", ".mat")
TRACE_SUFFIXES = (".swc",)
MESH_SUFFIXES = (".stl", ".ply", ".obj", ".off", ".xyz")
VERTEX_LABEL_SUFFIXES = (".json", ".npz", ".npy", ".csv", ".txt")
KEYED = ("arrays", "dicom")
"""Formats whose paths may end in ``#key``."""
LABEL_TOLERANCE = 1e-3
"""A label map stored as floating point may miss its whole number by this much (scale factors do that)."""


def suffix_of(path: str | Path | Place) -> str:
    """The known suffix a file name ends in, lower case, ``.nii.gz`` in one piece; empty if unknown.

    >>> suffix_of("a/case01.NII.gz"), suffix_of("k.h5#kspace"), suffix_of("notes.txt")
    ('.nii.gz', '.h5', '')
    """
    name = str(path).split("#", 1)[0].lower()
    known = (*_FORMATS, *TABLE_SUFFIXES, *MESH_SUFFIXES, *TRACE_SUFFIXES)
    return next((suffix for suffix in known if name.endswith(suffix)), "")


def is_image_name(path: str | Path | Place) -> bool:
    """Whether a file of this name is one that `read_volume` takes."""
    return suffix_of(path) in _FORMATS


def stem_of(path: str | Path | Place) -> str:
    """File name without folder and without its known suffix: ``case01`` for ``mr/case01.nii.gz``."""
    name = Path(str(path).split("#", 1)[0]).name
    return name[: len(name) - len(suffix_of(name))] if suffix_of(name) else Path(name).stem


def from_storage(read: Reader) -> Reader:
    """A reader of local files that takes s3 urls too, and names them in messages and results instead of the copy."""

    @functools.wraps(read)
    def reader(path: str | Path, **options: Any) -> Any:
        return read_stored(str(path), "", read, **options) if is_url(path) else read(path, **options)

    return cast(Reader, reader)


def read_stored(url: str, version: str, read: Callable[..., Any], **options: Any) -> Any:
    """Call a reader on the local copy of an object; see `fetched`.

    Args:
        url: of a file or folder, maybe with ``#key``.
        version: the one to read, "" for the present one.
        read: takes the path of the copy, with the key.
        options: for the reader.

    Raises:
        UserError: as the reader, or `fetched`.
    """
    file, mark, key = url.partition("#")
    with fetched(file, version) as copy:
        try:
            value = read(f"{copy}{mark}{key}", **options)
        except UserError as error:
            raise UserError(str(error).replace(str(copy), file)) from error
    if isinstance(value, Volume | Mesh):
        return dataclasses.replace(value, source=value.source.replace(str(copy), file))
    return value


@from_storage
def read_volume(path: str | Path, *, channels: bool = False) -> Volume:
    """Read an image.

    Args:
        path: a file, a folder of DICOM slices, or either with ``#key`` (array name, series UID).
        channels: the last axis of a file with one axis too many is channels, not an error.

    Returns:
        (C, *spatial). Integers keep their type, floating point becomes float32 and complex numbers complex64. A volume
        of a single slice is a 2D image.

    Raises:
        UserError: missing, empty, truncated, of an unknown kind, not 2D or 3D, or with values that are not finite.
    """
    return _checked(_read(path, label=False, channels=channels))


@from_storage
def read_label(path: str | Path) -> Volume:
    """Read a label map: whole numbers, one channel; a fourth axis holds masks that may overlap, one per channel.

    Returns:
        (C, *spatial), uint8 where the values fit, else uint16 or int32.

    Raises:
        UserError: as `read_volume`; or a value that is not a whole number, or negative.
    """
    volume = _checked(_read(path, label=True, channels=True))
    array = volume.array
    if array.dtype.kind == "c":
        raise UserError(f"{volume.source} holds complex numbers where a label map is expected")
    if array.dtype.kind == "f":
        rounded = np.rint(array)
        wrong = np.abs(array - rounded) > LABEL_TOLERANCE
        if wrong.any():
            example = float(array[wrong][0])
            raise UserError(f"{volume.source} holds the value {example:g} where a label map has whole numbers only")
        array = rounded
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if low < 0:
        raise UserError(f"{volume.source} holds the value {int(low)} where label values start at 0 (background)")
    kind = np.uint8 if high <= 255 else np.uint16 if high <= 65535 else np.int32
    return Volume(array.astype(kind), volume.affine, volume.source, volume.header)


@from_storage
def read_array(path: str | Path) -> NDArray[Any]:
    """Read an array as it is stored (k-space, spectra, points): NPY, NPZ or HDF5, other formats as `read_volume`.

    Raises:
        UserError: missing, damaged, or no such key.
    """
    file, key = locate(path)
    if _format(file) == "arrays":
        from medray.data.formats import arrays

        return arrays.read_array(file, key)
    return read_volume(path, channels=True).array


@from_storage
def read_mesh(path: str | Path) -> Mesh:
    """Read a surface or a point cloud.

    Args:
        path: STL, PLY, OBJ or OFF, which must have faces; or a point cloud: XYZ (a point per line), NPY (N, 3) or NPZ
            with ``vertices`` (or ``points``) and perhaps ``faces``.

    Returns:
        Vertices in the file's order. Those of an STL, which stores three for each facet, are merged where they are
        equal, in order of first occurrence; `Mesh.corners` remembers which became which.

    Raises:
        UserError: missing, empty, damaged, without faces, with vertices that are not finite or faces without vertices.
    """
    from medray.data.formats import mesh

    file, _ = locate(path)
    return mesh.read(file)


@from_storage
def read_vertex_label(path: str | Path) -> NDArray[np.int64]:
    """Read the labels of a mesh or point cloud: whole numbers, one per vertex, facet or STL corner.

    Args:
        path: JSON (a list, or an object with ``labels``), NPZ (``labels``), NPY, CSV (column ``label``), text (a number
            per line), or a PLY whose vertices have the property ``label``.

    Returns:
        (K,) as stored; `formats.mesh.per_vertex` brings them onto a mesh's vertices.

    Raises:
        UserError: missing, damaged, not a list of whole numbers.
    """
    from medray.data.formats import mesh

    file, key = locate(path)
    return mesh.read_labels(file, key)


@from_storage
def read_traces(path: str | Path) -> dict[str, Any]:
    """Read the centrelines of an image, SWC or JSON; see `medray.data.traces`.

    Returns:
        ``shape``, ``polarity`` (None where the file does not say) and ``branches``, each with ``type`` and ``points``.

    Raises:
        UserError: missing, damaged, or a branch that is not a list of at least two different points.
    """
    from envs.axon.centrelines import read_centrelines
    from medray.data.traces import as_table

    file, _ = locate(path)
    try:
        return as_table(read_centrelines(file))
    except ValueError as error:
        raise UserError(str(error)) from error


@from_storage
def read_table(path: str | Path) -> Any:
    """Read points or measurements: JSON as parsed, columns of a CSV or matrices of a MATLAB file by name.

    A CSV column holds numbers where all its cells are numbers, else text.

    Raises:
        UserError: missing, or not what its suffix says.
    """
    file, _ = locate(path)
    try:
        if suffix_of(file) == ".json":
            return json.loads(file.read_text(encoding="utf-8"))
        if suffix_of(file) == ".csv":
            with file.open(newline="", encoding="utf-8-sig") as lines:
                rows = list(csv.DictReader(lines))
            return {name: _column([row[name] or "" for row in rows]) for name in (rows[0] if rows else {})}
        if suffix_of(file) == ".mat":
            from medray.data.formats.matlab import read_matrices

            return read_matrices(file)
    except (ValueError, csv.Error) as error:
        raise UserError(f"{file} is damaged: {error}") from error
    raise UserError(f"{file} is of no known kind; tables are {' '.join(TABLE_SUFFIXES)}")


def _column(values: list[str]) -> NDArray[Any]:
    try:
        return np.array([float(value) for value in values])
    except ValueError:
        return np.array(values)


def locate(path: str | Path) -> tuple[Path, str]:
    """Split ``file#key`` and see that the file is there.

    Raises:
        UserError: it is missing or empty.
    """
    return split_key(str(path), Path)


def _format(file: Path) -> str:
    return "dicom" if file.is_dir() else _FORMATS.get(suffix_of(file), "")


def _read(path: str | Path, *, label: bool, channels: bool) -> Volume:
    file, key = locate(path)
    name = _format(file)
    if not name:
        raise UserError(f"{file} is of no known kind; images are {' '.join(_FORMATS)} or a folder of DICOM slices")
    reader = importlib.import_module(f"medray.data.formats.{name}")
    options: dict[str, Any] = {}
    if name in KEYED:
        options["key"] = key
    if name == "raster":
        options["label"] = label
    if name in ("nifti", "metaimage", "arrays"):
        options["channels"] = channels
    try:
        volume: Volume = reader.read(file, **options)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise UserError(f"{file} does not fit into memory; its header may be damaged") from error
    return volume


def _checked(volume: Volume) -> Volume:
    """Finite values, a usable affine, and the types the rest of the library expects."""
    array, affine = volume.array, volume.affine
    if 0 in array.shape:
        raise UserError(f"{volume.source} holds no voxels, its shape is {array.shape}")
    if array.dtype.kind not in "biufc":
        raise UserError(f"{volume.source} holds {array.dtype} values where numbers are expected")
    if array.dtype.kind in "fc":
        bad = array.size - int(np.isfinite(array).sum())
        if bad:
            raise UserError(f"{volume.source}: {bad} of {array.size} values are NaN or infinite")
        array = array.astype(np.complex64 if array.dtype.kind == "c" else np.float32, copy=False)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(f"{volume.source} holds values beyond the range of 32-bit floating point")
    if array.dtype == bool:
        array = array.astype(np.uint8)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) <= 1e-6 * np.prod(lengths):
        raise UserError(f"{volume.source} has an unusable affine (a voxel size of 0 or NaN in its header)")
    if array.dtype.byteorder not in ("=", "|"):
        array = array.astype(array.dtype.newbyteorder("="))
    return Volume(array, affine, volume.source, volume.header)
