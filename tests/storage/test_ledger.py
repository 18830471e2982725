"""A ledger keeps every record once, whoever writes and however writers end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import object_store

from medray.errors import UserError
from medray.storage.ledger import Ledger, LedgerTaken


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with object_store() as store:
        yield store.bucket("ledgers")


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> str:
    return str(tmp_path / "ledger") if request.param == "disk" else f"{bucket}/{tmp_path.name}"


def test_records_are_read_back_in_order(place: str) -> None:
    ledger = Ledger(place)
    for number in range(12):
        ledger.append({"number": number})
    assert [record["number"] for record in Ledger(place).records] == list(range(12))


def test_of_two_writers_one_is_told(place: str) -> None:
    first, second = Ledger(place), Ledger(place)
    first.append({"by": "first"})
    with pytest.raises(LedgerTaken):
        second.append({"by": "second"})
    assert Ledger(place).records == ({"by": "first"},)


def test_a_lost_answer_is_no_conflict(place: str) -> None:
    if not place.startswith("s3"):
        pytest.skip("a disk's answer is not lost on the way")
    stale = Ledger(place)
    Ledger(place).append({"number": 0})
    stale.append({"number": 0})  # the same bytes: our own write, whose answer never came
    assert len(Ledger(place).records) == 1


def test_a_gap_is_told(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    for number in range(3):
        ledger.append({"number": number})
    (tmp_path / "000001.json").unlink()
    with pytest.raises(UserError, match=r"no record 000001\.json"):
        Ledger(str(tmp_path))


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    Ledger(str(tmp_path)).append({"number": 0})
    (tmp_path / "000000.json").write_text('{"num')
    with pytest.raises(UserError, match="holds no JSON"):
        Ledger(str(tmp_path))


def test_a_killed_writer_leaves_whole_records_only(tmp_path: Path) -> None:
    program = (
        "import sys; from medray.storage.ledger import Ledger\n"
        "ledger = Ledger(sys.argv[1]); print('ready', flush=True)\n"
        "while True: ledger.append({'text': 'x' * 100_000})"
    )
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        writer.stdout.readline()
        before = len(list(tmp_path.glob("0*.json")))
        while len(list(tmp_path.glob("0*.json"))) < before + 3:
            pass
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        assert all(len(record["text"]) == 100_000 for record in Ledger(str(tmp_path)).records)
