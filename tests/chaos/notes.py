"""What each process of a run is doing, written where a process that is killed cannot take it along."""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import psutil

STARTING, PREPARING, TRAINING, VALIDATING, BETWEEN = MOMENTS = (
    "starting", "preparing data", "training", "validating", "between steps",
)  # fmt: skip
TRAINER, LOADER = KINDS = ("trainer", "loader process")

_LAYOUT = struct.Struct("<BBBxI")


@dataclass(frozen=True)
class Seen:
    """What a process was doing when its note was read.

    Attributes:
        kind: one of `KINDS`.
        moment: one of `MOMENTS`.
        uploading: whether it was also sending a file to object storage.
        step: the last update a trainer began; how many batches a loader process began.
    """

    kind: str = TRAINER
    moment: str = STARTING
    uploading: bool = False
    step: int = 0


class Note:
    """The writing side: a file named after the process, mapped into its memory."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.pid = os.getpid()
        path = folder / str(self.pid)
        path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _LAYOUT.size)
        self._kind, self._moment, self._uploading, self._step = KINDS.index(kind), 0, False, 0
        self._write()

    def at(self, moment: str, step: int | None = None) -> None:
        """From now on the process does this."""
        self._moment = MOMENTS.index(moment)
        self._step = self._step if step is None else step
        self._write()

    def uploading(self, now: bool) -> None:
        """From now on it is, or is not, uploading beside."""
        self._uploading = now
        self._write()

    def _write(self) -> None:
        _LAYOUT.pack_into(self._memory, 0, self._kind, self._moment, self._uploading, self._step)


class Board:
    """The reading side: the notes of all processes a run ever had, and the checkpoints they write."""

    def __init__(self, notes: Path, checkpoints: Path) -> None:
        self.notes, self.checkpoints = notes, checkpoints
        notes.mkdir(parents=True, exist_ok=True)

    def read(self, pid: int) -> Seen:
        """What a process is doing, or was when it died."""
        try:
            kind, moment, uploading, step = _LAYOUT.unpack((self.notes / str(pid)).read_bytes())
        except (FileNotFoundError, struct.error):  # it has not come as far as its note
            return Seen()
        return Seen(KINDS[kind], MOMENTS[moment], bool(uploading), step)

    def writing(self, pid: int) -> bool:
        """Whether it is in the middle of writing a checkpoint, or died there."""
        return any(self.checkpoints.glob(f".step-*.{pid}"))

    def pids(self) -> list[int]:
        """Everyone who left a note and is still there."""
        return [pid for pid in sorted(int(path.name) for path in self.notes.iterdir()) if is_alive(pid)]

    def of_kind(self, kind: str) -> list[int]:
        """Those of a kind who are still there."""
        return [pid for pid in self.pids() if self.read(pid).kind == kind]


def is_alive(pid: int) -> bool:
    """Whether there is such a process and it is not just waiting to be buried."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
