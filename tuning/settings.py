"""The settings of a sweep; its flags too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from medray.engine.options import BadSamples, Precision
from medray.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """What to search, how, and with what."""

    system: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SYSTEM")] = ""
    """Name of the system; `medray list` shows them."""
    space: str = ""
    """A search space with a name (tuning/spaces); it brings dimensions, metrics and sizes, which other flags change."""
    search: tuple[str, ...] = ()
    """Dimensions: config.FIELD=KIND(...) with uniform(low,high), loguniform(low,high), quniform(low,high,step),
    int(low,high), logint(low,high), choice(a,b,...); ends are included."""
    set: tuple[str, ...] = ()
    """Fields that differ from the preset's in all trials: config.FIELD=VALUE."""
    metric: tuple[str, ...] = ()
    """What is optimized, as measured on the validation cases; several give a Pareto front."""
    mode: tuple[Literal["max", "min"], ...] = ()
    """Whether more or less of each metric is better."""
    trials: int = 20
    """How many configurations are tried; with the grid, all of them if there are fewer."""
    seeds: int = 1
    """Runs of each configuration, from --seed on; their mean is optimized, and the first decides on giving up early."""
    sampler: Literal["", "tpe", "random", "grid"] = ""
    """What chooses configurations: tpe learns from the trials before; grid goes through all choices in order."""
    scheduler: Literal["", "none", "asha", "median", "pbt"] = ""
    """When trials are given up early: asynchronous successive halving, below the median, never; or pbt, where the
    worst go on from the best with other settings."""
    stop_on: str = ""
    """The metric measured during training that --scheduler goes by; the first of --metric where left out."""
    stop_mode: Literal["", "max", "min"] = ""
    """Whether more or less of --stop-on is better, where it is none of --metric."""
    grace: int = 1
    """Epochs (or rounds) that no trial is given up before."""
    reduction: int = 3
    """asha: of so many trials one goes on at each rung."""
    perturb_every: int = 4
    """pbt: epochs or rounds between two comparisons, each at the first measurement after them."""
    concurrent: int = 0
    """Trials at a time; 0 runs as many as the cluster has room for."""
    preset: str = ""
    """Size of the trials; smoke unless the space says otherwise."""
    variant: str = ""
    """Form of the system; its first one where left out."""
    data: str = ""
    """Data source; the preset's where left out."""
    out: str = "runs"
    """Folder that receives sweeps/SYSTEM/ID/: here, on storage that every node sees, or s3://bucket/folder."""
    study: str = ""
    """Name of the Optuna study; sweeps that give the same name and storage feed one study."""
    storage: str = ""
    """Where the study lives: journal:///PATH, sqlite:////PATH, postgresql://... or mysql://...; a journal in the
    sweep's folder where left out."""
    num_workers: int = 0
    """Ray Train workers of each trial; 0 trains in the trial's own process, which starts in no time."""
    use_gpu: bool = False
    """A GPU for each trial, or for each of its workers."""
    precision: Precision = "fp32"
    """Arithmetic of the networks' forward passes."""
    bad_samples: BadSamples = "fail"
    """What a case that cannot be read does: stop the sweep, or be set aside."""
    seed: int = 0
    """Of the first run of each configuration, and of what chooses configurations."""
    max_failures: int = 2
    """How often a trial that fails is tried again, from its last checkpoint, before it is reported."""
    checkpoint_every_minutes: float = 2.0
    """How much work of a trial an interruption may cost, at most."""
    resume: str = ""
    """A sweep's folder to go on with, under its own settings; more --trials, another --concurrent or --max-failures,
    and a --storage whose password is not kept, may be given."""

    def __post_init__(self) -> None:
        least = {"trials": 1, "seeds": 1, "grace": 1, "reduction": 2, "perturb_every": 1, "concurrent": 0,
                 "num_workers": 0, "max_failures": 0, "checkpoint_every_minutes": 0}  # fmt: skip
        for name, number in least.items():
            if getattr(self, name) < number:
                raise UserError(f"--{name.replace('_', '-')} is {number} or more, got {getattr(self, name)}")
        if len(self.mode) > len(self.metric):
            raise UserError(f"--mode goes with --metric: got {len(self.mode)} modes for {len(self.metric)} metrics")
        if len(set(self.metric)) < len(self.metric):
            raise UserError(f"--metric names one twice: {' '.join(self.metric)}")


OPERATIONAL = frozenset({"trials", "concurrent", "max_failures", "checkpoint_every_minutes", "resume", "storage"})
"""What a resumed sweep may be given anew."""
