"""`Volume`s out, to the format the file's name says; whole or not at all.

| names | content |
|---|---|
| .nii.gz .nii | (X, Y, Z), several channels (X, Y, Z, C); sform and qform, mm; displacement fields (X, Y, Z, 1, 3) |
| .mha .nrrd | through ITK, RAS turned into LPS |
| .png .tif .tiff .bmp .jpg | 2D, whole numbers; no position |
| .npz .npy | `array` (channel first) and `affine`; the array alone |

A file is written under a temporary name beside its place and then renamed, so a reader never meets half of one.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medray.data.affines import restore_singleton
from medray.data.case import Volume
from medray.data.readers import stem_of, suffix_of
from medray.errors import UserError

_FORMATS = {
    **dict.fromkeys((".nii.gz", ".nii"), "nifti"),
    **dict.fromkeys((".mha", ".nrrd"), "metaimage"),
    **dict.fromkeys((".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg"), "raster"),
    **dict.fromkeys((".npz", ".npy"), "arrays"),
}
_FIELD_SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd")
_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_volume(volume: Volume, path: str | Path) -> Path:
    """Write an image or label map; folders on the way are made.

    Args:
        volume: (C, *spatial). A 2D image goes into NIfTI as one slice, on the axis it was read from.
        path: where to; the suffix chooses the format.

    Returns:
        The path.

    Raises:
        UserError: unknown suffix, content the format cannot hold, no space left, no permission.
    """
    path = Path(path)
    name = _FORMATS.get(suffix_of(path))
    if name is None:
        raise UserError(f"{path} has no suffix that can be written; use one of {' '.join(_FORMATS)}")
    module = importlib.import_module(f"medray.data.formats.{name}")
    if name == "metaimage":
        _write_itk(volume, path)
    else:
        write_bytes(path, module.write(volume, path))
    return path


def write_displacement(field: Volume, path: str | Path) -> Path:
    """Write a displacement field (3, *spatial), mm along the world axes, RAS+, as `geometry.to_original` returns it.

    NIfTI: shape (X, Y, Z, 1, 3), intent 1006 (NIFTI_INTENT_DISPVECT), components RAS as the standard says; ITK from 5.3
    on (SimpleITK, 3D Slicer, elastix built on it) turns them into its own LPS when reading, ANTs and older ITK do not,
    they want LPS. MHA and NRRD: a vector image with components in LPS, as every ITK tool reads it. A 2D field is one
    slice of three axes with all three components, so that a tilted or coronal plane is told right.

    Raises:
        UserError: another suffix, no space left, no permission.
        ValueError: not three components.
    """
    path = Path(path)
    if field.array.shape[0] != 3:
        raise ValueError(f"a displacement field has 3 components (world x, y, z in mm), got {field.array.shape[0]}")
    suffix = suffix_of(path)
    if suffix not in _FIELD_SUFFIXES:
        raise UserError(f"{path}: a displacement field is written as {' '.join(_FIELD_SUFFIXES)}")
    array: NDArray[Any] = field.array.astype(np.float32)
    affine = field.affine
    if field.spatial_dims == 2:
        array, affine = restore_singleton(array, int(field.header.get("singleton_axis", 2)), affine)
    if suffix in (".nii.gz", ".nii"):
        from medray.data.formats import nifti

        write_bytes(path, nifti.write_vectors(Volume(array, affine, header=field.header), path))
    else:
        lps = array * np.array([-1, -1, 1], dtype=np.float32).reshape(3, 1, 1, 1)
        _write_itk(Volume(lps, affine), path)
    return path


def _write_itk(volume: Volume, path: Path) -> None:
    from medray.data.formats import metaimage

    with replacing(path) as temporary:
        try:
            metaimage.write(volume, temporary)
        except RuntimeError as error:
            free = shutil.disk_usage(path.parent).free
            code = errno.ENOSPC if free < volume.array.nbytes else errno.EIO
            raise OSError(code, metaimage.reason(error)) from error


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write a whole file or leave what was there.

    Raises:
        UserError: no space left, no permission.
    """
    path = Path(path)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return path


def beside(path: Path, ending: str) -> Path:
    """Where a by-product of a result goes: ``case_overview.png`` for ``case.nii.gz`` and ``_overview.png``."""
    return path.with_name(stem_of(path) + ending)


def write_json(path: str | Path, values: Mapping[str, Any]) -> Path:
    """Write plain values as indented JSON; errors as of `write_bytes`."""
    return write_bytes(path, (json.dumps(values, indent=1) + "\n").encode())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder with the same suffix; renamed to ``path`` at the end, removed on failure.

    Raises:
        UserError: the operating system refused, with its reason.
    """
    temporary = path.with_name(f".{secrets.token_hex(6)}.part{suffix_of(path) or path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno in _FULL:
            raise UserError(f"no space left to write {path}; free some or choose another --out") from error
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
