"""A folder in a bucket behaves like one on a disk, as far as object storage can."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from object_store import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, Store

from medray.errors import UserError
from medray.storage import Folder, is_url


def test_urls_are_told_from_paths() -> None:
    assert is_url("s3://bucket/a")
    assert not is_url(Path("/s3/bucket"))
    assert not is_url("gs://bucket")
    assert Folder("s3://bucket/a/b/").url == "s3://bucket/a/b"
    assert Folder("s3://bucket/").folder("a", "b").url == "s3://bucket/a/b"


@pytest.mark.parametrize(
    "url", ["bucket/a", "s3://", "s3:///a", "s3://b ucket/a", "s3://bucket/a/../b", "s3://bucket/a//b"]
)
def test_wrong_urls_are_named(url: str) -> None:
    with pytest.raises(UserError) as caught:
        Folder(url)
    assert url in str(caught.value)


def test_a_url_with_credentials_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="takes no credentials") as caught:
        Folder(f"s3://{ACCESS_KEY}:{SECRET_KEY}@bucket/a")
    assert ACCESS_KEY not in str(caught.value)
    assert SECRET_KEY not in str(caught.value)


def test_what_is_written_is_read(bucket: str, tmp_path: Path) -> None:
    folder = Folder(bucket).folder("a")
    folder.write("one.txt", b"first")
    folder.write("one.txt", b"second")
    folder.write("sub/two.bin", bytes(range(256)))
    folder.write("empty", b"")
    assert folder.read("one.txt") == b"second"
    assert folder.read("empty") == b""
    assert folder.read_range("sub/two.bin", 10, 5) == bytes(range(10, 15))
    assert folder.read_range("sub/two.bin", 10, 0) == b""
    assert [(entry.name, entry.size) for entry in folder.list()] == [("empty", 0), ("one.txt", 6), ("sub/two.bin", 256)]
    assert folder.names() == ["empty", "one.txt", "sub/"]
    assert folder.stat("one.txt") == folder.list()[1]
    folder.download("sub/two.bin", tmp_path / "deep" / "two.bin")
    assert (tmp_path / "deep" / "two.bin").read_bytes() == bytes(range(256))
    folder.upload(tmp_path / "deep" / "two.bin", "copy.bin")
    assert folder.read("copy.bin") == bytes(range(256))


def test_exists_means_the_whole_name(bucket: str) -> None:
    folder = Folder(bucket)
    assert not folder.exists()
    folder.write("runs/one/config.json", b"{}")
    assert folder.exists()
    assert folder.exists("runs/one/config.json")
    assert folder.exists("runs/one/")
    assert not folder.exists("runs/one/config")  # a prefix of a name is no name
    assert not folder.exists("runs/on/")
    assert not folder.exists("runs/one")


def test_what_is_missing_is_named(bucket: str, tmp_path: Path) -> None:
    folder = Folder(bucket).folder("a")
    for action in (
        lambda: folder.read("none"),
        lambda: folder.read_range("none", 0, 1),
        lambda: folder.stat("none"),
        lambda: folder.download("none", tmp_path / "none"),
    ):
        with pytest.raises(FileNotFoundError, match=f"{bucket}/a/none does not exist"):
            action()
    assert list(tmp_path.iterdir()) == []  # no half download stays
    folder.delete("none")
    assert folder.list() == []
    assert folder.names() == []


def test_a_range_beyond_the_end_is_named(bucket: str) -> None:
    folder = Folder(bucket)
    folder.write("a", b"12345")
    for start in (3, 5, 9):
        with pytest.raises(UserError, match=f"{bucket}/a.* truncated or was replaced"):
            folder.read_range("a", start, 4)


def test_more_objects_than_a_page_holds(store: Store, bucket: str) -> None:
    folder = Folder(bucket).folder("many")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: folder.write(f"{i:04d}/x", b""), range(1005)))
    Folder(bucket).write("many2", b"")  # begins alike, but is not inside
    assert [entry.name for entry in folder.list()] == [f"{i:04d}/x" for i in range(1005)]
    assert folder.names() == [f"{i:04d}/" for i in range(1005)]
    folder.delete_all()
    assert folder.list() == []
    assert Folder(bucket).names() == ["many2"]


def test_big_files_go_in_parts_and_come_back(store: Store, bucket: str, tmp_path: Path) -> None:
    data = bytes(range(251)) * ((70 << 20) // 251)
    (tmp_path / "big").write_bytes(data)
    folder = Folder(bucket)
    folder.upload(tmp_path / "big", "big")
    assert "-" in folder.stat("big").etag  # the mark of an upload in parts
    folder.download("big", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == data


def test_folder_markers_of_consoles_are_no_files(store: Store, bucket: str) -> None:
    client = store.client()
    client.put_object(Bucket=bucket.removeprefix("s3://"), Key="a/")
    client.put_object(Bucket=bucket.removeprefix("s3://"), Key="a/b/")
    folder = Folder(bucket).folder("a")
    folder.write("x", b"1")
    assert [entry.name for entry in folder.list()] == ["x"]
    assert folder.names() == ["b/", "x"]


def test_names_with_odd_parts_are_refused(bucket: str) -> None:
    folder = Folder(bucket)
    for name in ("../a", "a//b", "/a", "./a"):
        with pytest.raises(UserError, match="write it without"):
            folder.write(name, b"")
    with pytest.raises(UserError, match="is a folder where an object is expected"):
        folder.read("")


def test_unusual_characters_survive(bucket: str) -> None:
    folder = Folder(bucket).folder("a b")
    for name in ("ü ö+&=?#%25.txt", "x/日本.nii.gz"):
        folder.write(name, name.encode())
        assert folder.read(name) == name.encode()
    assert [entry.name for entry in folder.list()] == sorted(["ü ö+&=?#%25.txt", "x/日本.nii.gz"])


def test_pickles_hold_the_url_and_nothing_secret(bucket: str) -> None:
    folder = Folder(bucket, patience_s=7.0)
    folder.write("a", b"1")  # so that a client exists
    raw = pickle.dumps(folder)
    for secret in (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN):
        assert secret.encode() not in raw
        assert secret not in repr(folder)
    again = pickle.loads(raw)
    assert again == folder
    assert again.patience_s == 7.0
    assert again.read("a") == b"1"


def test_a_forked_child_and_threads_read_too(bucket: str) -> None:
    folder = Folder(bucket)
    folder.write("a", b"1" * 100_000)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(folder.read, ["a"] * 8) == [b"1" * 100_000] * 8
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(folder.read, ["a"] * 32)) == [b"1" * 100_000] * 32
