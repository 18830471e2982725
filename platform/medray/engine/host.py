"""What a gradient loop asks of the process around it: should I stop, where do my files last, who watches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class Host:
    """Nobody stops it, its files stay where they are written, and nobody watches: a loop on its own.

    The engine's hosts override what they can do better: `workbench` hears Ctrl-C, `ray_train` asks an actor and exports
    metrics, `mirror` copies files to object storage.
    """

    def stop_requested(self) -> bool:
        """Whether to checkpoint and end after this step. The first worker asks at every step: be quick."""
        return False

    def observe(self, name: str, metrics: Mapping[str, float]) -> None:
        """Numbers that were just logged under ``name``."""

    def fetch_checkpoints(self, folder: Path) -> None:
        """Before resuming: make what is durable elsewhere visible in the local folder of checkpoints."""

    def saved(self, checkpoint: Path) -> None:
        """A checkpoint was written whole; called in the background, may take its time and raise."""

    def finish(self) -> None:
        """The loop has written its last file; return when everything is durable."""
