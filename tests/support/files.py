"""Fields of a case as the files a user would have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medray.data.case import Mesh, Volume
from medray.data.formats.mesh import write_ply
from medray.data.writers import write_volume


def save_field(value: Any, folder: Path, name: str) -> Path:
    """Write an image as PNG where it is a picture, else as NIfTI, NPZ where it has several channels.

    Meshes become PLY, arrays NPY.

    Raises:
        TypeError: no file is known for values of this type.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(value, Volume):
        picture = value.spatial_dims == 2 and value.array.dtype == np.uint8
        plain = value.array.shape[0] == 1 and value.array.dtype.kind != "c"
        return write_volume(value, folder / f"{name}{'.png' if picture else '.nii.gz' if plain else '.npz'}")
    if isinstance(value, Mesh):
        path = folder / f"{name}.ply"
        path.write_bytes(write_ply(value, np.zeros((len(value.vertices), 3), np.uint8), {}))
        return path
    if isinstance(value, np.ndarray):
        np.save(folder / f"{name}.npy", value)
        return folder / f"{name}.npy"
    raise TypeError(f"no file is known for a {type(value).__name__}")
