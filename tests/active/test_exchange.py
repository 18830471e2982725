"""A folder on a disk and one in object storage are read and written in the same way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medray.active.exchange import Exchange, open_exchange
from medray.errors import UserError


@pytest.fixture(params=["disk", "s3"])
def exchange(request: pytest.FixtureRequest, tmp_path: Path) -> Exchange:
    place = str(tmp_path / "new" / "folder") if request.param == "disk" else request.getfixturevalue("bucket") + "/run"
    return open_exchange(place)


def test_what_is_written_is_listed_and_read(exchange: Exchange) -> None:
    assert exchange.list() == []
    exchange.write("round-000/worklist.csv", b"case\n")
    exchange.write("accepted/a.png", b"1234")
    listed = [(item.name, item.size) for item in exchange.list()]
    assert listed == [("accepted/a.png", 4), ("round-000/worklist.csv", 5)]
    assert exchange.read("accepted/a.png") == b"1234"
    assert exchange.url("accepted/a.png") == f"{exchange.place}/accepted/a.png"


def test_the_marker_changes_with_the_content_and_nothing_is_remembered(exchange: Exchange) -> None:
    exchange.write("a.csv", b"one")
    (before,) = exchange.list()
    assert exchange.list() == [before]
    exchange.write("a.csv", b"two")  # of the same length
    (after,) = exchange.list()
    assert after.marker != before.marker
    assert exchange.read("a.csv") == b"two"


def test_a_file_that_is_gone_is_not_found(exchange: Exchange) -> None:
    with pytest.raises(FileNotFoundError):
        exchange.read("round-000/gone.png")


def test_a_link_to_nowhere_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere.png")
    assert open_exchange(str(tmp_path)).list() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(UserError, match=r"^a\.png cannot be read: Permission denied$"):
        open_exchange(str(tmp_path)).read("a.png")


def test_places_that_cannot_be_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="is a file where a folder for annotations is expected"):
        open_exchange(str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"gs://scans: annotations are exchanged through"):
        open_exchange("gs://scans")
