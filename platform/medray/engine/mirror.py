"""A run's folder copied to object storage while it is written, so that nothing is lost with the machine.

A checkpoint is uploaded once it is whole; its list of checksums goes last, and until then it does not exist. Logs are
uploaded before the checkpoints written by then, so a run that goes on from one finds all its records.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medray.engine.checkpoint import BEST, CHECKSUMS, CheckpointStore
from medray.errors import UserError
from medray.storage import Folder, StorageUnreachable

log = logging.getLogger(__name__)

_EVERY_S = 3.0
_LOGS = ("metrics.jsonl", "quarantine.jsonl", "skipped.jsonl")
_OWNER = "owner"


class Mirror:
    """Copies what changes in a local folder to one in object storage, in the background.

    Args:
        local: the run's folder on this machine.
        remote: the run's folder that lasts.
    """

    def __init__(self, local: Path, remote: Folder) -> None:
        self.local = local
        self.remote = remote
        self._sent: dict[str, tuple[int, int]] = {}
        self._owned: dict[str, str] = {}
        self._lock = threading.Lock()
        self._wake, self._over = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._error: UserError | None = None

    def start(self) -> None:
        """Begin copying every few seconds."""
        self._over.clear()
        self._thread = threading.Thread(target=self._run, name="medray-mirror", daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        """Copy now rather than in a few seconds.

        Raises:
            UserError: storage refused something for a reason that waiting does not mend.
        """
        self._wake.set()
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Copy what is left and end.

        Raises:
            UserError: it could not be copied; says where it is kept.
        """
        self._over.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        try:
            self.push()
        except UserError as error:
            raise UserError(f"{error}; everything is kept in {self.local}, and --resume will copy it") from error

    def push(self) -> None:
        """Copy everything that changed since the last time."""
        with self._lock:
            loops = self._loops()
            checkpoints = {loop: sorted(p for p in loop.glob("step-*") if (p / CHECKSUMS).exists()) for loop in loops}
            best = {loop: _text(loop / BEST) for loop in loops}
            for path in self._others():
                self._send(path)
            for loop, steps in checkpoints.items():
                for step in steps:
                    self._send_checkpoint(loop, step)
                if best[loop]:
                    self._write(loop / BEST, best[loop].encode())
                if steps:
                    self._drop(loop, {step.name for step in steps})

    def fetch(self, *names: str) -> None:
        """Copy the named files from storage where they exist; for a run that goes on here and began elsewhere."""
        for name in names:
            if self.remote.exists(name):
                self.download(name)

    def fetch_below(self, folder: str) -> None:
        """Copy everything below a folder of the run from storage."""
        for entry in self.remote.folder(folder).list():
            self.download(f"{folder}/{entry.name}")

    def download(self, name: str) -> None:
        """Copy a file from storage. It is not sent back as it is: others may have written a newer one by then."""
        self.remote.download(name, self.local / name)
        self._sent[name] = _seen(self.local / name)

    def fetch_checkpoints(self, folder: Path) -> None:
        """Take over a loop's checkpoints; fetch its newest whole one, its best one and the logs that go with them.

        What this machine has itself stays where it is newer: storage may have been down when the run stopped here.
        """
        name = folder.relative_to(self.local).as_posix()
        remote = self.remote.folder(name)
        self._owned[name] = str(time.time_ns())
        remote.write(_OWNER, self._owned[name].encode())
        entries = [entry.name for entry in remote.list()]
        whole = sorted({e.split("/")[0] for e in entries if e.startswith("step-") and e.endswith(f"/{CHECKSUMS}")})
        store = CheckpointStore(folder)
        if not whole or store.newest() > whole[-1]:
            return
        self.fetch(*_LOGS)
        best = remote.read(BEST).decode().strip() if BEST in entries else ""
        found = False
        for step in reversed(whole):
            if found and step != best:
                continue
            for kept in (True, False):  # a damaged copy of this machine's is fetched anew
                if not kept:
                    shutil.rmtree(folder / step, ignore_errors=True)
                for entry in entries:
                    if entry.startswith(f"{step}/") and not (folder / entry).exists():
                        remote.download(entry, folder / entry)
                if store.is_whole(folder / step):
                    found = True
                    break
        if best and (folder / best).exists():
            (folder / BEST).write_text(best)

    def _loops(self) -> list[Path]:
        return sorted({path.parent for path in self.local.rglob("step-*") if path.is_dir()})

    def _others(self) -> list[Path]:
        return sorted(
            path
            for path in self.local.rglob("*")
            if path.is_file()
            and not any(part.startswith((".", "step-")) for part in path.relative_to(self.local).parts)
            and path.name != BEST
        )

    def _send(self, path: Path) -> None:
        try:
            seen = _seen(path)
            name = path.relative_to(self.local).as_posix()
            if self._sent.get(name) != seen:
                self.remote.upload(path, name)
                self._sent[name] = seen
        except FileNotFoundError:
            return  # gone or replaced since it was listed; the next round sees

    def _write(self, path: Path, data: bytes) -> None:
        name = path.relative_to(self.local).as_posix()
        mark = (len(data), hash(data))
        if self._sent.get(name) != mark:
            self.remote.write(name, data)
            self._sent[name] = mark

    def _send_checkpoint(self, loop: Path, step: Path) -> None:
        name = step.relative_to(self.local).as_posix()
        if name in self._sent:
            return
        try:
            files = sorted(step.iterdir(), key=lambda file: file.name == CHECKSUMS)
        except FileNotFoundError:  # it has made room for a newer one
            return
        for file in files:
            if file.name == CHECKSUMS:
                self._check_owner(loop)
            self._send(file)
        if (step / CHECKSUMS).exists():  # else it made room meanwhile, and what was sent may be a part
            self._sent[name] = (0, 0)

    def _check_owner(self, loop: Path) -> None:
        name = loop.relative_to(self.local).as_posix()
        mine = self._owned.get(name)
        if mine is not None and self.remote.folder(name).read(_OWNER).decode() != mine:
            raise UserError(f"another process has taken over {self.remote.url}/{name}")

    def _drop(self, loop: Path, kept: set[str]) -> None:
        """Remove checkpoints from storage that made room here."""
        name = loop.relative_to(self.local).as_posix()
        remote = self.remote.folder(name)
        for step in {item.rstrip("/") for item in remote.names() if item.startswith("step-")} - kept:
            if step < max(kept):
                remote.delete(f"{step}/{CHECKSUMS}")  # first, so that a half deleted one is none
                remote.folder(step).delete_all()
                self._sent.pop(f"{name}/{step}", None)

    def _run(self) -> None:
        while not self._over.is_set():
            self._wake.wait(_EVERY_S)
            self._wake.clear()
            try:
                self.push()
            except StorageUnreachable as error:
                log.warning("%s; training goes on, and copying with it once storage answers", error)
            except UserError as error:
                self._error = error
                return
            except OSError as error:  # a file of this machine's; `finish` tells if it stays so
                log.warning("a file could not be copied to %s: %s", self.remote.url, error)


def _seen(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


@contextmanager
def followed(remote: Folder, path: Path) -> Iterator[None]:
    """Keep a local copy of a growing file that a worker uploads, and fetch its last state at the end."""
    over = threading.Event()

    def follow() -> None:
        etag = ""
        while not over.wait(_EVERY_S):
            try:
                newest = remote.stat(path.name).etag
                if newest != etag:
                    remote.download(path.name, path)
                    etag = newest
            except (FileNotFoundError, UserError):  # not there yet, or not now: the workers are the ones to complain
                continue

    thread = threading.Thread(target=follow, name="medray-follow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if remote.exists(path.name):
            remote.download(path.name, path)
