"""Raw MR data: k-space with or without sampling masks from files, and masks for retrospective undersampling.

On disk k-space is complex, (slices, rows, columns) or (slices, coils, rows, columns), zero frequency in the middle of
rows and columns; a last axis of two real numbers stands for real and imaginary part. In HDF5 and NPZ it is the array
``kspace`` with an optional ``mask`` beside it (as fastMRI has it: a mask of one axis names columns).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.data.fields import FileRef, case_fingerprint
from medray.data.geometry import Grid
from medray.data.readers import locate, read_stored, suffix_of
from medray.data.slices import SliceGrid, SliceReader
from medray.errors import UserError
from medray.storage import is_url

ComplexArray = NDArray[np.complex64]
_MANY_ZEROS = 0.02
"""Share of samples that are exactly 0 from which on k-space counts as undersampled; noise is never exactly 0."""


@dataclass(frozen=True)
class RawScan:
    """The raw data of a case.

    Attributes:
        case: its id.
        kspace: (slices, coils, rows, columns), zero frequency in the middle.
        mask: (rows, columns), where it was measured; None if fully sampled.
        grid: of the slices, where the data were simulated from a magnitude image.
        listed: slices worth training on.
    """

    case: str
    kspace: ComplexArray
    mask: NDArray[np.bool_] | None
    grid: Grid | None
    listed: Sequence[int]


def as_raw(case: Case) -> Case:
    """A case found as ``image`` as one with ``kspace`` and ``mask``, where its file holds k-space; else as it is.

    Raises:
        UserError: the file is missing or damaged.
    """
    ref = case.fields.get("image")
    if not isinstance(ref, FileRef) or "kspace" in case.fields or "#" in ref.path:
        return case
    names = read_stored(ref.path, ref.version, array_names) if is_url(ref.path) else array_names(ref.path)
    if "kspace" not in names:
        return case
    keys = {name: f"{ref.path}#{name}" if name in names and len(names) > 1 else ref.path for name in ("kspace", "mask")}
    fields = {name: replace(ref, path=keys[name], kind="array") for name in ("kspace", "mask") if name in names}
    others = {name: other for name, other in case.fields.items() if name != "image"}
    return replace(case, fields={**others, **fields})


def array_names(path: str | Path) -> tuple[str, ...]:
    """Names of the arrays in an HDF5 or NPZ file; an NPY file of k-space is ``("kspace",)``; empty for other files.

    Raises:
        UserError: missing or damaged.
    """
    suffix = suffix_of(path)
    if suffix not in (".h5", ".hdf5", ".npz", ".npy"):
        return ()
    file, _ = locate(path)
    try:
        if suffix == ".npy":
            array = np.load(file, mmap_mode="r", allow_pickle=False)
            return ("kspace",) if array.dtype.kind == "c" or array.shape[-1] == 2 else ()
        if suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                return tuple(archive.files)
        import h5py

        with h5py.File(file, "r") as opened:
            names: list[str] = []
            opened.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            return tuple(names)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file} is truncated or damaged: {' '.join(str(error).split()).rstrip('.')}") from error


def checked_kspace(array: NDArray[Any], where: str) -> ComplexArray:
    """K-space as (slices, coils, rows, columns), or what is wrong with it.

    Raises:
        UserError: real numbers or magnitudes, NaN, nothing but zeros, another number of axes, or zero frequency in the
            corner.
    """
    shape = " x ".join(str(n) for n in array.shape)
    if array.dtype.kind == "f" and array.ndim >= 3 and array.shape[-1] == 2:
        array = array[..., 0] + 1j * array[..., 1]
    if array.dtype.kind != "c" or (not array.imag.any() and (array.real >= 0).all() and array.any()):
        raise UserError(
            f"{where} holds magnitudes ({array.dtype}, {shape}) where complex k-space is expected; the phase cannot be "
            "had back from them, save complex numbers or real and imaginary part as a last axis of 2"
        )
    if array.ndim not in (2, 3, 4):
        raise UserError(f"{where} has the shape {shape}; k-space is (slices, rows, columns), maybe with coils second")
    slices = array[None] if array.ndim == 2 else array
    kspace = slices[:, None] if slices.ndim == 3 else slices
    if not np.isfinite(kspace).all() or not kspace.any():
        raise UserError(f"{where} holds NaN or nothing but zeros where k-space is expected")
    power = np.abs(kspace).mean(axis=(0, 1))
    rows, columns = power.shape
    middle = power[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    if middle.mean() < (power.sum() - middle.sum()) / max(1, power.size - middle.size):
        raise UserError(
            f"{where} has little signal in the middle of k-space; save it with zero frequency there "
            "(numpy.fft.fftshift)"
        )
    return np.asarray(kspace, dtype=np.complex64)


def checked_mask(array: NDArray[Any], kspace: ComplexArray, where: str) -> NDArray[np.bool_]:
    """A sampling mask as (rows, columns).

    Raises:
        UserError: it does not belong to the k-space, or holds other values than 0 and 1.
    """
    rows, columns = kspace.shape[-2:]
    squeezed = np.squeeze(array)
    if not np.isin(np.unique(squeezed), (0, 1)).all() or not squeezed.any():
        raise UserError(f"{where} is no sampling mask; it must hold 0 and 1 alone, and 1 where a sample was measured")
    if squeezed.shape == (columns,):
        squeezed = np.broadcast_to(squeezed, (rows, columns))
    if squeezed.shape != (rows, columns):
        shape = " x ".join(str(n) for n in np.shape(array))
        raise UserError(f"{where} has the shape {shape}, its k-space {rows} x {columns}; they must be alike")
    return np.asarray(squeezed, dtype=bool)


class RawReader:
    """Reads cases as raw scans.

    Args:
        shape: rows and columns that images are cropped or padded to; their own where None. Undersampled data stay.
        min_object: share of pixels above background that a slice simulated from a magnitude image must have to be
            listed.
        cache: keeps what was decoded.
    """

    def __init__(
        self, shape: tuple[int, int] | None = None, *, min_object: float = 0.0, cache: SampleCache | None = None
    ) -> None:
        self.shape = shape
        self.cache = cache or SampleCache(memory_gb=1.0)
        grid = SliceGrid(shape=shape, normalize="none", occupied=min_object)
        self.slices = SliceReader(grid, labels=(), cache=self.cache)

    def read(self, case: Case) -> RawScan:
        """The raw data of a case with the field ``kspace`` (maybe ``mask``), or simulated from its ``image``.

        Raises:
            UserError: see `checked_kspace`; k-space with gaps but without a mask.
        """
        if "kspace" not in case.fields:
            return self._simulated(case)
        kept = self._kept(case)
        mask = kept["mask"].astype(bool) if len(kept["mask"]) else None
        return RawScan(case.id, kept["kspace"], mask, None, range(len(kept["kspace"])))

    def image(self, case: Case, z: int, coil: int = 0) -> ComplexArray:
        """The complex image of one slice of a fully sampled case, (rows, columns)."""
        if "kspace" in case.fields:
            return from_kspace(self._kept(case)["kspace"][z, coil])
        return self.slices.stack(case).image[z, 0].astype(np.complex64)

    def _kept(self, case: Case) -> Mapping[str, NDArray[Any]]:
        fields = [name for name in ("kspace", "mask") if name in case.fields]
        key = ("raw", self.shape, case_fingerprint(case, fields))
        return self.cache.get(key, lambda: self._decode(case))

    def _decode(self, case: Case) -> dict[str, NDArray[Any]]:
        kspace = checked_kspace(np.asarray(case.load("kspace")), _where(case, "kspace"))
        empty = ~kspace.any(axis=(0, 1))
        if "mask" in case.fields:
            mask = checked_mask(np.asarray(_plain(case.load("mask"))), kspace, _where(case, "mask"))
            return {"kspace": kspace, "mask": mask} if not mask.all() else self._full(kspace)
        if empty.mean() > _MANY_ZEROS:
            raise UserError(
                f"{_where(case, 'kspace')} is k-space without its mask: {100 * empty.mean():.0f} % of its samples are "
                "0 in all slices, and only a mask tells those not measured; add the array mask, 1 where measured"
            )
        return self._full(kspace)

    def _full(self, kspace: ComplexArray) -> dict[str, NDArray[Any]]:
        if self.shape is not None and kspace.shape[-2:] != self.shape:
            kspace = from_image(fitted(from_kspace(kspace), self.shape))
        return {"kspace": kspace, "mask": np.zeros(0, dtype=bool)}

    def _simulated(self, case: Case) -> RawScan:
        """Of a magnitude image: its phase is 0 everywhere, which makes reconstruction easier than of measured data."""
        stack = self.slices.stack(case)
        image = stack.image[:, :1].astype(np.complex64)
        listed = [ref.index for ref in self.slices.refs(case)]
        return RawScan(case.id, from_image(image), None, stack.grid, listed)


def _where(case: Case, name: str) -> str:
    ref = case.fields[name]
    return ref.path if isinstance(ref, FileRef) else f"the {name} of case {case.id}"


def _plain(value: Any) -> Any:
    """The array of a mask, also where a reader made an image of it."""
    return getattr(value, "array", value)


def from_kspace(kspace: NDArray[Any]) -> ComplexArray:
    """Complex images of k-space, over the last two axes; orthonormal, zero frequency in the middle."""
    axes = (-2, -1)
    shifted = np.fft.ifftshift(kspace, axes=axes)
    return np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), axes=axes).astype(np.complex64)


def from_image(image: NDArray[Any]) -> ComplexArray:
    """K-space of complex images, over the last two axes; inverse of `from_kspace`."""
    axes = (-2, -1)
    shifted = np.fft.ifftshift(image, axes=axes)
    return np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=axes).astype(np.complex64)


def fitted(array: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """The last two axes cropped or padded with 0 around their middle."""
    for axis, wanted in zip((-2, -1), shape, strict=True):
        have = array.shape[axis]
        if have > wanted:
            first = have // 2 - wanted // 2
            array = np.take(array, range(first, first + wanted), axis=axis)
        elif have < wanted:
            before = wanted // 2 - have // 2
            pads = [(0, 0)] * array.ndim
            pads[axis] = (before, wanted - have - before)
            array = np.pad(array, pads)
    return array


def gaussian_mask(shape: tuple[int, int], fraction: float, seed: int) -> NDArray[np.bool_]:
    """A 2D sampling pattern, dense in the middle.

    Positions are drawn from a normal distribution around the middle, standard deviation a quarter of the side along
    each axis, until there are enough different ones inside.

    Args:
        shape: rows and columns.
        fraction: share of the samples that is measured, (0, 1).
        seed: of the pattern.

    Returns:
        (rows, columns), True for exactly ``int(rows * columns * fraction)`` samples.

    Raises:
        ValueError: a fraction out of range.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction lies in (0, 1), got {fraction:g}")
    random = np.random.default_rng([seed, *shape])
    wanted = max(1, int(shape[0] * shape[1] * fraction))
    mask = np.zeros(shape, dtype=bool)
    sides = np.array(shape)
    while (missing := wanted - int(mask.sum())) > 0:
        drawn = np.rint(random.normal((sides - 1) / 2, sides / 4, size=(2 * missing, 2))).astype(int)
        inside = drawn[((drawn >= 0) & (drawn < sides)).all(axis=1)]
        new = np.unique(inside, axis=0)
        new = new[~mask[tuple(new.T)]]
        mask[tuple(random.permutation(new)[:missing].T)] = True
    return mask
