"""Slices computed from DICOM slices, as DICOM files of their own: marked as derived, in a new series.

Whatever the originals say of the patient, the study and the scanner stays, since the result is the same patient's.
"""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medray.data.formats.dicom import SUFFIXES, series_in
from medray.data.readers import suffix_of
from medray.data.writers import write_bytes
from medray.errors import UserError

_OUTDATED = ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelData", "FloatPixelData", "IconImageSequence",
             "ExtendedOffsetTable", "ExtendedOffsetTableLengths")  # fmt: skip
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_OVERLAYS = range(0x6000, 0x6100)  # groups of what is drawn on top, pixel by pixel
_LONGEST_DESCRIPTION = 64


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """What was done to the originals.

    Attributes:
        factor: pixels for one along rows and columns, over the same field of view.
        text: for DerivationDescription.
        name: appended to SeriesDescription.
    """

    factor: int
    text: str
    name: str


def dicom_slices(path: Path) -> list[Path]:
    """The files of a series in the order in which `formats.dicom` stacks them; or the one file.

    Raises:
        UserError: no series or several.
    """
    if path.is_file():
        return [path]
    series = series_in(path)
    if len(series) != 1:
        raise UserError(f"{path} holds {len(series)} DICOM series where one is expected; give a folder with one")
    return [Path(str(file)) for file in series[0].files]


def write_derived(originals: Sequence[Path], slices: Sequence[NDArray[Any]], out: Path, done: Derivation) -> list[Path]:
    """Write a DICOM file for each slice.

    UIDs are made from those of the originals and the pixels: new ones, and equal for equal results.

    Args:
        originals: as of `dicom_slices`.
        slices: as many, each (rows, columns) in the originals' unit (HU for CT), ``done.factor`` times as large.
        out: the file for a single slice, a name that ends in .dcm, .dicom or .ima; else the folder.
        done: what was done.

    Returns:
        The files.

    Raises:
        UserError: an original is not one plane of gray values, or would be overwritten, or the place refuses.
    """
    import pydicom

    files = result_files(originals, out)
    heads = [pydicom.dcmread(path, defer_size=1024) for path in originals]
    for path, head in zip(originals, heads, strict=True):
        if int(head.get("NumberOfFrames") or 1) > 1 or not str(head.PhotometricInterpretation).startswith("MONOCHROME"):
            raise UserError(f"{path} holds several frames or colors; results can be written as .nii.gz instead")
    digests = [hashlib.blake2b(np.ascontiguousarray(plane).tobytes()).hexdigest() for plane in slices]
    series = pydicom.uid.generate_uid(entropy_srcs=[str(heads[0].get("SeriesInstanceUID", "")), *digests])
    written = []
    for file, head, plane, digest in zip(files, heads, slices, digests, strict=True):
        made = _derived(head, plane, done, series, digest)
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, made, enforce_file_format=True)
        written.append(write_bytes(file, buffer.getvalue()))
    return written


def result_files(originals: Sequence[Path], out: Path) -> list[Path]:
    """Where `write_derived` puts the results: into the folder ``out`` by their originals' names, or one into a file.

    Raises:
        UserError: several for one file, two of one name, or an original would be overwritten.
    """
    if suffix_of(out) in SUFFIXES:
        if len(originals) > 1:
            raise UserError(f"--out {out}: a series of {len(originals)} slices needs a folder, a name without suffix")
        files = [out]
    else:
        # names may be UIDs, whose last number is no suffix
        stems = [path.name[: len(path.name) - len(suffix_of(path))] for path in originals]
        files = [out / f"{stem}.dcm" for stem in stems]
    if len(set(files)) < len(files):
        raise UserError(f"--out {out}: files of the series would get the same name; name the result .nii.gz instead")
    if {file.resolve() for file in files} & {path.resolve() for path in originals}:
        raise UserError(f"--out {out} would overwrite the original; choose another place")
    return files


def _derived(head: Any, plane: NDArray[Any], done: Derivation, series: str, digest: str) -> Any:
    import pydicom

    made = copy.deepcopy(head)
    for name in _OUTDATED:
        if name in made:
            delattr(made, name)
    for tag in [tag for tag in made.keys() if tag.group in _OVERLAYS]:  # noqa: SIM118  values would be decoded
        del made[tag]
    original = pydicom.Dataset()
    original.ReferencedSOPClassUID, original.ReferencedSOPInstanceUID = head.SOPClassUID, head.SOPInstanceUID
    made.SourceImageSequence = [original]
    kinds = head.get("ImageType") or []
    made.ImageType = ["DERIVED", "SECONDARY", *([] if isinstance(kinds, str) else kinds[2:])]
    made.DerivationDescription = done.text
    made.SeriesDescription = f"{head.get('SeriesDescription', '')} {done.name}".strip()[-_LONGEST_DESCRIPTION:]
    made.SeriesInstanceUID = series
    made.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[str(head.SOPInstanceUID), digest])
    _place(made, head, done.factor)
    made.Rows, made.Columns = plane.shape
    made.PixelData = _stored(made, plane).tobytes()
    made["PixelData"].VR = "OB" if int(made.BitsAllocated) == 8 else "OW"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    return made


def _place(made: Any, head: Any, factor: int) -> None:
    """Finer pixels, and the first one moved so that the corner of the field of view stays."""
    from pydicom.valuerep import format_number_as_ds

    for name in _SPACINGS:
        if head.get(name):
            setattr(made, name, [format_number_as_ds(float(value) / factor) for value in head[name].value])
    if not all(head.get(name) for name in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")):
        return
    between = [float(value) for value in head.PixelSpacing]  # rows, columns
    along_row, along_column = np.array([float(value) for value in head.ImageOrientationPatient]).reshape(2, 3)
    shift = (along_row * between[1] + along_column * between[0]) * (1 / factor - 1) / 2
    position = np.array([float(value) for value in head.ImagePositionPatient]) + shift
    made.ImagePositionPatient = [format_number_as_ds(float(value)) for value in position]


def _stored(made: Any, plane: NDArray[Any]) -> NDArray[Any]:
    """Values in the file's own unit as stored whole numbers, by its rescale slope and intercept."""
    signed, bits = bool(made.PixelRepresentation), int(made.BitsStored)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, intercept = float(made.get("RescaleSlope") or 1), float(made.get("RescaleIntercept") or 0)
    values = np.clip(np.rint((np.asarray(plane, dtype=np.float64) - intercept) / slope), low, high)
    if made.PhotometricInterpretation == "MONOCHROME1":  # 0 is white: ITK turns such files over when it reads them
        values = low + high - values
    return values.astype(f"<{'i' if signed else 'u'}{int(made.BitsAllocated) // 8}")
