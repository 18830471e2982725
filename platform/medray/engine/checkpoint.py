"""Checkpoints on disk: written beside, renamed into place, verified by checksum before they are believed.

A checkpoint is a folder ``step-00001234`` that holds ``model.safetensors`` (weights), ``state.pt`` (optimizers,
schedules, per-sample state, position; plain tensors and numbers, loaded without unpickling code) and
``checksums.json``, written last.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import pickle
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from medray.errors import UserError

log = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
_STATE = "state.pt"
CHECKSUMS = "checksums.json"
BEST = "best"
_OWNER = ".owner"


class CorruptCheckpoint(Exception):
    """A checkpoint whose files are missing or not what was written."""


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors.

    Raises:
        UserError: the disk is full.
    """
    # A fresh contiguous copy per tensor: safetensors refuses tensors that share memory.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}
    try:
        save_file(tensors, path)
    except (OSError, SafetensorError) as error:
        raise disk_error(error, path) from error


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        UserError: it is missing or not a safetensors file.
    """
    try:
        weights: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise UserError(f"no weights at {path}") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read the weights in {path}: {error}") from None
    return weights


def improves(score: float, best: float | None, mode: Literal["max", "min"]) -> bool:
    """Whether a monitored metric is better than the best so far."""
    return best is None or (score > best if mode == "max" else score < best)


class CheckpointStore:
    """The checkpoints of one gradient loop, the newest ``keep`` of them and the best."""

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep
        self._token = ""

    def take_over(self) -> None:
        """From now on, checkpoints are this object's to write; one that took over before may not write any more.

        A worker that was given up for lost but lives on, or a second --resume of the same run, must not mix its
        checkpoints with those of the one that goes on.

        Raises:
            UserError: the folder cannot be written.
        """
        self._token = f"{os.uname().nodename} {os.getpid()} {secrets.token_hex(8)}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left_over in self.folder.glob(".step-*"):  # of a writer that was killed
                shutil.rmtree(left_over, ignore_errors=True)
            _write_durably(self.folder / _OWNER, self._token)
        except OSError as error:
            raise disk_error(error, self.folder) from error

    def save(self, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any], *, best: bool = False) -> Path:
        """Write a checkpoint; when this returns it is complete and durable.

        Raises:
            UserError: the disk is full, or another process has taken the run over. Earlier checkpoints are untouched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"step-{step:08d}"
        partial = self.folder / f".{target.name}.{os.getpid()}"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            save_weights(partial / WEIGHTS, weights)
            torch.save(dict(state), partial / _STATE)
            sums = {name: _checksum(partial / name) for name in (WEIGHTS, _STATE)}
            _write_durably(partial / CHECKSUMS, json.dumps(sums, indent=1))
            _sync_folder(partial)
            self._check_owner()
            _remove(target)
            partial.rename(target)
            if best:
                self.mark_best(step)
            _sync_folder(self.folder)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError | RuntimeError):  # torch.save reports a full disk as a RuntimeError
                raise disk_error(error, target) from error
            raise
        self._drop_others(target)
        return target

    def mark_best(self, step: int) -> None:
        """Name the best checkpoint, which newer ones do not displace; nothing if it is not there any more."""
        name = f"step-{step:08d}"
        if (self.folder / name).exists():
            _write_durably(self.folder / ".best.tmp", name)
            os.replace(self.folder / ".best.tmp", self.folder / BEST)

    def _check_owner(self) -> None:
        try:
            owner = (self.folder / _OWNER).read_text()
        except FileNotFoundError:
            return
        if self._token and owner != self._token:
            raise UserError(f"another process (host and pid {owner.rsplit(' ', 1)[0]}) has taken over {self.folder}")

    def latest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Weights and state of the newest checkpoint that is whole, or None.

        One that is damaged is named in a warning and passed over.
        """
        for path in reversed(self._all()):
            try:
                return self._read(path)
            except CorruptCheckpoint as error:
                log.warning("checkpoint %s is damaged (%s); going back to the one before it", path, error)
        return None

    def is_whole(self, path: Path) -> bool:
        """Whether a checkpoint's files are what was written; if not, says so in a warning."""
        try:
            self._verify(path)
        except CorruptCheckpoint as error:
            log.warning("checkpoint %s is damaged (%s); going back to another", path, error)
            return False
        return True

    def newest(self) -> str:
        """Name of the newest checkpoint, without looking into it; empty where there is none."""
        names = [path.name for path in self._all()]
        return names[-1] if names else ""

    def best(self) -> Path | None:
        """Weights of the best checkpoint if one was marked, else of the newest; of those that are whole, else None."""
        marked = self.folder / BEST
        first = [self.folder / marked.read_text().strip()] if marked.exists() else []
        for path in [*(path for path in first if path.exists()), *reversed(self._all())]:
            if self.is_whole(path):
                return path / WEIGHTS
        return None

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("step-*")) if self.folder.exists() else []

    def _read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        self._verify(path)
        try:
            state = torch.load(path / _STATE, weights_only=True, map_location="cpu")
            return load_weights(path / WEIGHTS), state
        except (OSError, ValueError, UserError, pickle.UnpicklingError, RuntimeError) as error:
            raise CorruptCheckpoint(str(error).splitlines()[0]) from error

    def _verify(self, path: Path) -> None:
        try:
            sums = json.loads((path / CHECKSUMS).read_text())
            for name, expected in sums.items():
                if _checksum(path / name) != expected:
                    raise CorruptCheckpoint(f"checksum of {name} differs")
        except (OSError, ValueError) as error:
            raise CorruptCheckpoint(str(error).splitlines()[0]) from error

    def _drop_others(self, newest: Path) -> None:
        """Keep some up to the newest; what lies beyond was damaged, or the run would not have gone back behind it."""
        marked = self.folder / BEST
        best = marked.read_text().strip() if marked.exists() else ""
        paths = self._all()
        place = sum(path.name <= newest.name for path in paths)
        for path in [*paths[place:], *(path for path in paths[:place][: -self.keep] if path.name != best)]:
            _remove(path)


def _remove(checkpoint: Path) -> None:
    """Take it out of sight first: killed in the middle of this, there must not be half a checkpoint."""
    hidden = checkpoint.with_name(f".{checkpoint.name}.{os.getpid()}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    with contextlib.suppress(OSError):
        checkpoint.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def disk_error(error: Exception, path: Path) -> Exception:
    """The sentence for a full disk; any other error as it is."""
    full = (errno.ENOSPC, errno.EDQUOT)
    texts = ("space left", "os error 28", "quota exceeded", "file write failed", "unexpected pos")
    if getattr(error, "errno", None) in full or any(text in str(error).lower() for text in texts):
        return UserError(f"no space left to write {path}; free some and go on with --resume")
    return error


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        os.fsync(file.fileno())
    return digest.hexdigest()


def _write_durably(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
