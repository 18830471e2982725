"""Checkpoints are whole or not there."""

from __future__ import annotations

import errno
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from medray.engine.checkpoint import CheckpointStore
from medray.errors import UserError


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((3,), value)}


def test_latest_returns_what_was_saved_last(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 2, 10):
        store.save(step, weights(step), {"position": step, "list": [torch.ones(2), "text"]})
    found = store.latest()
    assert found is not None
    assert torch.equal(found[0]["w"], torch.full((3,), 10.0))
    assert found[1]["position"] == 10
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000002", "step-00000010"]


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "checksums.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damaged_checkpoint_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, weights(1), {"position": 1})
    store.save(2, weights(2), {"position": 2})
    file = tmp_path / "step-00000002" / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        middle = len(content) // 2
        file.write_bytes(
            content[:middle] + (b"" if damage == "cut" else bytes([content[middle] ^ 1]) + content[middle + 1 :])
        )
    with caplog.at_level(logging.WARNING):
        found = store.latest()
    assert found is not None
    assert found[1]["position"] == 1
    assert "step-00000002" in caplog.text


def test_half_written_checkpoint_is_never_looked_at(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, weights(1), {"position": 1})
    (tmp_path / ".step-00000002.123").mkdir()
    found = store.latest()
    assert found is not None
    assert found[1]["position"] == 1


def test_best_survives_newer_ones(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    store.save(1, weights(1), {}, best=True)
    for step in (2, 3):
        store.save(step, weights(step), {})
    assert store.best() == tmp_path / "step-00000001" / "model.safetensors"


def test_damaged_best_weights_are_named_and_not_handed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    store.save(1, weights(1), {}, best=True)
    store.save(2, weights(2), {})
    file = tmp_path / "step-00000001" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert store.best() == tmp_path / "step-00000002" / "model.safetensors"
    assert "step-00000001 is damaged" in caplog.text


def test_full_disk_is_one_sentence_and_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, weights(1), {"position": 1})

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"no space left to write .*step-00000002.*--resume"):
        store.save(2, weights(2), {"position": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    assert store.latest() is not None


def test_state_never_unpickles_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    store = CheckpointStore(tmp_path / "c")
    store.save(1, weights(1), {"position": Evil()})
    assert store.latest() is None
    assert not (tmp_path / "ran").exists()


def test_the_one_just_written_stays_also_behind_damaged_ones(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 2, 3):
        store.save(step, weights(step), {"position": step})
    for damaged in tmp_path.glob("step-*"):
        (damaged / "state.pt").write_bytes(b"")
    store = CheckpointStore(tmp_path, keep=2)
    assert store.latest() is None
    store.save(1, weights(1), {"position": 1})
    found = store.latest()
    assert found is not None
    assert found[1]["position"] == 1
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000001"]


def test_a_kill_while_an_old_one_makes_room_leaves_none_half_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    store.save(1, weights(1), {"position": 1})
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as if killed before it has deleted anything
    store.save(2, weights(2), {"position": 2})
    store.save(2, weights(2), {"position": 2})
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000002"]
    monkeypatch.undo()
    CheckpointStore(tmp_path).take_over()
    assert not list(tmp_path.glob(".step-*"))
