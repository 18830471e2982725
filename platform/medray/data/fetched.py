"""Files of object storage on this machine: fetched when first used, kept while there is room.

The cache is a folder (MEDRAY_CACHE, else medray in the user's cache folder) of at most MEDRAY_CACHE_GB gigabytes,
shared by all processes of the machine. A copy belongs to one version of one object (url, etag and size), so it is never
stale. Copies in use stay, even where that means to go over the bound for a while.

    KE/KEY-SIZE/      a whole copy: one file, or a folder of DICOM slices; its time is that of the last use
    .../KEY-SIZE.part one on its way; it counts, so that processes fetching at once keep to the bound together
    .../KEY.lock      held shared while a copy is read, exclusively while it is fetched or removed
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from medray.data.places import StoredPath, split_key, stored
from medray.errors import UserError
from medray.storage import Entry, Folder, StorageError

_COPY = re.compile(r"(?P<key>[0-9a-f]{32})-(?P<size>\d+)(?:\.part)?")
_DETACHED = re.compile(rb"^\s*(?:ElementDataFile\s*=|data file\s*:)\s*(\S.*?)\s*$", re.MULTILINE | re.IGNORECASE)
_HEADERS = (".mhd", ".nhdr")
_TRANSFERS_AT_ONCE = 8
_GIGABYTE = 10**9


@contextmanager
def fetched(url: str, version: str = "") -> Iterator[Path]:
    """A local copy of an object, or of a folder of them, that stays while the block runs.

    Args:
        url: of the object or folder, without ``#key``.
        version: the one that was found when the source was opened; "" for whatever is there now.

    Raises:
        UserError: missing, replaced since, larger than the whole cache, no space left, or storage that cannot be used.
    """
    place = stored(url)
    version = version or _version_now(place)
    key = _key(url, version)
    while True:
        copy = _existing(key)
        if copy is None:
            with _locked(key, fcntl.LOCK_EX):
                copy = _existing(key) or _fetch(place, version, key)
        with _locked(key, fcntl.LOCK_SH):
            if copy.is_dir():  # else another process made room in between
                os.utime(copy)
                yield copy / place.name
                return


def cache_folder() -> Path:
    """Where copies are kept; made if need be.

    Raises:
        UserError: it cannot be made.
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(os.environ.get("MEDRAY_CACHE") or f"{home}/medray").expanduser() / "objects"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the cache {folder} cannot be made ({error.strerror}); set MEDRAY_CACHE to a folder"
        ) from error
    return folder


def cache_bytes() -> int:
    """The bound of the cache.

    Raises:
        UserError: MEDRAY_CACHE_GB is not a positive number.
    """
    text = os.environ.get("MEDRAY_CACHE_GB") or "20"
    try:
        bound = float(text)
    except ValueError:
        bound = -1.0
    if not 0 < bound < float("inf"):
        raise StorageError(f"MEDRAY_CACHE_GB is a number of gigabytes above 0, got {text!r}")
    return int(bound * _GIGABYTE)


def _key(url: str, version: str) -> str:
    return hashlib.blake2b(f"{url}\n{version}".encode(), digest_size=16).hexdigest()


def _slot(key: str) -> Path:
    """Where copies with this beginning lie, so that looking for one does not go through all."""
    slot = cache_folder() / key[:2]
    slot.mkdir(exist_ok=True)
    return slot


def _existing(key: str) -> Path | None:
    return next((path for path in _slot(key).glob(f"{key}-*") if path.suffix != ".part"), None)


def _version_now(place: StoredPath) -> str:
    split_key(str(place), stored)
    return place.version()


def _fetch(place: StoredPath, version: str, key: str) -> Path:
    """Download into a folder under a temporary name; the caller holds the lock."""
    url = str(place)
    if _version_now(place) != version:
        raise UserError(f"{url} was replaced after the data source had been opened; start again to use the new one")
    entries = place.files()
    folder = Folder(url.rpartition("/")[0]) if place.is_file() else Folder(url)
    if place.suffix.lower() in _HEADERS:
        entries += _detached(place)
    size = sum(entry.size for entry in entries)
    bound = cache_bytes()
    if size > bound:
        raise StorageError(
            f"{url} ({size / _GIGABYTE:.2f} GB) is larger than the whole cache of {bound / _GIGABYTE:g} GB; raise "
            "MEDRAY_CACHE_GB"
        )
    copy = _slot(key) / f"{key}-{size}"
    part = copy.with_name(f"{copy.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    target = part if place.is_file() else part / place.name
    try:
        target.mkdir(parents=True)
        _make_room(bound, keep=key)
        with ThreadPoolExecutor(_TRANSFERS_AT_ONCE) as pool:
            list(pool.map(lambda entry: _download(folder, entry, target), entries))
        part.rename(copy)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"no space left in the cache {cache_folder()} to fetch {url}; free some, or set MEDRAY_CACHE to a "
                "folder on another disk"
            ) from error
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return copy


def _download(folder: Folder, entry: Entry, target: Path) -> None:
    try:
        etag = folder.download(entry.name, target / entry.name)
    except FileNotFoundError as error:
        if error.errno is None:  # storage's, not the disk's
            raise UserError(str(error)) from error
        raise
    if etag != entry.etag:
        raise UserError(f"{folder.url}/{entry.name} was replaced while it was read; start again to use the new one")


def _detached(place: StoredPath) -> list[Entry]:
    """The data file that a MetaImage or NRRD header names, if it is not in the header's own file."""
    name = next((match.decode() for match in _DETACHED.findall(place.read_bytes())), "LOCAL")
    data = place.parent / name
    if name.upper() in ("LOCAL", "LIST") or "/" in name:
        return []
    if not data.is_file():
        raise UserError(f"{data} does not exist; {place} names it as its data file")
    return data.files()


def _make_room(bound: int, *, keep: str) -> None:
    """Remove the copies that were used longest ago until all, those on their way too, keep to the bound."""
    copies = []
    for slot in os.scandir(cache_folder()):
        for item in os.scandir(slot):
            match = _COPY.fullmatch(item.name)
            if match:
                with suppress(FileNotFoundError):
                    # half a copy that nobody is fetching goes first
                    used = 0.0 if item.name.endswith(".part") else item.stat().st_mtime
                    copies.append((used, item.path, match["key"], int(match["size"])))
    total = sum(size for *_, size in copies)
    for _, path, key, size in sorted(copies):
        if total <= bound:
            return
        if key != keep and _remove(Path(path), key):
            total -= size


def _remove(copy: Path, key: str) -> bool:
    """Remove a copy unless a process uses or fetches it."""
    try:
        with _locked(key, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(copy, ignore_errors=True)
            (copy.parent / f"{key}.lock").unlink(missing_ok=True)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _locked(key: str, kind: int) -> Iterator[None]:
    """Hold the lock of a copy. A process or thread that ends in any way lets go of it."""
    path = _slot(key) / f"{key}.lock"
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, kind)
            if _is_at(handle, path):  # else it was removed while this waited for it
                yield
                return
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)  # a child that was forked meanwhile has the same lock
            os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
