"""metrics.jsonl and TensorBoard events of one gradient loop, written by its first worker."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medray.engine.rundir import append_json, read_json_lines

log = logging.getLogger(__name__)


class MetricsLog:
    """Appends records to a run's metrics.jsonl and mirrors the numbers to TensorBoard."""

    def __init__(self, run: Path, *, tensorboard: bool = True) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self.path = run / "metrics.jsonl"
        self._started = time.time()
        self._events = run / "tensorboard" if tensorboard else None
        self._writer: Any = None
        self._purge: int | None = None

    def rewind(self, name: str, step: int) -> None:
        """Drop what an interrupted try logged under ``name`` after the checkpoint it goes on from, and half a line."""
        kept = [r for r in read_json_lines(self.path) if r.get("loop") != name or r.get("step", 0) <= step]
        if self.path.exists() and len(kept) < len(self.path.read_text().splitlines()):
            partial = self.path.with_suffix(".tmp")
            partial.write_text("".join(json.dumps(r) + "\n" for r in kept))
            os.replace(partial, self.path)
        self._purge = step + 1
        if kept:
            self._started = time.time() - max(float(r.get("wall_s", 0.0)) for r in kept)

    def write(self, name: str, *, loop: str, step: int, epoch: int, metrics: Mapping[str, float], **more: Any) -> None:
        """One record; ``name`` says what was measured (train, validation), ``loop`` in which gradient loop."""
        wall_s = round(time.time() - self._started, 3)
        append_json(
            self.path, {"name": name, "loop": loop, "step": step, "epoch": epoch, "wall_s": wall_s, **more, **metrics}
        )
        if self._events is not None:
            numbers = {**metrics, **{key: value for key, value in more.items() if key != "total_steps"}}
            for key, value in numbers.items():
                self._tensorboard().add_scalar(f"{loop}/{name}/{key}", value, step)

    def note(self, file: str, said: str, record: Mapping[str, Any]) -> None:
        """Append a record to another file of the run, and say it."""
        append_json(self.path.with_name(file), record)
        log.warning("%s", said)

    def close(self) -> None:
        """Flush the event file."""
        if self._writer is not None:
            self._writer.close()

    def _tensorboard(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import (
                SummaryWriter,
            )  # takes over a second: only when there is something to say

            self._writer = SummaryWriter(str(self._events), purge_step=self._purge)
        return self._writer
