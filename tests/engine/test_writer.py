"""Checkpoints are written beside training, and what goes wrong there is heard."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from medray.engine.checkpoint import CheckpointStore
from medray.engine.writer import CheckpointWriter
from medray.errors import UserError


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    go_on = threading.Event()
    seen: list[str] = []

    def slow(path: Path) -> None:
        assert go_on.wait(30)
        seen.append(path.name)

    writer = CheckpointWriter(CheckpointStore(tmp_path), slow)
    writer.save(1, {"w": torch.ones(2)}, {}, best=False)
    assert writer.busy  # and yet we are here
    go_on.set()
    writer.save(2, {"w": torch.ones(2)}, {}, best=False)
    writer.wait()
    assert seen == ["step-00000001", "step-00000002"]
    assert not writer.busy


def test_an_error_in_the_background_reaches_the_loop(tmp_path: Path) -> None:
    def full(_: Path) -> None:
        raise UserError("no space left")

    writer = CheckpointWriter(CheckpointStore(tmp_path), full)
    writer.save(1, {}, {}, best=False)
    with pytest.raises(UserError, match="no space left"):
        writer.wait()
    writer.check()  # told once


def test_a_writer_that_was_given_up_for_lost_cannot_write_any_more(tmp_path: Path) -> None:
    lost, heir = CheckpointStore(tmp_path), CheckpointStore(tmp_path)
    lost.take_over()
    lost.save(1, {"w": torch.ones(1)}, {"position": 1})
    heir.take_over()
    with pytest.raises(UserError, match="has taken over"):
        lost.save(5, {"w": torch.zeros(1)}, {"position": 5})
    heir.save(2, {"w": torch.ones(1)}, {"position": 2})
    assert sorted(p.name for p in tmp_path.glob("*step-*")) == ["step-00000001", "step-00000002"]


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".step-00000007.4711").mkdir()
    CheckpointStore(tmp_path).take_over()
    assert not list(tmp_path.glob(".step-*"))
