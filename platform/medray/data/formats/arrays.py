"""NPY, NPZ and HDF5: plain arrays, chosen by ``#key`` where a file holds several.

An array of two axes is a 2D image, of three a 3D one, spacing 1 mm. An NPZ written by `write` holds ``array`` (channel
first) and ``affine`` and comes back unchanged.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medray.data.case import Volume
from medray.errors import UserError

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")


def read(path: Path, key: str = "", *, channels: bool = False) -> Volume:
    """Read one array as an image.

    Raises:
        UserError: damaged, no such key, or not two or three axes (one more, the last, if ``channels``).
    """
    array, affine = _load(path, key)
    header = {"format": "array"}
    if affine is not None:
        return Volume(array, affine, str(path), header)
    if channels and array.ndim in (3, 4):
        return Volume(np.ascontiguousarray(np.moveaxis(array, -1, 0)), np.eye(4), str(path), header)
    if array.ndim not in (2, 3):
        shape = " x ".join(str(n) for n in array.shape)
        raise UserError(f"{path} is {array.ndim}D ({shape}) where a 2D or 3D image is expected")
    return Volume(array[None], np.eye(4), str(path), header)


def read_array(path: Path, key: str = "") -> NDArray[Any]:
    """Read one array as it is: k-space, points, spectra.

    Raises:
        UserError: damaged, or no such key.
    """
    return _load(path, key)[0]


def _load(path: Path, key: str) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    if path.suffix.lower() in (".h5", ".hdf5"):
        return _load_hdf5(path, key), None
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded, None
        with loaded:
            if not key and {"array", "affine"} <= set(loaded.files):
                return loaded["array"], np.asarray(loaded["affine"], dtype=np.float64)
            return loaded[_only_key(path, key, loaded.files)], None
    except (OSError, EOFError, zipfile.BadZipFile, ValueError) as error:
        raise UserError(f"{path} is truncated, damaged or not a plain numeric array: {_line(error)}") from error


def _load_hdf5(path: Path, key: str) -> NDArray[Any]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            return np.asarray(file[_only_key(path, key, names)][()])
    except OSError as error:
        raise UserError(f"{path} is truncated, damaged or not HDF5: {_line(error)}") from error


def _only_key(path: Path, key: str, names: list[str]) -> str:
    known = ", ".join(sorted(names)) or "nothing"
    if key:
        if key.strip("/") not in names:
            raise UserError(f"{path} has no array named {key!r}; it holds {known}")
        return key.strip("/")
    if len(names) != 1:
        raise UserError(f"{path} holds {len(names)} arrays ({known}); choose one by adding #NAME to the path")
    return names[0]


def write(volume: Volume, path: Path) -> bytes:
    """The bytes of an NPZ with ``array`` and ``affine``, or of an NPY with the array alone.

    Raises:
        UserError: the suffix is one this module only reads.
    """
    buffer = io.BytesIO()
    if path.suffix.lower() == ".npz":
        np.savez_compressed(buffer, array=volume.array, affine=volume.affine)
    elif path.suffix.lower() == ".npy":
        np.save(buffer, volume.array[0] if volume.array.shape[0] == 1 else volume.array, allow_pickle=False)
    else:
        raise UserError(f"{path}: {path.suffix} is read but not written; use .npz")
    return buffer.getvalue()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
