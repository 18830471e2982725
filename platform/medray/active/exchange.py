"""The folder through which a campaign and its annotators hand files to each other: on a disk, or in object storage."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medray.data.writers import write_bytes
from medray.errors import UserError
from medray.storage import Folder, is_url


@dataclass(frozen=True)
class Item:
    """A file as a listing sees it.

    Attributes:
        name: relative to the exchange, with slashes.
        size: bytes.
        marker: changes when the content does.
        is_settled: false while it may still be being written.
    """

    name: str
    size: int
    marker: str
    is_settled: bool = True


class Exchange(ABC):
    """Reads and writes by name. Nothing is remembered between calls: others write here too.

    Attributes:
        place: absolute path or url.
    """

    place: str

    def url(self, name: str) -> str:
        """Path or url of one file."""
        return f"{self.place}/{name}"

    @abstractmethod
    def list(self) -> list[Item]:
        """All files below, sorted by name; none where there is no such folder yet."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: it is gone.
            UserError: it cannot be read.
        """

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all; once this returns it outlives a crash.

        Raises:
            UserError: it cannot be written.
        """


def open_exchange(place: str, *, settle_s: float = 0.0) -> Exchange:
    """The exchange at a path, which need not exist, or at an s3 url.

    Args:
        place: path or url.
        settle_s: for how long a file on a disk must not have changed to be settled. Objects in storage appear whole.

    Raises:
        UserError: a file is there, or it is a url of another kind.
    """
    if is_url(place):
        return StoredExchange(place)
    if "://" in place:
        raise UserError(f"{place}: annotations are exchanged through a local folder or an s3:// url")
    return LocalExchange(place, settle_s)


class LocalExchange(Exchange):
    """A folder on a disk, maybe a network share.

    Args:
        place: path; made when something is written.
        settle_s: see `open_exchange`.

    Raises:
        UserError: there is a file of this name.
    """

    def __init__(self, place: str, settle_s: float) -> None:
        self._settle_s = settle_s
        self._root = Path(place).expanduser().absolute()
        self.place = str(self._root)
        if self._root.is_file():
            raise UserError(f"{place} is a file where a folder for annotations is expected")

    def list(self) -> list[Item]:
        """See `Exchange.list`."""
        found = [
            item for folder, _, names in os.walk(self._root) for name in names if (item := self._item(folder, name))
        ]
        return sorted(found, key=lambda item: item.name)

    def _item(self, folder: str, name: str) -> Item | None:
        path = Path(folder, name)
        try:
            status = path.stat()
        except OSError:  # removed since the folder was listed, or a link to nowhere
            return None
        marker = f"{status.st_mtime_ns}:{status.st_ino}:{status.st_size}"
        # either way, since a file server's clock may be ahead
        is_settled = abs(time.time() - status.st_mtime) >= self._settle_s
        return Item(path.relative_to(self._root).as_posix(), status.st_size, marker, is_settled)

    def read(self, name: str) -> bytes:
        """See `Exchange.read`."""
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UserError(f"{name} cannot be read: {error.strerror or error}") from error

    def write(self, name: str, data: bytes) -> None:
        """See `Exchange.write`."""
        path = write_bytes(self._root / name, data)
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            with suppress(OSError):  # some network shares sync files only
                os.fsync(descriptor)  # the name too, not the content alone
        finally:
            os.close(descriptor)


class StoredExchange(Exchange):
    """A folder in object storage.

    Args:
        place: s3 url.

    Raises:
        UserError: not such a url.
    """

    def __init__(self, place: str) -> None:
        self._folder = Folder(place)
        self.place = self._folder.url

    def list(self) -> list[Item]:
        """See `Exchange.list`."""
        return [Item(entry.name, entry.size, f"{entry.etag}:{entry.size}") for entry in self._folder.list()]

    def read(self, name: str) -> bytes:
        """See `Exchange.read`."""
        return self._folder.read(name)

    def write(self, name: str, data: bytes) -> None:
        """See `Exchange.write`."""
        self._folder.write(name, data)
