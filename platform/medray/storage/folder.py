"""A folder in object storage."""

from __future__ import annotations

import builtins
import hashlib
import io
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from medray.errors import UserError
from medray.storage import client
from medray.storage.failures import Damaged, StorageError
from medray.storage.patience import patiently
from medray.storage.urls import checked_name, split_url

T = TypeVar("T")
_CHUNK = 1 << 20
_PART = 32 << 20
"""Bytes of one part of a big upload; S3 allows 10,000 parts, so objects up to 312 GiB."""
_DELETED_AT_ONCE = 1000
_DAMAGED_AT_MOST = 3


@dataclass(frozen=True)
class Entry:
    """One object.

    Attributes:
        name: relative to the folder it was listed in.
        size: bytes.
        etag: changes with the content; for an object written in one piece without a key of its own, its MD5.
        modified: when it was written.
    """

    name: str
    size: int
    etag: str
    modified: datetime


class Folder:
    """A prefix in a bucket. Picklable (url and patience only), safe to use from threads and after a fork.

    Every operation waits out what may pass (no connection, timeouts, a busy or broken service) and raises a
    `StorageError` at once for what the user has to mend (bucket, access, credentials, endpoint).

    Args:
        url: ``s3://bucket/prefix``.
        patience_s: how long an operation that makes no progress tries again before it raises `StorageUnreachable`.
        stop: set it from another thread to end waiting early; it does not travel with a pickle.

    Raises:
        UserError: not such a url.
    """

    def __init__(self, url: str, *, patience_s: float = 120.0, stop: threading.Event | None = None) -> None:
        self._bucket, self._prefix = split_url(url)
        self.url = f"s3://{self._bucket}/{self._prefix}".rstrip("/")
        self.patience_s = patience_s
        self._stop = stop

    def __repr__(self) -> str:
        return f"Folder({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Folder) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __reduce__(self) -> tuple[Callable[..., Folder], tuple[str, float]]:
        return _rebuilt, (self.url, self.patience_s)

    def folder(self, *names: str) -> Folder:
        """The folder of this name, or names one below the other; it need not exist."""
        return Folder("/".join((self.url, *names)), patience_s=self.patience_s, stop=self._stop)

    def list(self) -> builtins.list[Entry]:
        """All objects below, at any depth, sorted by name; none if there is no such folder."""
        entries = [
            Entry(item["Key"].removeprefix(self._below), int(item["Size"]), _etag(item), item["LastModified"])
            for page in self._patiently("list", "", lambda: [*self._pages()])
            for item in page.get("Contents", [])
            if not item["Key"].endswith("/")  # consoles leave such empty objects where someone "made a folder"
        ]
        return sorted(entries, key=lambda entry: entry.name)

    def names(self) -> builtins.list[str]:
        """What is directly inside, sorted: objects by name, folders with a slash at their end."""
        pages = self._patiently("list", "", lambda: [*self._pages(Delimiter="/")])
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        keys += [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", [])]
        return sorted({key.removeprefix(self._below) for key in keys} - {""})

    def exists(self, name: str = "") -> bool:
        """Whether there is an object of this name; for "" or a name with a slash at its end: anything below it."""
        return self._first(name) is not None

    def stat(self, name: str) -> Entry:
        """Size, etag and time of one object.

        Raises:
            FileNotFoundError: there is none.
        """
        found = self._first(name)
        if found is None:
            raise FileNotFoundError(f"{self._url(name)} does not exist")
        return Entry(name, int(found["Size"]), _etag(found), found["LastModified"])

    def read(self, name: str) -> bytes:
        """The content of an object.

        Raises:
            FileNotFoundError: there is none.
        """
        buffer = io.BytesIO()
        self._fetch(name, buffer)
        return buffer.getvalue()

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """``length`` bytes from ``start``.

        Raises:
            FileNotFoundError: there is no such object.
            UserError: it ends earlier.
        """
        if length == 0:
            return b""

        def get() -> bytes:
            answer = self._client().get_object(**self._object(name), Range=f"bytes={start}-{start + length - 1}")
            with closing(answer["Body"]) as body:  # as a context manager itself it would be raw, with no checks
                data: bytes = body.read()
            return data

        data = self._patiently("read", name, get)
        if len(data) != length:
            raise UserError(f"{self._url(name)} ends before byte {start + length}; it is truncated or was replaced")
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write a whole object; readers see the old one or the new one, never a part."""
        self._patiently("write", name, lambda: self._client().put_object(**self._object(name), Body=data))

    def create(self, name: str, data: bytes) -> bool:
        """Write a whole object under a name that is free. Of several who try at once, one succeeds.

        Returns:
            False if there is an object of that name with another content.
        """
        from botocore.exceptions import ClientError

        def put() -> bool:
            try:
                self._client().put_object(**self._object(name), Body=data, IfNoneMatch="*")
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("PreconditionFailed", "412"):
                    raise
                return False
            return True

        # The answer to an earlier try of ours may have been lost on the way.
        return self._patiently("write", name, put) or self.read(name) == data

    def upload(self, path: Path, name: str) -> None:
        """Write a file as an object, a big one in parts; readers see the old one or the new one, never a part."""
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(multipart_threshold=2 * _PART, multipart_chunksize=_PART, max_concurrency=4)

        def send() -> None:
            with path.open("rb") as file:
                self._client().upload_fileobj(file, **self._object(name), Config=config)

        self._patiently("write", name, send)

    def download(self, name: str, path: Path) -> str:
        """Write an object as a file, under its name only when it is whole.

        Returns:
            The etag of what was written.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: the file cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(handle, "w+b") as file:
                etag = self._fetch(name, file)
            os.chmod(temporary, 0o666 & ~_UMASK)
            os.replace(temporary, path)
            return etag
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def delete(self, name: str) -> None:
        """Remove an object; fine if there is none."""
        self._patiently("delete", name, lambda: self._client().delete_object(**self._object(name)))

    def delete_all(self) -> None:
        """Remove everything below."""
        pages = self._patiently("list", "", lambda: [*self._pages()])
        keys = [{"Key": item["Key"]} for page in pages for item in page.get("Contents", [])]
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            answer = self._patiently("delete", "", partial(self._delete, keys[start : start + _DELETED_AT_ONCE]))
            for error in answer.get("Errors", []):
                raise UserError(f"s3://{self._bucket}/{error['Key']} could not be deleted ({error.get('Code')})")

    def _delete(self, keys: builtins.list[dict[str, str]]) -> dict[str, Any]:
        answer: dict[str, Any] = self._client().delete_objects(
            Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True}
        )
        return answer

    @property
    def _below(self) -> str:
        return f"{self._prefix}/" if self._prefix else ""

    def _url(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _object(self, name: str) -> dict[str, str]:
        if not name:
            raise UserError(f"{self.url} is a folder where an object is expected")
        return {"Bucket": self._bucket, "Key": self._below + checked_name(name, self.url)}

    def _client(self) -> Any:
        return client.client(self.patience_s)

    def _patiently(self, verb: str, name: str, action: Callable[[], T]) -> T:
        try:
            return patiently(action, self._url(name), verb=verb, patience_s=self.patience_s, stop=self._stop)
        except StorageError:
            client.forget()  # the user may mend it in a file that this client has read already
            raise

    def _pages(self, **options: str) -> Iterator[dict[str, Any]]:
        pages = self._client().get_paginator("list_objects_v2")
        yield from pages.paginate(Bucket=self._bucket, Prefix=self._below, **options)

    def _first(self, name: str) -> dict[str, Any] | None:
        """The object of this name, or the first one in a folder: keys come in order, the name itself first."""
        key = self._below + checked_name(name, self.url)
        answer = self._patiently(
            "list", name, lambda: self._client().list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1)
        )
        found = next(iter(answer.get("Contents", [])), None)
        return found if found is not None and (found["Key"] == key or key.endswith("/") or not key) else None

    def _fetch(self, name: str, file: BinaryIO) -> str:
        """Write an object into a file; a transfer that breaks off goes on where it was."""
        for _ in range(_DAMAGED_AT_MOST):
            transfer = _Transfer(self._object(name), file)
            step = partial(transfer.go_on, self._client)
            while not self._patiently("read", name, step):
                pass
            if transfer.is_whole():
                return transfer.etag
        raise UserError(f"{self._url(name)} does not have the checksum that the storage gives for it; it is damaged")


def _rebuilt(url: str, patience_s: float) -> Folder:
    return Folder(url, patience_s=patience_s)


class _Transfer:
    """One object on its way into a file."""

    def __init__(self, target: dict[str, str], file: BinaryIO) -> None:
        self._target = target
        self._file = file
        self._restart()

    def _restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.md5(usedforsecurity=False)
        self._done = 0
        self.etag = ""
        self._damaged = False

    def go_on(self, s3: Callable[[], Any]) -> bool:
        """Take in what comes; true at the end, false if it broke off after some progress.

        Raises:
            Exception: what boto3 raises, if there was no progress.
        """
        from botocore.exceptions import FlexibleChecksumError

        before = self._done
        try:
            self._take(s3())
        except FlexibleChecksumError:  # a checksum that the object was stored with; known at the last byte only
            self._damaged = True
        except OSError as error:
            if error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
                raise  # the disk, not the network
            if self._done == before:
                raise
            return False
        except Exception:
            if self._done == before:
                raise
            return False
        return True

    def _take(self, s3: Any) -> None:
        from botocore.exceptions import ClientError

        part = {"Range": f"bytes={self._done}-", "IfMatch": self.etag} if self._done else {}
        try:
            answer = s3.get_object(**self._target, **part)
        except ClientError as error:
            if part and error.response["Error"]["Code"] in ("PreconditionFailed", "412", "InvalidRange", "416"):
                self._restart()
                raise Damaged("the object was replaced in the middle of the transfer") from error
            raise
        self.etag = _etag(answer)
        self._is_md5 = not answer.get("ServerSideEncryption", "").startswith("aws:kms") and not answer.get(
            "SSECustomerAlgorithm"
        )
        with closing(answer["Body"]) as body:
            while chunk := body.read(_CHUNK):
                self._file.write(chunk)
                self._digest.update(chunk)
                self._done += len(chunk)

    def is_whole(self) -> bool:
        """Whether the content has its stored checksum, and the MD5 that the etag gives, where it is one."""
        is_md5 = self._is_md5 and len(self.etag) == 32
        return not self._damaged and (not is_md5 or self.etag == self._digest.hexdigest())


def _etag(item: dict[str, Any]) -> str:
    return str(item["ETag"]).strip('"')


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


_UMASK = _umask()
