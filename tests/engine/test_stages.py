"""A stage is done once, and counts only when it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medray.engine.mirror import Mirror
from medray.engine.workbench import InProcessWorkbench


class Work:
    """Counts how often it is done; can break in the middle."""

    def __init__(self) -> None:
        self.done = 0
        self.breaks = False

    def __call__(self, folder: Path) -> None:
        self.done += 1
        (folder / "first.txt").write_text("1")
        if self.breaks:
            raise RuntimeError("lost")
        (folder / "inner").mkdir()
        (folder / "inner" / "second.txt").write_text("22")


def test_a_finished_stage_is_not_done_again(tmp_path: Path) -> None:
    make = Work()
    folders = [InProcessWorkbench(tmp_path).stage("round-0", make) for _ in range(2)]
    assert make.done == 1
    assert folders == [tmp_path / "stages" / "round-0"] * 2
    assert (folders[0] / "inner" / "second.txt").read_text() == "22"


def test_a_broken_one_is_done_anew_from_an_empty_folder(tmp_path: Path) -> None:
    make = Work()
    make.breaks = True
    work = InProcessWorkbench(tmp_path)
    with pytest.raises(RuntimeError, match="lost"):
        work.stage("round-0", make)
    make.breaks = False
    assert {p.name for p in work.stage("round-0", make).iterdir()} == {"first.txt", "inner", "stage.json"}
    assert make.done == 2


def test_a_stage_is_found_in_object_storage(tmp_path: Path, bucket: Any) -> None:
    from medray.storage import Folder

    make, url = Work(), f"{bucket}/run"
    for machine in ("one", "two"):
        mirror = Mirror(tmp_path / machine, Folder(url))
        (tmp_path / machine).mkdir()
        folder = InProcessWorkbench(tmp_path / machine, mirror=mirror).stage("round-0", make)
        assert (folder / "inner" / "second.txt").read_text() == "22"
    assert make.done == 1


def test_half_a_stage_in_object_storage_does_not_count(tmp_path: Path, bucket: Any) -> None:
    from medray.storage import Folder

    make, remote = Work(), Folder(f"{bucket}/run")
    (tmp_path / "one").mkdir()
    InProcessWorkbench(tmp_path / "one", mirror=Mirror(tmp_path / "one", remote)).stage("round-0", make)
    remote.delete("stages/round-0/inner/second.txt")
    (tmp_path / "two").mkdir()
    InProcessWorkbench(tmp_path / "two", mirror=Mirror(tmp_path / "two", remote)).stage("round-0", make)
    assert make.done == 2
