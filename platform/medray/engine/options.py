"""The settings every job shares. They are its flags too; importing this starts nothing and needs no Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medray.errors import UserError

Precision = Literal["fp32", "bf16", "fp16"]
BadSamples = Literal["fail", "quarantine"]


@dataclass(frozen=True, kw_only=True)
class PlaceOptions:
    """Where a run reads, writes and computes."""

    data: str
    """Data source: phantom:abdomen?n=20&seed=0, a folder, a CSV or Parquet manifest, s3://bucket/folder, or
    deformed:FOLDER?moving=t1&fixed=flair."""
    out: str = "runs"
    """Folder that receives <system>/<run id>/: on this machine, on storage that every node sees, or s3://bucket/folder."""
    num_workers: int = 1
    """Training workers, one process each. The global batch stays the same. 0 trains in this process, without Ray."""
    min_workers: int = 0
    """Go on with as few workers as this when nodes are lost, and with more again when nodes join; 0 keeps the number
    fixed and waits for a replacement."""
    use_gpu: bool = False
    """One GPU per worker."""
    max_failures: int = 3
    """How many times lost workers are replaced before the run gives up; -1 never gives up."""
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


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How a gradient loop computes, feeds itself and saves itself; the same on every worker."""

    seed: int = 0
    """Decides the split, the order of samples, every augmentation and the initial weights."""
    precision: Precision = "fp32"
    """Arithmetic of the networks' forward passes; geometry and losses stay in float32."""
    compile: bool = False
    """Compile the networks with torch.compile; the first steps take longer."""
    channels_last: bool = False
    """Keep images and convolution weights with the channels as the last axis in memory; faster on some GPUs."""
    deterministic: bool = False
    """Only deterministic algorithms, at some cost in speed; on the CPU, runs are reproducible without it."""
    shard: bool = False
    """Spread weights, gradients and optimizer state over the workers (FSDP2), for networks that one GPU cannot hold."""
    bad_samples: BadSamples = "fail"
    """What a case that cannot be read does: stop the run, or be set aside and listed in the run."""
    skip_nonfinite: int = 0
    """How many updates with a loss or gradient that is not finite may be left out before the run stops."""
    loader_workers: int = -1
    """Processes per worker that prepare batches ahead, each with a core; 0 prepares them between steps, -1 starts some
    (on cores that are free) only if steps wait for data."""
    cache_memory_gb: float = 2.0
    """How much of what was decoded and resampled each process keeps in memory, at most."""
    cache_disk_gb: float = 0.0
    """How much of it stays on each node's disk for later runs, at most (MEDRAY_CACHE says where); 0 writes nothing."""
    checkpoint_every_steps: int = 0
    """Also checkpoint inside an epoch, every so many updates; 0 leaves that to --checkpoint-every-minutes."""
    checkpoint_every_minutes: float = 10.0
    """Also checkpoint inside an epoch when so many minutes have passed since the last one; 0 never does."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay, beside the best."""

    def __post_init__(self) -> None:
        for name, least in (("cache_memory_gb", 0), ("cache_disk_gb", 0),
                            ("checkpoint_every_steps", 0), ("checkpoint_every_minutes", 0), ("skip_nonfinite", 0),
                            ("keep_checkpoints", 1), ("loader_workers", -1)):  # fmt: skip
            if getattr(self, name) < least:
                raise UserError(f"--{name.replace('_', '-')} is {least} or more, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class RunOptions(LoopOptions, PlaceOptions):
    """Where a run reads, writes and computes, and how."""

    def __post_init__(self) -> None:
        PlaceOptions.__post_init__(self)
        LoopOptions.__post_init__(self)

    @property
    def cpus_per_worker(self) -> int:
        """Cores that each worker asks Ray for: its own, and one for each process it was told to start."""
        return 1 + max(0, self.loader_workers)


OPERATIONAL = frozenset({
    "num_workers", "min_workers", "max_failures", "skip_nonfinite", "loader_workers", "cache_memory_gb",
    "cache_disk_gb", "checkpoint_every_steps", "checkpoint_every_minutes", "keep_checkpoints",
})  # fmt: skip
"""Options that change how a run gets to its result and not the result: a resumed run may be given others."""
