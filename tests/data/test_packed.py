"""Packed cases come back exactly, field by field, without a copy on this machine, and packing survives kills."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal
from object_store import Network, environment

from medray.cli import main
from medray.data import packed, packing, shards
from medray.data.case import Case, Source, Volume
from medray.data.check import check_cases
from medray.data.fields import source_fingerprint
from medray.data.sources import open_source
from medray.errors import UserError
from medray.storage import Folder, StorageError

Save = Callable[..., Path]
IMAGE = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 1000


@dataclass(frozen=True)
class Constant:
    """A field that is given."""

    value: Any
    fail: str = ""

    def load(self) -> Any:
        if self.fail:
            raise UserError(self.fail)
        return self.value

    def fingerprint(self) -> str:
        return f"{self.value!r}{self.fail}"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with environment(MEDRAY_CACHE=str(folder)):
        yield folder


@pytest.fixture
def scans(tmp_path: Path, save_nifti: Save, crooked: Any) -> Path:
    """Six cases with attributes, 2D and 3D, labels, a table and an array."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "scans"
    for number in range(6):
        image = rng.integers(-1000, 3000, (40, 30, 20 if number % 2 else 1)).astype(np.int16)
        save_nifti(folder / f"img{number}.nii.gz", image, crooked)
        save_nifti(folder / f"lab{number}.nii.gz", (image > 0).astype(np.uint8), crooked)
    np.save(folder / "k.npy", rng.standard_normal((3, 4, 5, 6)).astype(np.complex64))
    (folder / "points.csv").write_text("x,name\n1.5,a\n0.1,b\n")
    (folder / "line.json").write_text('{"points": [[0.1, 2]], "none": null}')
    rows = ["case,patient,image,label,kspace,points,line,modality,grade"]
    for n in range(6):
        extra = "k.npy,points.csv,line.json,mr,3" if n == 2 else ",,,ct,"
        rows.append(f"case{n},p{n // 2},img{n}.nii.gz,lab{n}.nii.gz,{extra}")
    (folder / "index.csv").write_text("\n".join(rows))
    return folder / "index.csv"


def same(first: Any, second: Any) -> None:
    """The same type and values, whatever a field is."""
    assert type(first) is type(second)
    if isinstance(first, Volume):
        same(first.array, second.array)
        same(first.affine, second.affine)
        assert dict(first.header) == dict(second.header)
    elif isinstance(first, np.ndarray):
        assert first.dtype == second.dtype
        assert_array_equal(first, second)
        assert second.flags.writeable
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for name in first:
            same(first[name], second[name])
    else:
        assert first == second


def same_source(first: Source, second: Source) -> None:
    """Equal cases with equal content; where they lie may differ."""
    assert [(c.id, c.patient, dict(c.attributes), list(c.fields)) for c in first.cases] == [
        (c.id, c.patient, dict(c.attributes), list(c.fields)) for c in second.cases
    ]
    for one, two in zip(first.cases, second.cases, strict=True):
        for name in one.fields:
            same(one.load(name), two.load(name))


@pytest.mark.parametrize("compression", ["zstd", "none"])
@pytest.mark.parametrize("where", ["local", "stored"])
def test_a_packed_source_is_the_source(
    scans: Path, tmp_path: Path, bucket: str, cache: Path, where: str, compression: Any
) -> None:
    source = open_source(str(scans))
    out = f"{bucket}/packed" if where == "stored" else str(tmp_path / "packed")
    done = packing.pack(source, out, shard_bytes=100_000, compression=compression)
    assert (done.cases, done.written, done.bad) == (6, done.shards, ())
    assert done.shards > 1
    again = open_source(out)
    same_source(source, again)
    assert again.fingerprint == source.fingerprint
    assert again.bad == source.bad
    assert list(cache.rglob("*")) == []  # streamed: nothing was copied here
    assert again.cases[2].volume("image").source.startswith(f"{out}/shard-0000")
    same_source(again, pickle.loads(pickle.dumps(again)))
    check_cases(again.cases, required=("image", "label"))


def test_every_case_is_a_row_group_of_its_own(scans: Path, tmp_path: Path) -> None:
    done = packing.pack(open_source(str(scans)), str(tmp_path / "p"), shard_bytes=100_000)
    rows = []
    for number in range(done.shards):
        file = pyarrow.parquet.ParquetFile(tmp_path / "p" / packed.shard_name(number))
        assert file.num_row_groups == file.metadata.num_rows
        rows += file.read(columns=["case"]).column("case").to_pylist()
    assert rows == [f"case{n}" for n in range(6)]
    table = pyarrow.parquet.read_table(tmp_path / "p" / packed.shard_name(0))  # any Parquet tool can read it
    assert dict(table.column("attributes")[0].as_py()) == {"modality": "ct"}


VALUES = st.one_of(
    hnp.arrays(
        st.one_of(
            hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes(), hnp.complex_number_dtypes(),
            hnp.boolean_dtypes(),
        ),
        hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.dictionaries(
        st.text(),
        hnp.arrays(np.float64, 3) | hnp.arrays("U5", 2, elements=st.text("äbc", min_size=1, max_size=5)),
        min_size=1,
    ),
)  # fmt: skip


@given(VALUES)
def test_any_value_comes_back(value: Any) -> None:
    stored = shards.encode(value, "it")
    again = shards.decode({**stored, "data": [bytes(piece) for piece in stored["data"]]}, "here")
    if isinstance(value, np.ndarray) and value.dtype.kind in "fc":
        assert again.tobytes() == np.ascontiguousarray(value).tobytes()  # also the bits of NaN
        assert (again.dtype, again.shape) == (value.dtype, value.shape)
    else:
        same(value, again)


@given(hnp.arrays(np.int16, hnp.array_shapes(min_dims=3, max_dims=4, max_side=9)), st.integers(1, 64))
def test_volumes_in_pieces_come_back(array: Any, piece: int) -> None:
    volume = Volume(np.asfortranarray(array), np.random.default_rng(0).random((4, 4)), header={"dims": np.int64(2)})
    before, shards._PIECE = shards._PIECE, piece
    try:
        stored = shards.encode(volume, "it")
    finally:
        shards._PIECE = before
    assert max(len(part) for part in stored["data"]) <= piece
    again = shards.decode(stored, "here")
    same(again.array, np.ascontiguousarray(array))
    same(again.affine, volume.affine)
    assert again.header == {"dims": 2}


def test_what_cannot_be_packed_is_named(tmp_path: Path) -> None:
    for value in ({1, 2}, np.array([object()]), object()):
        source = _source([Case("a", "p", {"thing": Constant(value)})])
        with pytest.raises(UserError, match=r"case a: field thing .*cannot be packed"):
            packing.pack(source, str(tmp_path / "p"))
    with pytest.raises(UserError, match="the field 'attributes' cannot be packed"):
        packing.pack(_source([Case("a", "p", {"attributes": Constant([1])})]), str(tmp_path / "p"))


def _source(cases: list[Case]) -> Source:
    return Source("toy", tuple(cases), source_fingerprint(cases))


def test_bad_cases_fail_or_are_left_out(tmp_path: Path) -> None:
    cases = [Case(f"c{n}", "p", {"x": Constant([n], "it is broken" if n in (1, 4) else "")}) for n in range(6)]
    out = str(tmp_path / "p")
    with pytest.raises(UserError, match=r"^case c1: it is broken \(--bad-samples quarantine goes on without it\)$"):
        packing.pack(_source(cases), out)
    assert not (tmp_path / "p" / packed.INDEX).exists()
    done = packing.pack(_source(cases), out, policy="quarantine", shard_bytes=8)
    assert [bad.case for bad in done.bad] == ["c1", "c4"]
    again = open_source(out)
    assert [(case.id, case.load("x")) for case in again.cases] == [(f"c{n}", [n]) for n in (0, 2, 3, 5)]
    assert [(bad.case, bad.reason) for bad in again.bad] == [("c1", "it is broken"), ("c4", "it is broken")]
    with pytest.raises(UserError, match="no case could be packed; the first is bad because it is broken"):
        packing.pack(_source([cases[1]]), str(tmp_path / "q"), policy="quarantine")


def test_packing_goes_on_where_it_was_killed(scans: Path, tmp_path: Path) -> None:
    """A process that is killed when it has loaded the fifth case; the shards that were whole are not written again."""
    out = tmp_path / "p"
    code = (
        "import os, signal, sys\n"
        "from medray.data import packing, sources\n"
        "seen = []\n"
        "def progress():\n"
        "    seen.append(1)\n"
        "    if len(seen) == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "packing.pack(sources.open_source(sys.argv[1]), sys.argv[2], shard_bytes=100_000, progress=progress)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(scans), str(out)], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert not (out / packed.INDEX).exists()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*.parquet")}
    assert len(before) >= 1
    source = open_source(str(scans))
    done = packing.pack(source, str(out), shard_bytes=100_000)
    assert done.written == done.shards - len(before)
    assert all((out / name).stat().st_mtime_ns == time for name, time in before.items())
    same_source(source, open_source(str(out)))
    assert {path.name for path in out.iterdir()} == {packed.INDEX, *map(packed.shard_name, range(done.shards))}
    assert packing.pack(source, str(out), shard_bytes=100_000).written == 0
    straight = packing.pack(source, str(tmp_path / "q"), shard_bytes=100_000)
    for number in range(straight.shards):  # the same bytes as without the kill
        name = packed.shard_name(number)
        assert (out / name).read_bytes() == (tmp_path / "q" / name).read_bytes()


def test_a_damaged_or_foreign_shard_is_written_again(scans: Path, bucket: str) -> None:
    source, out = open_source(str(scans)), f"{bucket}/p"
    done = packing.pack(source, out, shard_bytes=100_000)
    Folder(out).delete(packed.INDEX)
    Folder(out).write(packed.shard_name(1), b"half")
    assert packing.pack(source, out, shard_bytes=100_000).written == 1
    Folder(out).delete(packed.INDEX)
    assert packing.pack(source, out, shard_bytes=150_000).written >= 1  # other settings, other shards
    same_source(source, open_source(out))
    assert done.shards > 1


def test_nothing_foreign_is_overwritten(scans: Path, tmp_path: Path) -> None:
    source = open_source(str(scans))
    with pytest.raises(UserError, match=r"holds other files, such as img0\.nii\.gz; give a new or an empty folder"):
        packing.pack(source, str(scans.parent))
    with pytest.raises(UserError, match=r"index\.csv is a file; give a folder"):
        packing.pack(source, str(scans))
    packing.pack(source, str(tmp_path / "p"))
    with pytest.raises(UserError, match="holds other packed data already"):
        packing.pack(_source(list(source.cases[:3])), str(tmp_path / "p"))


def test_a_field_costs_one_request_and_only_its_own_bytes(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    cases = [
        Case(f"c{n}", "p", {"big": Constant(rng.random(300_000)), "small": Constant(rng.random(100))}) for n in range(8)
    ]
    packing.pack(_source(cases), f"{bucket}/p")
    source = open_source(f"{bucket}/p")
    asked: list[int] = []
    original = Folder.read_range

    def read_range(self: Folder, name: str, start: int, length: int) -> bytes:
        asked.append(length)
        return original(self, name, start, length)

    monkeypatch.setattr(Folder, "read_range", read_range)
    packed._footer.cache_clear()
    for case in source.cases:
        assert case.load("small").shape == (100,)
    assert len(asked) == 1 + 8  # the footer once
    assert sum(asked[1:]) < 8 * 3000  # none of the 2.4 MB beside them


def _loads(job: tuple[Case, str]) -> Any:
    return job[0].load(job[1])


def test_forked_workers_stream_too(scans: Path, bucket: str) -> None:
    packing.pack(open_source(str(scans)), f"{bucket}/p", shard_bytes=100_000)
    source = open_source(f"{bucket}/p")
    first = source.cases[0].load("image")  # so that footers and clients are there when it forks
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for volume in pool.map(_loads, [(source.cases[0], "image")] * 4):
            same(first, volume)


def test_damage_is_noticed_and_named(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "p"
    packing.pack(open_source(str(scans)), str(out), compression="none")
    path = out / packed.shard_name(0)
    raw = bytearray(path.read_bytes())
    source = open_source(str(out))
    raw[raw.index(source.cases[1].volume("image").array.tobytes()) + 100] ^= 1
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"shard-00000\.parquet, case case1, image is damaged: .*pack the source again"):
        source.cases[1].load("image")
    source.cases[0].load("image")
    path.write_bytes(raw[:-1])
    with pytest.raises(UserError, match=r"shard-00000\.parquet has \d+ bytes where \d+ are expected"):
        open_source(str(out))
    (out / packed.INDEX).write_text('{"format": "medray packed cases", "version": 99}')
    with pytest.raises(UserError, match=r"index\.json is of a kind or version this release does not know"):
        open_source(str(out))
    (out / packed.INDEX).write_text("{")
    with pytest.raises(UserError, match=r"index\.json is not the index of packed cases"):
        open_source(str(out))


def test_an_outage_while_streaming_and_packing(scans: Path, bucket: str, network: Network) -> None:
    source = open_source(str(scans))
    network.refuse()
    timer = threading.Timer(1.5, network.heal)
    timer.start()
    packing.pack(source, f"{bucket}/p", shard_bytes=100_000)
    timer.join()
    again = open_source(f"{bucket}/p")
    network.cut(after=20_000, times=3)
    same_source(source, again)


def test_an_outage_is_no_bad_case(scans: Path, tmp_path: Path, bucket: str, network: Network) -> None:
    """Quarantine is for cases; if storage fails, nothing may be left out silently."""
    packing.pack(open_source(str(scans)), f"{bucket}/p")
    source = open_source(f"{bucket}/p")
    network.answer(403, "ExpiredToken")
    with pytest.raises(StorageError, match="the credentials have expired"):
        check_cases(source.cases, required=("image",), policy="quarantine")
    with pytest.raises(StorageError, match="the credentials have expired"):
        packing.pack(source, str(tmp_path / "q"), policy="quarantine")


def test_the_command(scans: Path, bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "pack", str(scans), f"{bucket}/p"]) == 0
    out, error = capsys.readouterr()
    assert out.splitlines()[-1] == f"{bucket}/p"
    assert "packed 6 cases into 1 shard (" in error
    assert len(open_source(f"{bucket}/p").cases) == 6
    assert main(["data", "pack", str(scans), f"{bucket}/p"]) == 0
    assert "1 of them there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pack", "SCANS"], "error: OUT is needed"),
        (["pack", "/none", "/tmp/x"], "error: /none does not exist; a data source is a folder"),
        (["pack", "SCANS", "s3://no-such-bucket/x"], "error: s3://no-such-bucket/x: there is no such bucket"),
        (["pack", "SCANS", "OUT", "--shard-mb", "0"], "error: --shard-mb is 1 or more, got 0"),
        (
            ["pack", "SCANS", "OUT", "--bad-samples", "skip"],
            "error: --bad-samples is one of fail, quarantine, got 'skip'",
        ),
        (["pakc"], "error: there is no command 'data pakc'; did you mean data pack?"),
    ],
)
def test_the_commands_sentences(
    scans: Path, tmp_path: Path, bucket: str, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    real = {"SCANS": str(scans), "OUT": str(tmp_path / "out")}
    assert main(["data", *(real.get(argument, argument) for argument in arguments)]) == 2
    assert capsys.readouterr().err.startswith(sentence)


def test_index_is_json_and_holds_no_paths(scans: Path, tmp_path: Path) -> None:
    packing.pack(open_source(str(scans)), str(tmp_path / "p"))
    text = (tmp_path / "p" / packed.INDEX).read_text()
    assert json.loads(text)["cases"][0]["case"] == "case0"
    assert str(tmp_path) not in text
    assert os.path.expanduser("~") not in text
