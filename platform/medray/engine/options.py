"""The settings every job shares. They are its flags too; importing this starts nothing and needs no Ray."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medray.errors import UserError

Precision = Literal["fp32", "bf16", "fp16"]
BadSamples = Literal["fail", "quarantine"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run reads, writes and computes."""

    data: str
    """Data source: phantom:abdomen?n=20&seed=0, a folder, a CSV or Parquet manifest, or
    deformed:FOLDER?moving=t1&fixed=flair."""
    out: Path = Path("runs")
    """Folder that receives <system>/<run id>/; needs to be visible to every worker."""
    num_workers: int = 1
    """Training workers, one process each. The global batch stays the same. 0 trains in this process, without Ray."""
    min_workers: int = 0
    """Go on with as few workers as this when nodes are lost, and with more again when nodes join; 0 keeps the number
    fixed and waits for a replacement."""
    use_gpu: bool = False
    """One GPU per worker."""
    precision: Precision = "fp32"
    """Arithmetic of the networks' forward passes; geometry and losses stay in float32."""
    seed: int = 0
    """Decides the split, the order of samples, every augmentation and the initial weights."""
    bad_samples: BadSamples = "fail"
    """What a case that cannot be read does: stop before training, or be set aside and listed in the run."""
    max_failures: int = 3
    """How many times lost workers are replaced before the run gives up; -1 never gives up."""
    checkpoint_every_steps: int = 0
    """Also checkpoint inside an epoch, every so many updates; 0 at the ends of epochs only."""
    compare: tuple[str, ...] = ()
    """Variants scored on the same test cases for the report's table; the preset's own choice when left out."""

    def __post_init__(self) -> None:
        if self.num_workers < 0:
            raise UserError(f"--num-workers is 0 (no Ray) or more, got {self.num_workers}")
        if not 0 <= self.min_workers <= self.num_workers:
            raise UserError(
                f"--min-workers is between 0 (fixed) and --num-workers {self.num_workers}, got {self.min_workers}"
            )
        if self.use_gpu and self.num_workers == 0:
            raise UserError("--use-gpu needs at least one worker; leave --num-workers at 1 or more")
        if self.checkpoint_every_steps < 0:
            raise UserError(f"--checkpoint-every-steps is 0 or more, got {self.checkpoint_every_steps}")
