"""MetaImage, NRRD and what else ITK reads, through SimpleITK. World positions are turned from LPS into RAS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medray.data.affines import affine_from_itk, itk_from_affine, move_singleton_last, restore_singleton
from medray.data.case import Volume
from medray.errors import UserError

SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")


def read(path: Path, *, channels: bool = False) -> Volume:
    """Read one file as (C, *spatial), array axes in ITK's index order (x first).

    Raises:
        UserError: damaged, not an image, or more than three axes.
    """
    import SimpleITK as sitk

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise UserError(f"{path} is truncated, damaged or not an image that ITK reads: {reason(error)}") from error
    return to_volume(image, path, channels=channels)


def reason(error: RuntimeError) -> str:
    """The informative part of an ITK exception, on one line."""
    if "Unable to determine ImageIO reader" in str(error):
        return "its content is of no kind it knows"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines[1:] if "ERROR" in line), lines[-1])
    return said.split("): ", 1)[-1].split("ERROR: ", 1)[-1].rstrip(".:")


def to_volume(image: Any, path: Path, *, channels: bool = False) -> Volume:
    """A SimpleITK image as a `Volume`; a single slice becomes 2D, the fourth axis becomes channels if asked for."""
    import SimpleITK as sitk

    dims = image.GetDimension()
    array: NDArray[Any] = sitk.GetArrayFromImage(image)
    vector = image.GetNumberOfComponentsPerPixel() > 1
    components = np.moveaxis(array, -1, 0) if vector else array[None]
    array = components.transpose(0, *range(dims, 0, -1))
    direction = np.array(image.GetDirection()).reshape(dims, dims)
    spacing, origin = np.array(image.GetSpacing()), np.array(image.GetOrigin())
    if dims == 4 and (channels or array.shape[-1] == 1) and not vector:
        array = np.moveaxis(array[0], -1, 0)
        direction, spacing, origin, dims = direction[:3, :3], spacing[:3], origin[:3], 3
    if dims > 3:
        shape = " x ".join(str(n) for n in array.shape[1:])
        raise UserError(f"{path} is {dims}D ({shape}) where a 2D or 3D image is expected; split its last axis first")
    affine = affine_from_itk(direction, spacing, origin)
    header: dict[str, Any] = {"format": "itk", "dims": image.GetDimension()}
    axis, affine = move_singleton_last(array.shape[1:], affine)
    if axis is not None:
        array = np.squeeze(array, axis + 1)
        header["singleton_axis"] = axis
    return Volume(np.ascontiguousarray(array), affine, str(path), header)


def to_image(volume: Volume) -> Any:
    """A `Volume` as a SimpleITK image. A 2D image stays 2D where its plane is axial, else it is one slice of three."""
    import SimpleITK as sitk

    array, affine = volume.array, volume.affine
    if volume.spatial_dims == 2 and not _is_axial(affine):
        array, affine = restore_singleton(array, int(volume.header.get("singleton_axis", 2)), affine)
    dims = array.ndim - 1
    flipped = array.transpose(0, *range(dims, 0, -1))
    flipped = flipped.astype(np.uint8) if flipped.dtype == bool else flipped
    vector = array.shape[0] > 1
    image: Any = sitk.GetImageFromArray(np.moveaxis(flipped, 0, -1) if vector else flipped[0], isVector=vector)
    direction, spacing, origin = itk_from_affine(affine, dims)
    image.SetDirection(direction.ravel().tolist())
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin.tolist())
    return image


def _is_axial(affine: NDArray[np.float64]) -> bool:
    """Whether the plane lies at z = 0 with no tilt, so that a 2D file can hold its position."""
    return bool(np.allclose(affine[2, [0, 1, 3]], 0.0, atol=1e-6))


def write(volume: Volume, path: Path) -> None:
    """Write through ITK, compressed; the caller sees to temporary names.

    Raises:
        RuntimeError: ITK could not write.
    """
    import SimpleITK as sitk

    sitk.WriteImage(to_image(volume), str(path), useCompression=True)
