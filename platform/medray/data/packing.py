"""Writing a packed source: shards one after the other, the index last, so that a stop leaves no wrong one.

A shard carries in its own footer which cases went into it. A second try takes over the shards whose cases are the same
(by fingerprint) and goes on behind them.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from medray.data import packed
from medray.data.case import BadCase, Case, Source
from medray.data.fields import FileRef, case_fingerprint, is_label_name
from medray.data.packed import INDEX, shard_name
from medray.data.places import StoredPath, listed, stored
from medray.data.shards import encode, schema
from medray.errors import UserError
from medray.storage import Folder, StorageError, is_url

Policy = Literal["fail", "quarantine"]
Compression = Literal["zstd", "none"]
_Rows = Iterator[tuple[Case, dict[str, Any] | UserError]]
_RECORD = b"medray"
_THREADS = 4


@dataclass
class _Shard:
    """What a shard says of itself.

    Attributes:
        cases: entries of the index, without the shard's number.
        bad: those set aside on the way.
        prints: a fingerprint for each case of the source that it covers, good or bad, in order.
    """

    settings: str
    cases: list[dict[str, Any]] = field(default_factory=list)
    bad: list[dict[str, str]] = field(default_factory=list)
    prints: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Packed:
    """What was done.

    Attributes:
        cases: how many the source has now.
        shards: its files.
        written: how many of them this call wrote; the others were there.
        size: of all shards, bytes.
        bad: cases set aside.
    """

    cases: int
    shards: int
    written: int
    size: int
    bad: tuple[BadCase, ...]


def pack(
    source: Source,
    out: str,
    *,
    shard_bytes: int = 128 << 20,
    compression: Compression = "zstd",
    policy: Policy = "fail",
    progress: Callable[[], object] = lambda: None,
) -> Packed:
    """Write a source as shards and an index.

    Args:
        source: any.
        out: an empty folder, a new one, or one in which an earlier try ended; local or an s3 url.
        shard_bytes: a shard ends with the case that reaches this much, before compression.
        compression: of the data.
        policy: ``fail`` stops at the first case that cannot be read; ``quarantine`` sets it aside.
        progress: called after each case.

    Raises:
        UserError: a bad case under ``fail``, no good case, or a folder that holds something else.
    """
    place = listed(stored(out) if is_url(out) else Path(out).expanduser().absolute())
    _check_free(place, source)
    names = sorted({name for case in source.cases for name in case.fields})
    settings = json.dumps([packed.VERSION, shard_bytes, compression, names, policy])
    shards: list[tuple[_Shard, int]] = []
    start = written = 0
    rows: _Rows | None = None
    while start < len(source.cases):
        there = _taken_over(place / shard_name(len(shards)), settings, source.cases[start:])
        if there is None:
            rows = rows or _rows(source.cases[start:])
            with _new_file(place, shard_name(len(shards))) as path:
                shard = _write(path, rows, names, settings, shard_bytes, compression, policy, progress)
                there = shard, path.stat().st_size
            written += 1
        else:
            rows = None
            for _ in there[0].prints:
                progress()
        shards.append(there)
        start += len(there[0].prints)
    index = _index(source, shards)
    if not index["cases"]:
        raise UserError(f"no case could be packed; the first is bad because {(index['bad'] or [{}])[0].get('reason')}")
    with _new_file(place, INDEX) as path:
        path.write_text(json.dumps(index, indent=1), encoding="utf-8")
    bad = tuple(BadCase(**one) for one in index["bad"])
    return Packed(len(index["cases"]), len(shards), written, sum(size for _, size in shards), bad)


def _check_free(place: Path | StoredPath, source: Source) -> None:
    """See that nothing but an earlier try of the same is in the way."""
    if place.is_file():
        raise UserError(f"{place} is a file; give a folder to pack into")
    if not place.is_dir():
        return
    others = [
        e.name
        for e in place.iterdir()
        if not (e.name == INDEX or e.name.startswith(("shard-", ".shard-", f".{INDEX}")))
    ]
    if others:
        raise UserError(f"{place} holds other files, such as {min(others)}; give a new or an empty folder to pack into")
    if (place / INDEX).is_file() and packed.load_index(place)["source"] != source.fingerprint:
        raise UserError(f"{place} holds other packed data already; give another folder, or remove it first")


def _taken_over(path: Path | StoredPath, settings: str, cases: Sequence[Case]) -> tuple[_Shard, int] | None:
    """A shard of an earlier try with its size, if it was written from these cases under these settings."""
    if not path.is_file():
        return None
    size = path.size if isinstance(path, StoredPath) else path.stat().st_size
    try:
        record = packed.read_footer(str(path), size).metadata[_RECORD]
        shard = _Shard(**json.loads(record))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    same = [_print_of(case) for case in cases[: len(shard.prints)]] == shard.prints
    return (shard, size) if same and shard.prints and shard.settings == settings else None


def _write(
    path: Path,
    rows: _Rows,
    names: Sequence[str],
    settings: str,
    shard_bytes: int,
    compression: Compression,
    policy: Policy,
    progress: Callable[[], object],
) -> _Shard:
    """Write cases until the shard is full."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    layout, shard, size = schema(names), _Shard(settings), 0
    options = {"compression": "zstd", "compression_level": 3} if compression == "zstd" else {"compression": "none"}
    with pq.ParquetWriter(
        path,
        layout,
        use_dictionary=False,  # no value occurs twice
        write_statistics=False,  # of images nobody asks for the smallest
        write_page_checksum=True,
        write_batch_size=1,  # a page per piece: pages of several would outgrow what Parquet allows
        **options,
    ) as writer:
        for case, row in rows:
            shard.prints.append(_print_of(case))
            progress()
            if isinstance(row, UserError):
                if policy == "fail":
                    raise UserError(f"case {case.id}: {row} (--bad-samples quarantine goes on without it)") from row
                file = next((ref.path for ref in case.fields.values() if isinstance(ref, FileRef)), "")
                shard.bad.append(asdict(BadCase(case.id, str(row), file)))
                continue
            writer.write_table(pa.Table.from_pylist([row], schema=layout))
            shard.cases.append({**_entry(case), "row": len(shard.cases)})
            size += sum(len(piece) for name in case.fields for piece in row[name]["data"])
            if size >= shard_bytes:
                break
        writer.add_key_value_metadata({_RECORD.decode(): json.dumps(asdict(shard))})
    return shard


def _rows(cases: Sequence[Case]) -> _Rows:
    """The rows of the cases in order, a few being read ahead."""
    ahead: deque[tuple[Case, Future[dict[str, Any] | UserError]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for case in cases:
            ahead.append((case, pool.submit(_row, case)))
            if len(ahead) > _THREADS:
                first, row = ahead.popleft()
                yield first, row.result()
        for first, row in ahead:
            yield first, row.result()


def _row(case: Case) -> dict[str, Any] | UserError:
    row: dict[str, Any] = {"case": case.id, "patient": case.patient, "attributes": list(case.attributes.items())}
    try:
        for name in case.fields:
            row[name] = encode(case.load(name), f"field {name}")
    except StorageError:
        raise  # the storage's fault, not the case's
    except UserError as error:
        return error
    return row


def _entry(case: Case) -> dict[str, Any]:
    fields = {
        name: {
            "kind": getattr(ref, "kind", "label" if is_label_name(name) else "image"),
            "fingerprint": ref.fingerprint(),
        }
        for name, ref in case.fields.items()
    }
    return {"case": case.id, "patient": case.patient, "attributes": dict(case.attributes), "fields": fields}


def _print_of(case: Case) -> str:
    told = repr((case.id, case.patient, sorted(case.attributes.items()), case_fingerprint(case)))
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def _index(source: Source, shards: Sequence[tuple[_Shard, int]]) -> dict[str, Any]:
    return {
        "format": packed.FORMAT,
        "version": packed.VERSION,
        "source": source.fingerprint,
        "shards": [{"name": shard_name(number), "size": size} for number, (_, size) in enumerate(shards)],
        "cases": [{**entry, "shard": number} for number, (shard, _) in enumerate(shards) for entry in shard.cases],
        "bad": [asdict(bad) for bad in source.bad] + [bad for shard, _ in shards for bad in shard.bad],
    }


@contextmanager
def _new_file(place: Path | StoredPath, name: str) -> Iterator[Path]:
    """A local file to write, that appears under its name in the folder when the block ends well."""
    if isinstance(place, StoredPath):
        with tempfile.TemporaryDirectory(prefix="medray-pack-") as folder:
            path = Path(folder) / name
            yield path
            Folder(str(place)).upload(path, name)
        return
    place.mkdir(parents=True, exist_ok=True)
    path = place / f".{name}.part"
    try:
        yield path
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.replace(place / name)
    finally:
        path.unlink(missing_ok=True)
