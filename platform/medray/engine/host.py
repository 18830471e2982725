"""What a gradient loop asks of the process around it: should I stop, where do my files last, who watches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medray.engine.mirror import Mirror


class Host:
    """Nobody stops it and nobody watches: a loop on its own. With a mirror, its files outlast the machine.

    `workbench` overrides this to hear Ctrl-C, `desk` to ask the driver and to export metrics.
    """

    def __init__(self, mirror: Mirror | None = None) -> None:
        self._mirror = mirror

    def stop_requested(self) -> bool:
        """Whether to checkpoint and end after this step. The first worker asks at every step: be quick."""
        return False

    def observe(self, name: str, metrics: Mapping[str, float]) -> None:
        """Numbers that were just logged under ``name``."""

    def fetch_checkpoints(self, folder: Path) -> None:
        """Before resuming: make what is durable elsewhere visible in the local folder of checkpoints."""
        if self._mirror is not None:
            self._mirror.fetch_checkpoints(folder)
            self._mirror.start()

    def saved(self, checkpoint: Path) -> None:
        """A checkpoint was written whole; told in the background."""
        if self._mirror is not None:
            self._mirror.nudge()

    def finish(self) -> None:
        """The loop has written its last file; return when everything is durable."""
        if self._mirror is not None:
            self._mirror.finish()
