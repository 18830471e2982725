"""A disk that fills up ends the run in one sentence, and the run goes on once there is room."""

from __future__ import annotations

import contextlib
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from toy_learners import Regression

from medray.engine.checkpoint import CheckpointStore
from medray.engine.loop import LoopSettings, run_loop
from medray.engine.options import LoopOptions
from medray.engine.world import World
from medray.errors import UserError


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True)
    if mount.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def settings(run: Path) -> LoopSettings:
    return LoopSettings(name="train", run=run, options=LoopOptions(checkpoint_every_steps=1), tensorboard=False)


@pytest.mark.parametrize("left_kb", [4, 0])
def test_one_sentence_and_a_resumable_run(tmp_path: Path, small_disk: Path, left_kb: int) -> None:
    make = functools.partial(Regression, num_epochs=3)
    run_loop(make, World(), settings(tmp_path / "whole"))
    run_loop(functools.partial(Regression, num_epochs=1), World(), settings(small_disk))
    ballast = small_disk / "somebody else's file"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    with ballast.open("rb+") as file:
        file.truncate(max(0, ballast.stat().st_size - 1024 * left_kb))
    with pytest.raises(UserError, match=r"^no space left to write .*; free some and go on with --resume$"):
        run_loop(make, World(), settings(small_disk))
    ballast.unlink()
    assert run_loop(make, World(), settings(small_disk)).finished
    got, whole = (CheckpointStore(run / "checkpoints" / "train").latest() for run in (small_disk, tmp_path / "whole"))
    assert got is not None
    assert whole is not None
    assert all(torch.equal(got[0][name], whole[0][name]) for name in whole[0])
