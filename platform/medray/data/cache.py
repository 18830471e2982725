"""Samples that were decoded and brought onto their grid once are kept: in memory, and on request on disk.

What is kept is what comes before augmentation: a function of a case's content and of a transform, and keyed by both,
so it is never stale and runs share it. Both stores are bounded, and what was used longest ago goes first.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import sys
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
log = logging.getLogger(__name__)

_GIGABYTE = 10**9
_LOOK_EVERY = 16
"""Files written between two looks at how much the folder holds; other processes write too."""


class SampleCache:
    """Arrays by key. Picklable and safe to use from several processes: the folder is shared, the memory is each one's.

    Args:
        memory_gb: bound of what one process keeps in memory; 0 keeps nothing.
        disk_gb: bound of what the folder may hold; 0 leaves the disk alone.
        folder: where; MEDRAY_CACHE or the user's cache folder if left out.

    Attributes:
        hits: how often something was found, in this process.
        misses: how often it had to be made.
    """

    def __init__(self, *, memory_gb: float = 0.0, disk_gb: float = 0.0, folder: Path | None = None) -> None:
        self._memory_bound = int(memory_gb * _GIGABYTE)
        self._disk_bound = int(disk_gb * _GIGABYTE)
        self._folder = (folder or _default_folder()) if disk_gb else None
        self._forget()

    def _forget(self) -> None:
        self._memory: OrderedDict[str, Arrays] = OrderedDict()
        self._used = 0
        self._written = 0
        self.hits = self.misses = 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("_memory_bound", "_disk_bound", "_folder")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def get(self, key: object, make: Callable[[], Arrays]) -> Arrays:
        """What was kept under ``key``, else what ``make`` returns.

        Args:
            key: content and transform, as anything whose ``repr`` tells them apart: `case_fingerprint` of the fields
                and the settings that decide what is made of them.
            make: decodes and transforms; deterministic.

        Returns:
            Arrays by name. They are shared with later calls: copy before changing one.
        """
        name = hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()
        found = self._memory.get(name)
        if found is not None:
            self._memory.move_to_end(name)
            self.hits += 1
            return found
        found = self._read(name)
        if found is not None:
            self.hits += 1
        else:
            self.misses += 1
            found = dict(make())
            self._write(name, found)
        self._remember(name, found)
        return found

    def _remember(self, name: str, arrays: Arrays) -> None:
        size = _bytes(arrays)
        if size > self._memory_bound:
            return
        self._memory[name] = arrays
        self._used += size
        while self._used > self._memory_bound:
            _, oldest = self._memory.popitem(last=False)
            self._used -= _bytes(oldest)

    def _path(self, name: str) -> Path | None:
        return self._folder / name[:2] / f"{name}.npz" if self._folder else None

    def _read(self, name: str) -> Arrays | None:
        path = self._path(name)
        if path is None:
            return None
        try:
            with np.load(path, allow_pickle=False) as file:  # each array has a checksum in the archive
                arrays = {key: file[key] for key in file.files}
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError):
            path.unlink(missing_ok=True)  # damaged: made anew
            return None
        return arrays

    def _write(self, name: str, arrays: Arrays) -> None:
        path = self._path(name)
        if path is None or _bytes(arrays) > self._disk_bound:
            return
        temporary = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
            with os.fdopen(handle, "wb") as file:
                np.savez(file, allow_pickle=False, **arrays)  # type: ignore[arg-type]
            os.replace(temporary, path)
            if self._written % _LOOK_EVERY == 0:
                self._make_room()
            self._written += 1
        except OSError as error:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise
            log.warning("the sample cache %s takes no more (%s); going on without it", self._folder, error.strerror)
            self._folder = None

    def _make_room(self) -> None:
        assert self._folder is not None
        files = []
        for path in self._folder.glob("??/*"):
            with suppress(FileNotFoundError):  # another process was faster
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._disk_bound:
                return
            path.unlink(missing_ok=True)
            total -= size


def _bytes(arrays: Arrays) -> int:
    return sum(array.nbytes + sys.getsizeof(name) for name, array in arrays.items())


def _default_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("MEDRAY_CACHE") or f"{home}/medray").expanduser() / "samples"
