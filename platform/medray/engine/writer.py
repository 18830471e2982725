"""Checkpoints written beside training: the step pays for a copy of the state, a thread for the disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from medray.engine.checkpoint import CheckpointStore


class CheckpointWriter:
    """Writes one checkpoint at a time, in the order they were handed over.

    Args:
        store: where they go.
        saved: told about each one that is whole on disk, in the writing thread.
    """

    def __init__(self, store: CheckpointStore, saved: Callable[[Path], None]) -> None:
        self._store = store
        self._saved = saved
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="medray-checkpoint")
        self._pending: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether one is still being written."""
        return self._pending is not None and not self._pending.done()

    def save(self, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any], *, best: bool) -> None:
        """Hand over a state that nobody changes any more; waits while the one before is being written.

        Raises:
            UserError: what `CheckpointStore.save` raised for an earlier one.
        """
        self.wait()
        self._pending = self._thread.submit(self._write, step, weights, state, best)

    def wait(self) -> None:
        """Return when everything handed over is on disk.

        Raises:
            UserError: as `save`.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def check(self) -> None:
        """Raise at once what the last write raised, if it is over."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def _write(self, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any], best: bool) -> None:
        self._saved(self._store.save(step, weights, state, best=best))
