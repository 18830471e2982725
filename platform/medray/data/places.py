"""A local path or a path in object storage: what finding cases asks of either.

`pathlib.Path` is a `Place` as it is. `StoredPath` answers the same questions from one listing of the folder, so that
the layouts of `medray.data.folders` and the manifests are found by the same code wherever they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Protocol, Self, TypeVar

from medray.errors import UserError
from medray.storage import Entry, Folder, is_url

_REQUESTS_AT_ONCE = 16


class Place(Protocol):
    """The part of `pathlib.Path` that finding cases needs."""

    @property
    def name(self) -> str:
        """The last part."""

    @property
    def suffix(self) -> str:
        """As of a path."""

    @property
    def parent(self) -> Self:
        """The folder it is in."""

    def __truediv__(self, name: str, /) -> Self: ...

    def __lt__(self, other: Self, /) -> bool: ...

    def __hash__(self) -> int: ...

    def exists(self) -> bool:
        """Whether there is a file or a folder."""

    def is_dir(self) -> bool:
        """Whether it is a folder."""

    def is_file(self) -> bool:
        """Whether it is a file."""

    def iterdir(self) -> Iterator[Self]:
        """What is in the folder."""

    def read_bytes(self) -> bytes:
        """The content of the file."""


P = TypeVar("P", bound=Place)


class StoredPath:
    """A path in object storage, answered from a listing that is shared by all paths below one folder."""

    def __init__(self, listing: Snapshot | OnDemand, name: str = "") -> None:
        self._listing = listing
        self._name = name

    def __str__(self) -> str:
        root = self._listing.folder.url
        return f"{root}/{self._name}" if self._name else root

    def __repr__(self) -> str:
        return f"StoredPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredPath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: StoredPath) -> bool:
        return str(self).split("/") < str(other).split("/")  # part by part, as paths compare

    def __truediv__(self, name: str) -> StoredPath:
        parts = [part for part in f"{self._name}/{name}".split("/") if part not in ("", ".")]
        while ".." in parts[1:]:
            at = parts.index("..", 1)
            del parts[at - 1 : at + 1]
        return StoredPath(self._listing, "/".join(parts))

    @property
    def name(self) -> str:
        """The last part."""
        return str(self).rsplit("/", 1)[-1]

    @property
    def suffix(self) -> str:
        """As of a path."""
        return Path(self.name).suffix

    @property
    def parent(self) -> StoredPath:
        """The folder it is in."""
        if self._name:
            return StoredPath(self._listing, self._name.rpartition("/")[0])
        return stored(str(self).rpartition("/")[0])

    def exists(self) -> bool:
        """Whether there is an object of this name or below it."""
        return self.is_file() or self.is_dir()

    def is_dir(self) -> bool:
        """Whether there are objects below it."""
        return self._listing.is_folder(self._name)

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        return self._listing.entry(self._name) is not None

    def iterdir(self) -> Iterator[StoredPath]:
        """What is directly below it."""
        return (self / name for name in self._listing.children(self._name))

    def read_bytes(self) -> bytes:
        """The whole object.

        Raises:
            UserError: it is missing or cannot be read.
        """
        try:
            return self._listing.folder.read(self._name)
        except FileNotFoundError as error:
            raise UserError(str(error)) from error

    def head(self, length: int) -> bytes:
        """The first bytes, at most ``length``."""
        size = self.size
        return self._listing.folder.read_range(self._name, 0, min(length, size))

    @property
    def size(self) -> int:
        """Bytes of the object, 0 if there is none."""
        entry = self._listing.entry(self._name)
        return entry.size if entry is not None else 0

    def files(self) -> list[Entry]:
        """The object itself; or, of a folder, the objects directly in it, by their names there."""
        entry = self._listing.entry(self._name)
        if entry is not None:
            return [Entry(self.name, entry.size, entry.etag, entry.modified)]
        return [file for path in sorted(self.iterdir()) if path.is_file() for file in path.files()]

    def version(self) -> str:
        """Changes with the content of the object, or of the objects directly in the folder; nothing is downloaded."""
        files = self.files()
        prints = [f"{file.size}:{file.etag}" for file in files]
        if self.is_file():
            return prints[0]
        return hashlib.blake2b(
            "\n".join(f"{file.name}={text}" for file, text in zip(files, prints, strict=True)).encode(), digest_size=16
        ).hexdigest()


class Snapshot:
    """All of a folder, listed once: a request for every thousand objects."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._files = {entry.name: entry for entry in folder.list()}
        self._children: dict[str, set[str]] = {}
        for name in self._files:
            while name:
                above, _, last = name.rpartition("/")
                self._children.setdefault(above, set()).add(last)
                name = above

    def entry(self, name: str) -> Entry | None:
        """The object of this name."""
        return self._files.get(name)

    def is_folder(self, name: str) -> bool:
        """Whether anything is below."""
        return name in self._children

    def children(self, name: str) -> list[str]:
        """Names directly below."""
        return sorted(self._children.get(name, ()))


class OnDemand:
    """Asks for each name once; for single files out of a folder that may hold much else."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._entries: dict[str, Entry | None] = {}
        self._folders: dict[str, bool] = {}

    def entry(self, name: str) -> Entry | None:
        """The object of this name."""
        if name not in self._entries:
            try:
                self._entries[name] = self.folder.stat(name) if name else None
            except FileNotFoundError:
                self._entries[name] = None
        return self._entries[name]

    def is_folder(self, name: str) -> bool:
        """Whether anything is below."""
        if name not in self._folders:
            self._folders[name] = self.folder.exists(f"{name}/" if name else "")
        return self._folders[name]

    def children(self, name: str) -> list[str]:
        """Names directly below."""
        below = self.folder.folder(name) if name else self.folder
        return [child.removesuffix("/") for child in below.names()]


class Places:
    """Turns text into places; those of one bucket share what they have asked."""

    def __init__(self) -> None:
        self._buckets: dict[str, OnDemand] = {}

    def __call__(self, text: str) -> Path | StoredPath:
        """A path for a local name, a `StoredPath` for an s3 url.

        Raises:
            UserError: the url names no bucket.
        """
        return self.stored(text) if is_url(text) else Path(text)

    def stored(self, url: str) -> StoredPath:
        """The place of an s3 url.

        Raises:
            UserError: the url names no bucket.
        """
        bucket, _, name = url.removeprefix("s3://").partition("/")
        if bucket not in self._buckets:
            self._buckets[bucket] = OnDemand(Folder(f"s3://{bucket}"))
        return StoredPath(self._buckets[bucket]) / name


def stored(url: str) -> StoredPath:
    """The place of an s3 url.

    Raises:
        UserError: the url names no bucket.
    """
    return Places().stored(url)


def listed(folder: Path | StoredPath) -> Path | StoredPath:
    """The same folder, listed at once if it is in object storage, for looking all through it."""
    return folder if isinstance(folder, Path) else StoredPath(Snapshot(Folder(str(folder))))


def ask_ahead(places: Iterable[Path | StoredPath]) -> None:
    """See which of these exist, many at a time; later questions about them are answered from memory."""
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        list(pool.map(lambda one: one.exists(), {one for one in places if isinstance(one, StoredPath)}))


def split_key(text: str, make: Callable[[str], P]) -> tuple[P, str]:
    """Split ``file#key`` unless there is a file of the whole name, and see that it is there and not empty.

    Args:
        text: a path, maybe with a key.
        make: turns text into a path.

    Raises:
        UserError: it is missing or empty, or a url of another kind than s3.
    """
    if "://" in text and not is_url(text):
        raise UserError(f"{text}: files are read from local folders and from s3:// only; copy it first")
    file, key = make(text), ""
    if not file.exists() and "#" in text:
        head, key = text.rsplit("#", 1)
        file = make(head)
    if not file.exists():
        raise UserError(f"{file} does not exist")
    try:
        if file.is_file() and size_of(file) == 0:
            raise UserError(f"{file} is empty (0 bytes)")
    except OSError as error:
        raise UserError(f"{file} cannot be opened: {error.strerror or error}") from error
    return file, key


def size_of(file: Place) -> int:
    """Bytes of a file."""
    return file.stat().st_size if isinstance(file, Path) else file.size if isinstance(file, StoredPath) else 0


@lru_cache(maxsize=100_000)
def version_of(url: str) -> str:
    """The version of an object or folder that was not found by listing; asked once per process.

    Raises:
        UserError: it is missing or empty.
    """
    file, key = split_key(url, stored)
    return f"{file.version()}{'#' if key else ''}{key}"
