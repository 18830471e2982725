"""A packed source: Parquet shards with an index, whose fields are read one by one with range requests.

    OUT/shard-00000.parquet ...   one case per row group; see `medray.data.shards`
    OUT/index.json                written last: which case is where, with the fingerprints of the original's fields

Loading a field takes one range request for its columns, after one or two for the shard's footer, which a process reads
once. Nothing is copied to this machine's disk. `medray.data.packing` writes such a source.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from medray.data.case import BadCase, Case
from medray.data.places import Place, StoredPath
from medray.data.shards import decode
from medray.errors import UserError
from medray.storage import Folder, is_url

INDEX = "index.json"
FORMAT = "medray packed cases"
VERSION = 1
_FOOTER_GUESS = 256 << 10
_REMEDY = "pack the source again"


@dataclass(frozen=True)
class PackedRef:
    """A field of a packed case.

    Attributes:
        path: of the shard, local or an s3 url.
        size: bytes of the shard.
        row: its row group.
        case: whose it is.
        field: its column.
        kind: how the original was read; see `fields.Kind`.
        original: the fingerprint of the file it was packed from.
    """

    path: str
    size: int
    row: int
    case: str
    field: str
    kind: str
    original: str

    def load(self) -> Any:
        """Read it, and nothing else of the shard.

        Raises:
            UserError: the shard is missing, damaged or was replaced.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        source = f"{self.path}, case {self.case}, {self.field}"
        read = _reader(self.path)
        try:
            footer = _footer(self.path, self.size)
            start, length = _extent(footer.row_group(self.row), self.field)
            window = _Window(read(start, length), start, self.size)
            file = pq.ParquetFile(window, metadata=footer, page_checksum_verification=True, pre_buffer=False)
            column = file.read_row_group(self.row, columns=[self.field], use_threads=False).column(self.field)
            return decode(_parts(column.chunk(0)), source)
        except FileNotFoundError as error:
            raise UserError(f"{self.path} does not exist; {_REMEDY}") from error
        except (OSError, pa.ArrowException, ValueError, KeyError, IndexError) as error:
            raise UserError(f"{source} is damaged: {' '.join(str(error).split())}; {_REMEDY}") from error

    def fingerprint(self) -> str:
        """That of the original, so that packing a source does not change its fingerprint."""
        return self.original


def is_packed(folder: Path | StoredPath) -> bool:
    """Whether a folder holds the index of a packed source."""
    index = folder / INDEX
    return index.is_file() and (folder / shard_name(0)).is_file()


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"shard-{number:05d}.parquet"


def load_index(folder: Path | StoredPath) -> dict[str, Any]:
    """The content of the index.

    Raises:
        UserError: it is not one, or of a later version.
    """
    path = folder / INDEX
    try:
        index: dict[str, Any] = json.loads(path.read_bytes())
        known = index["format"] == FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not the index of packed cases; {_REMEDY}") from error
    if not known or index["version"] > VERSION:
        raise UserError(f"{path} is of a kind or version this release does not know; expected {FORMAT} {VERSION}")
    return index


def read_index(folder: Path | StoredPath) -> tuple[list[Case], list[BadCase]]:
    """The cases of a packed source, in the original's order.

    Raises:
        UserError: the index is faulty, or a shard is missing or of another size than it says.
    """
    index = load_index(folder)
    shards = index["shards"]
    for shard in shards:
        path = folder / shard["name"]
        if not path.is_file():
            raise UserError(f"{path} does not exist; {folder / INDEX} names it, so {_REMEDY}")
        found = path.size if isinstance(path, StoredPath) else path.stat().st_size
        if found != shard["size"]:
            raise UserError(f"{path} has {found} bytes where {shard['size']} are expected; {_REMEDY}")
    cases = [_case(folder, entry, shards[entry["shard"]]) for entry in index["cases"]]
    return cases, [BadCase(**bad) for bad in index["bad"]]


def _case(folder: Place, entry: Mapping[str, Any], shard: Mapping[str, Any]) -> Case:
    path = str(folder / shard["name"])
    refs = {
        name: PackedRef(path, shard["size"], entry["row"], entry["case"], name, about["kind"], about["fingerprint"])
        for name, about in entry["fields"].items()
    }
    return Case(entry["case"], entry["patient"], refs, entry["attributes"])


def read_footer(path: str, size: int) -> Any:
    """The Parquet metadata of a shard, from its last bytes.

    Raises:
        ValueError: it is no Parquet file.
        OSError: it cannot be read.
    """
    import pyarrow.parquet as pq

    read = _reader(path)
    tail = read(max(0, size - _FOOTER_GUESS), min(size, _FOOTER_GUESS))
    if tail[-4:] != b"PAR1":
        raise ValueError("it does not end as a Parquet file does")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > len(tail):
        tail = read(size - length, length)
    return pq.read_metadata(_Window(tail, size - len(tail), size))


@lru_cache(maxsize=4096)
def _footer(path: str, size: int) -> Any:
    return read_footer(path, size)


def _reader(path: str) -> Callable[[int, int], bytes]:
    """A function that reads a range of the shard: start, length."""
    if is_url(path):
        folder, _, name = path.rpartition("/")
        return lambda start, length: Folder(folder).read_range(name, start, length)

    def read(start: int, length: int) -> bytes:
        with open(path, "rb") as file:
            data = os.pread(file.fileno(), length, start)
        if len(data) != length:
            raise ValueError(f"it ends before byte {start + length}")
        return data

    return read


def _extent(group: Any, field: str) -> tuple[int, int]:
    """Where the columns of a field lie, which are neighbors: start and length in bytes."""
    chunks = [group.column(i) for i in range(group.num_columns)]
    mine = [chunk for chunk in chunks if chunk.path_in_schema.startswith(f"{field}.")]
    starts = [min(c.data_page_offset, c.dictionary_page_offset or c.data_page_offset) for c in mine]
    start = min(starts)
    return start, max(s + c.total_compressed_size for s, c in zip(starts, mine, strict=True)) - start


def _parts(chunk: Any) -> dict[str, Any]:
    """The one value of a struct column, its pieces of data as buffers that are not copied."""
    parts = {name: chunk.field(name)[0].as_py() for name in ("kind", "dtype", "shape", "affine", "header")}
    return {**parts, "data": [piece.as_buffer() for piece in chunk.field("data")[0].values]}


class _Window(io.RawIOBase):
    """A file of which only one stretch is at hand, which is all that is going to be read."""

    def __init__(self, data: bytes, start: int, size: int) -> None:
        self._data, self._start, self._size, self._at = data, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        if self._at < self._start or end > self._start + len(self._data):
            raise ValueError(f"bytes {self._at} to {end} lie outside of what was fetched")
        data = self._data[self._at - self._start : end - self._start]
        self._at = end
        return data
