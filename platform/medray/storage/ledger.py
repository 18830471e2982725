"""Records that are never lost, changed or written twice: a folder of numbered JSON files, here or in object storage."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medray.errors import UserError
from medray.storage.folder import Folder
from medray.storage.urls import is_url

_SUFFIX = ".json"


class LedgerTaken(RuntimeError):
    """Another process has written the next record: this one no longer knows the state and must read it again."""


class Ledger:
    """An append-only list of records.

    A record is there once `append` has returned, through a power cut too, and only one process can write each number.

    Args:
        place: a folder, or an ``s3://`` url; made when first written to.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._folder = Folder(place) if is_url(place) else None
        self._records = self._read()

    @property
    def records(self) -> tuple[Mapping[str, Any], ...]:
        """All records, the first written first."""
        return tuple(self._records)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it lasts when this returns.

        Raises:
            LedgerTaken: another process has added one meanwhile.
            UserError: storage refuses it, or the disk is full.
        """
        name, data = f"{len(self._records):06d}{_SUFFIX}", json.dumps(record).encode()
        created = self._folder.create(name, data) if self._folder else _create(Path(self.place) / name, data)
        if not created:
            raise LedgerTaken(f"another process has written {name} in {self.place}")
        self._records.append(json.loads(data))

    def _read(self) -> list[Mapping[str, Any]]:
        if self._folder:
            names = [name for name in self._folder.names() if name.endswith(_SUFFIX)]
        else:
            names = sorted(path.name for path in Path(self.place).glob(f"[0-9]*{_SUFFIX}"))
        for number, name in enumerate(names):
            if name != f"{number:06d}{_SUFFIX}":
                raise UserError(
                    f"{self.place} has no record {number:06d}{_SUFFIX}; it was removed, or is not there yet"
                )
        return [self._load(name) for name in names]

    def _load(self, name: str) -> Mapping[str, Any]:
        data = self._folder.read(name) if self._folder else (Path(self.place) / name).read_bytes()
        try:
            record: Mapping[str, Any] = json.loads(data)
        except ValueError:
            raise UserError(f"{self.place}/{name} is damaged: it holds no JSON") from None
        return record


def _create(path: Path, data: bytes) -> bool:
    """Write a file under a name that is free, whole and on the disk; False if the name is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # containers on two nodes may share a pid
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _claim(partial, path)
    except FileExistsError:
        return False
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


def _claim(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)  # unlike a rename, fails where the name is taken
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):  # storage without links
            raise
        if path.exists():
            raise FileExistsError(path) from None
        os.rename(partial, path)
