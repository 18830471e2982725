"""DICOM: a folder that holds one series, or one file.

Files are grouped by series and sorted by position with pydicom, which names what is wrong; the pixels come from ITK,
which decompresses and applies the rescale slope and intercept. No patient identifier leaves this module: a patient is
known by a digest of its id.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from medray.data.case import Volume
from medray.data.formats import metaimage
from medray.data.places import P, Place, StoredPath
from medray.data.readers import suffix_of
from medray.errors import UserError

SUFFIXES = (".dcm", ".dicom", ".ima")
GAP_TOLERANCE = 0.1
"""Slices further apart than the median by this fraction mean that some are missing."""
_SAME_POSITION_MM = 0.01
_SAME_DIRECTION = 0.01  # components of unit vectors; scanners round them
_HEADER_BYTES = 64 << 10
"""Fetched of a stored file to read its tags; the whole file where this does not reach the pixels."""
_REQUESTS_AT_ONCE = 16
_TAGS = (
    "SeriesInstanceUID",
    "SeriesDescription",
    "SeriesNumber",
    "PatientID",
    "Modality",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "InstanceNumber",
    "Rows",
    "Columns",
)


@dataclass(frozen=True)
class Series:
    """One series: its files in the order of position along the slice normal."""

    uid: str
    description: str
    modality: str
    patient: str
    files: tuple[Place, ...]
    positions: tuple[float, ...]
    """mm along the slice normal, ascending; empty where the files carry no position."""
    mixed: str = ""
    """What keeps the files from being one stack of slices, as the rest of a sentence; empty where nothing does."""


def read(path: Path, key: str = "") -> Volume:
    """Read a file, or the series in a folder; ``key`` is a series UID where the folder holds several.

    Raises:
        UserError: no DICOM file, several series, missing slices, a slice given twice, slices of several sizes or
            planes, or damaged pixels.
    """
    if path.is_file():
        return _read_pixels([path], path)
    series = series_in(path)
    if key:
        series = [one for one in series if one.uid == key] or _unknown_series(path, key, series)
    if len(series) > 1:
        listed = "; ".join(
            f"{one.uid} ({one.description or 'no description'}, {len(one.files)} files)" for one in series
        )
        raise UserError(f"{path} holds {len(series)} DICOM series where one is expected; add #UID to choose: {listed}")
    if series[0].mixed:
        raise UserError(f"{path} {series[0].mixed}")
    _check_twice(path, series[0])
    _check_gaps(path, series[0])
    return _read_pixels(series[0].files, path)


def _unknown_series(path: Path, key: str, series: Iterable[Series]) -> list[Series]:
    raise UserError(f"{path} holds no DICOM series {key}; it holds {', '.join(one.uid for one in series)}")


def dicom_files(folder: P) -> list[P]:
    """Files of a folder that are DICOM: by suffix, or, where the suffix says nothing, by their preamble."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix.lower() in SUFFIXES or (not suffix_of(path) and _has_preamble(path)):
            found.append(path)
    return found


def _has_preamble(path: Place) -> bool:
    if isinstance(path, StoredPath):
        return path.head(132)[128:] == b"DICM"
    assert isinstance(path, Path)
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def series_in(folder: Place) -> list[Series]:
    """The series of one folder (not its sub-folders), by UID, each sorted by slice position.

    Raises:
        UserError: no DICOM file in it, or one that cannot be read.
    """
    import pydicom

    files = dicom_files(folder)
    if not files:
        raise UserError(f"{folder} holds no DICOM files (.dcm); expected the slices of one series")
    groups: dict[str, list[tuple[float, int, Place, Any]]] = {}
    for path, raw in zip(files, _headers(files), strict=True):
        try:
            head = pydicom.dcmread(raw, stop_before_pixels=True, specific_tags=list(_TAGS))
        except (pydicom.errors.InvalidDicomError, OSError, EOFError, ValueError, AttributeError, KeyError) as error:
            raise UserError(f"{path} is truncated or not a DICOM file: {' '.join(str(error).split())}") from error
        uid = str(head.get("SeriesInstanceUID", "no-series-uid"))
        groups.setdefault(uid, []).append((_position(head), int(head.get("InstanceNumber") or 0), path, head))
    series = []
    for uid, items in sorted(groups.items()):
        items.sort(key=lambda item: item[:3])
        head = items[0][3]
        positions = tuple(item[0] for item in items)
        series.append(
            Series(
                uid=uid,
                description=str(head.get("SeriesDescription", "")),
                modality=str(head.get("Modality", "")).lower(),
                patient=_pseudonym(str(head.get("PatientID", ""))),
                files=tuple(item[2] for item in items),
                positions=positions if np.isfinite(positions).all() else (),
                mixed=_mixed([(item[2].name, item[3]) for item in items]),
            )
        )
    return series


def _headers(files: Sequence[Place]) -> Iterable[Path | BinaryIO]:
    """What pydicom reads the tags from: the files; of stored ones, many at a time, the part with the tags."""
    stored = [path for path in files if isinstance(path, StoredPath)]
    if not stored:
        return [path for path in files if isinstance(path, Path)]
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        return list(pool.map(_stored_header, stored))


def _stored_header(path: StoredPath) -> BinaryIO:
    import pydicom

    raw = io.BytesIO(path.head(_HEADER_BYTES))
    if path.size > _HEADER_BYTES:
        try:
            pydicom.dcmread(raw, stop_before_pixels=True, specific_tags=list(_TAGS))
            whole = raw.tell() < _HEADER_BYTES  # it stopped at the pixels, not at the end of what was fetched
        except Exception:  # whatever a header cut anywhere gives
            whole = False
        if not whole:
            return io.BytesIO(path.read_bytes())
        raw.seek(0)
    return raw


def _position(head: Any) -> float:
    """Distance of the slice along the normal of its plane, mm; inf where the file does not say."""
    position, orientation = head.get("ImagePositionPatient"), head.get("ImageOrientationPatient")
    if not position or not orientation:
        return float("inf")
    axes = np.array([float(v) for v in orientation]).reshape(2, 3)
    return float(np.dot(np.cross(axes[0], axes[1]), [float(v) for v in position]))


def _mixed(slices: Sequence[tuple[str, Any]]) -> str:
    """Why slices (file name, tags) of one series are no stack, or nothing."""
    first_name, first = slices[0]
    for name, head in slices[1:]:
        sizes = [(int(one.get("Columns") or 0), int(one.get("Rows") or 0)) for one in (first, head)]
        if sizes[0] != sizes[1]:
            shapes = [f"{columns} x {rows}" for columns, rows in sizes]
            return f"holds slices of different size in one series: {first_name} is {shapes[0]}, {name} is {shapes[1]}"
        planes = [np.array(one.get("ImageOrientationPatient") or [0.0] * 6, dtype=np.float64) for one in (first, head)]
        if np.abs(planes[0] - planes[1]).max() > _SAME_DIRECTION:
            return (
                f"holds slices of different planes in one series, as {first_name} and {name}; a localizer is no volume"
            )
    return ""


def _pseudonym(patient_id: str) -> str:
    return "p" + hashlib.blake2b(patient_id.encode(), digest_size=5).hexdigest() if patient_id else ""


def _check_twice(folder: Path, series: Series) -> None:
    """Two files at one position: a copy, or another echo, phase or series."""
    twice = [index for index, gap in enumerate(np.diff(series.positions)) if gap < _SAME_POSITION_MM]
    if not twice:
        return
    first, second = series.files[twice[0]], series.files[twice[0] + 1]
    where = f"{folder}: {len(twice)} of {len(series.files)} slices lie where another one does, as {first.name} and "
    if _same_pixels(first, second):
        raise UserError(f"{where}{second.name} with the same pixels; remove the copies")
    raise UserError(f"{where}{second.name} with other pixels; keep the slices of one echo, phase or acquisition")


def _same_pixels(first: Place, second: Place) -> bool:
    import pydicom

    pixels = [pydicom.dcmread(io.BytesIO(file.read_bytes())).get("PixelData") for file in (first, second)]
    return bool(pixels[0] == pixels[1])


def _check_gaps(folder: Place, series: Series) -> None:
    if len(series.positions) < 3:
        return
    gaps = np.diff(series.positions)
    usual = float(np.median(gaps))
    worst = int(np.argmax(np.abs(gaps - usual)))
    if abs(gaps[worst] - usual) > GAP_TOLERANCE * max(usual, 1e-6):
        raise UserError(
            f"{folder}: the slices are not evenly spaced, {gaps[worst]:.2f} mm after {series.files[worst].name} where "
            f"{usual:.2f} mm is usual; a slice is missing or two series are mixed"
        )


def _read_pixels(files: Sequence[Place], path: Path) -> Volume:
    import SimpleITK as sitk

    try:
        names = [str(file) for file in files]
        image = sitk.ReadImage(names[0] if len(names) == 1 else names)
    except RuntimeError as error:
        raise UserError(
            f"{path} is truncated, damaged or not DICOM that ITK reads: {metaimage.reason(error)}"
        ) from error
    volume = metaimage.to_volume(image, path)
    return Volume(volume.array, volume.affine, str(path), {**volume.header, "format": "dicom"})
