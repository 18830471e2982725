"""Where the fields of a case come from when they are files, and how content is told apart cheaply."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from medray.data.case import Case
from medray.data.places import Place, StoredPath, version_of
from medray.data.readers import (
    MESH_SUFFIXES,
    TABLE_SUFFIXES,
    TRACE_SUFFIXES,
    locate,
    read_array,
    read_label,
    read_mesh,
    read_stored,
    read_table,
    read_traces,
    read_vertex_label,
    read_volume,
    suffix_of,
)
from medray.errors import UserError
from medray.storage import StorageError, is_url

Kind = Literal["image", "channels", "label", "array", "table", "mesh", "vertex_label", "traces"]
"""How a file is read: `image` and `channels` (the last axis may be channels) by `read_volume`, `label` by `read_label`,
`array` by `read_array`, `table` by `read_table`, `mesh` by `read_mesh`, `vertex_label` by `read_vertex_label`,
`traces` by `read_traces`."""

_WINDOW = 1 << 20
"""Bytes taken from either end of a big file for its checksum."""
_LABEL_NAMES = ("label", "labels", "seg", "segmentation", "mask", "masks", "lesion", "lesions", "instances")
_TRACE_NAMES = ("centrelines", "centerlines", "traces")
_ARRAY_NAMES = ("kspace", "points", "spectrum", "sampling")


_READERS: Mapping[str, Callable[[str | Path], Any]] = {
    "label": read_label,
    "table": read_table,
    "array": read_array,
    "mesh": read_mesh,
    "vertex_label": read_vertex_label,
    "traces": read_traces,
}


@dataclass(frozen=True)
class FileRef:
    """A field that is a file, or a folder of DICOM slices, local or an s3 url, optionally with ``#key``.

    Attributes:
        path: with the key.
        kind: how it is read.
        version: of an object in storage, the one that was there when the source was opened; "" for the present one.
    """

    path: str
    kind: Kind = "image"
    version: str = ""

    def load(self) -> Any:
        """Read it.

        Raises:
            UserError: it is missing, damaged or not what its name says.
        """
        if is_url(self.path):
            return read_stored(self.path, self.version, self._read)
        return self._read(self.path)

    def _read(self, path: str | Path) -> Any:
        reader = _READERS.get(self.kind)
        return reader(path) if reader else read_volume(path, channels=self.kind == "channels")

    def fingerprint(self) -> str:
        """Size and checksum; see `file_fingerprint`. In storage size and etag, for which nothing is downloaded.

        Raises:
            UserError: the file is missing or empty.
        """
        if is_url(self.path):
            return self.version + self.path.partition("#")[2] if self.version else version_of(self.path)
        file, key = locate(self.path)
        files = sorted(p for p in file.iterdir() if p.is_file()) if file.is_dir() else [file]
        parts = [file_fingerprint(one) for one in files]
        return parts[0] if len(parts) == 1 and not key else _digest([*parts, key])


def ref_to(file: Place, kind: Kind, key: str = "") -> FileRef:
    """A field that is this file or folder, as it is now."""
    path = f"{file}#{key}" if key else str(file)
    return FileRef(path, kind, file.version() if isinstance(file, StoredPath) else "")


def kind_of(field: str, path: str, kinds: Mapping[str, Kind] | None = None) -> Kind:
    """How a field is read: as the system says in ``kinds``, else by the field's name and the file's suffix.

    STL, PLY, OBJ, OFF and XYZ are meshes; SWC and fields called centrelines or traces are traces; fields called label,
    mask, seg, lesion or instances, or ending in _label, _mask or _seg, are label maps; JSON and CSV are tables; kspace,
    points, spectrum and sampling are arrays; everything else is an image.
    """
    if kinds and field in kinds:
        return kinds[field]
    if suffix_of(path) in MESH_SUFFIXES:
        return "mesh"
    if suffix_of(path) in TRACE_SUFFIXES or field in _TRACE_NAMES:
        return "traces"
    if suffix_of(path) in TABLE_SUFFIXES:
        return "table"
    if is_label_name(field):
        return "label"
    return "array" if field in _ARRAY_NAMES else "image"


def is_label_name(name: str) -> bool:
    """Whether a file stem or field name says label map: ``label``, ``label_t1``, ``t1_seg``, ``lesion``, ``mask2``."""
    words = name.lower().replace("-", "_").split("_")
    return any(word.rstrip("0123456789") in _LABEL_NAMES for word in (words[0], words[-1]))


def file_fingerprint(path: Path) -> str:
    """Size in bytes and a BLAKE2b checksum of the content, ``"1234:9f3c..."``.

    Files above 2 MiB are judged by their size and their first and last MiB, so that opening a source of large volumes
    takes seconds; a change in the middle of a compressed file moves its end, one in the middle of an uncompressed
    file goes unseen. Remembered while the file's size and modification time stay the same.
    """
    status = path.stat()
    return _file_fingerprint(str(path.resolve()), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _file_fingerprint(path: str, size: int, modified_ns: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        if size <= 2 * _WINDOW:
            digest.update(file.read())
        else:
            digest.update(file.read(_WINDOW))
            file.seek(-_WINDOW, 2)
            digest.update(file.read())
    return f"{size}:{digest.hexdigest()}"


def source_fingerprint(cases: Iterable[Case], *, workers: int = 8) -> str:
    """SHA-256 over the cases in order of id: id, patient, attributes, and every field's name and own fingerprint.

    Paths are not part of it: a copied folder is the same data.
    """
    ordered = sorted(cases, key=lambda case: case.id)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        prints = list(pool.map(case_fingerprint, ordered))
    digest = hashlib.sha256()
    for case, content in zip(ordered, prints, strict=True):
        digest.update(repr((case.id, case.patient, sorted(case.attributes.items()), content)).encode())
    return digest.hexdigest()


def case_fingerprint(case: Case, fields: Iterable[str] | None = None) -> str:
    """Checksum of the content of a case's fields (all, or those named); a field that cannot be read counts as such."""
    return _digest(f"{name}={_print_of(case, name)}" for name in sorted(fields if fields is not None else case.fields))


def _print_of(case: Case, name: str) -> str:
    try:
        return case.fields[name].fingerprint()
    except StorageError:
        raise
    except (UserError, OSError):
        return "unreadable"


def _digest(parts: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
