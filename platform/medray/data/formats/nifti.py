"""NIfTI-1 and NIfTI-2, single file, optionally gzipped.

The affine is the sform, else the qform, as nibabel takes it. Gzipped files are decompressed whole so that their
checksum is verified: libraries that stop at the last voxel accept a damaged file, and ITK reads a truncated one as
noise without a word.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medray.data.affines import Affine, move_singleton_last, restore_singleton
from medray.data.case import Volume
from medray.errors import UserError

SUFFIXES = (".nii.gz", ".nii")
VECTOR_INTENTS = (1006, 1007)
"""NIFTI_INTENT_DISPVECT and NIFTI_INTENT_VECTOR."""


def read(path: Path, *, channels: bool = False) -> Volume:
    """Read one file as (C, *spatial).

    A single-slice volume becomes a 2D image whose affine has the slice axis last. The fifth axis (vectors, RGB in some
    tools) is channels always, the fourth only if ``channels``.

    Raises:
        UserError: damaged, not NIfTI, or four-dimensional while ``channels`` is false.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    raw = _decompressed(path)
    kind = nibabel.Nifti2Image if raw[:4] in (struct.pack("<i", 540), struct.pack(">i", 540)) else nibabel.Nifti1Image
    try:
        image = kind.from_bytes(raw)
        data = np.asanyarray(image.dataobj)
    except (ImageFileError, HeaderDataError) as error:
        raise UserError(f"{path} is not a NIfTI file: {_line(error)}") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is truncated or damaged: {_line(error)}; copy it again") from error
    header = {
        "format": "nifti",
        "sform_code": int(image.header["sform_code"]),
        "qform_code": int(image.header["qform_code"]),
        "intent_code": int(image.header["intent_code"]),
        "description": bytes(image.header["descrip"]).rstrip(b"\0").decode("latin-1"),
    }
    array = _channel_first(path, _plain(data), channels=channels)
    affine = np.asarray(image.affine, dtype=np.float64)
    if array.ndim == 3:
        return Volume(array, affine, str(path), {**header, "dims": 2})
    axis, affine = move_singleton_last(array.shape[1:], affine)
    if axis is not None:
        array, header = np.squeeze(array, axis + 1), {**header, "singleton_axis": axis}
    return Volume(np.ascontiguousarray(array), affine, str(path), header)


def _decompressed(path: Path) -> bytes:
    raw = path.read_bytes()
    if raw[:2] != b"\x1f\x8b":
        if path.name.lower().endswith(".gz"):
            raise UserError(f"{path} is named .gz but holds no gzip data")
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, gzip.BadGzipFile, zlib.error, struct.error) as error:
        raise UserError(f"{path} is truncated or damaged: {_line(error)}; copy it again") from error


def _plain(data: NDArray[Any]) -> NDArray[Any]:
    """RGB records become a trailing axis of the fifth kind."""
    if data.dtype.names is None:
        return data
    stacked = np.stack([data[name] for name in data.dtype.names], axis=-1)
    return stacked.reshape(*data.shape[:3], *([1] * (4 - data.ndim)), stacked.shape[-1])


def _channel_first(path: Path, data: NDArray[Any], *, channels: bool) -> NDArray[Any]:
    """(X, Y[, Z[, T[, C]]]) to (C, X, Y[, Z])."""
    if data.ndim == 5 and data.shape[3] == 1:
        return np.moveaxis(data[:, :, :, 0, :], -1, 0)
    if data.ndim == 4 and data.shape[3] == 1:
        return data[None, ..., 0]
    if data.ndim == 4 and channels:
        return np.moveaxis(data, -1, 0)
    if data.ndim in (2, 3):
        return data[None]
    shape = " x ".join(str(n) for n in data.shape)
    raise UserError(f"{path} is {data.ndim}D ({shape}) where a 2D or 3D image is expected; split its last axis first")


def write(volume: Volume, path: Path) -> bytes:
    """The bytes of a file with this content: voxels (X, Y, Z), or (X, Y, Z, C) for several channels.

    Both sform and qform carry the affine (the qform only where it can: no shear), the units are mm, and 2D images are
    stored as one slice, on the axis they were read from. The codes are those of the file the volume was read from, or 1
    (scanner). Written without a time stamp, so equal content gives equal bytes.
    """
    array, affine = _grid_of_origin(volume)
    data = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)
    return _encode(data, affine, volume.header, path, intent=None)


def write_vectors(volume: Volume, path: Path) -> bytes:
    """Like `write`, for a field of vectors (C, *spatial): shape (X, Y, Z, 1, C), intent code 1006 (displacement).

    NIfTI says the components are mm along the world axes, RAS+. ITK 5.3 and later turn them into LPS on reading.
    """
    array, affine = _grid_of_origin(volume)
    return _encode(
        np.moveaxis(array, 0, -1)[:, :, :, None, :], affine, volume.header, path, intent="displacement vector"
    )


def _grid_of_origin(volume: Volume) -> tuple[NDArray[Any], Affine]:
    if volume.spatial_dims == 3:
        return volume.array, volume.affine
    return restore_singleton(volume.array, int(volume.header.get("singleton_axis", 2)), volume.affine)


def _encode(data: NDArray[Any], affine: Affine, header: Mapping[str, Any], path: Path, *, intent: str | None) -> bytes:
    import nibabel

    make: Any = nibabel.Nifti1Image
    image = make(_storable(data, path), affine)
    codes = [int(header.get(name, 1)) for name in ("sform_code", "qform_code")]
    if not any(codes):
        codes = [1, 1]
    image.set_sform(affine, codes[0] or codes[1])
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    orthogonal = np.allclose(axes.T @ axes, np.eye(3), atol=1e-4)
    image.set_qform(affine, (codes[1] or codes[0]) if orthogonal else 0)
    image.header.set_xyzt_units("mm")
    if intent is not None:
        image.header.set_intent(intent)
    raw: bytes = image.to_bytes()
    return gzip.compress(raw, compresslevel=4, mtime=0) if path.name.lower().endswith(".gz") else raw


def _storable(data: NDArray[Any], path: Path) -> NDArray[Any]:
    """Types every NIfTI reader knows: bool as uint8, 64-bit integers as int32."""
    if data.dtype == bool:
        return data.astype(np.uint8)
    if data.dtype in (np.int64, np.uint64):
        if data.size and (data.max() > np.iinfo(np.int32).max or data.min() < np.iinfo(np.int32).min):
            raise UserError(f"{path}: values up to {data.max()} do not fit the 32-bit integers NIfTI readers share")
        return data.astype(np.int32)
    if data.dtype == np.float16:
        return data.astype(np.float32)
    return data


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
