"""What a run writes down about itself: its settings before it starts, its result at the end."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medray.data.case import Source, Splits
from medray.engine.options import RunOptions
from medray.engine.rundir import RunDirectory, versions
from medray.system import Evaluation, Figure, System, Trained


def figures_of(trained: Trained, evaluation: Evaluation, variant: str) -> list[Figure]:
    """Its pictures; those of a variant compared carry its name, which the main one's do without."""
    figures = [*trained.figures, *evaluation.figures]
    if not variant:
        return figures
    return [replace(f, name=f"{variant}-{f.name}", caption=f"{variant}: {f.caption}") for f in figures]


def result_record(
    slug: str,
    variant: str,
    preset: str,
    seed: int,
    metrics: Mapping[str, float],
    seconds: float,
    samples_per_second: float,
    checkpoint: str | None,
    fingerprint: str,
) -> dict[str, Any]:
    """result.json: what was run, what it measured, and what with."""
    return {
        "system": slug,
        "variant": variant,
        "preset": preset,
        "seed": seed,
        "metrics": metrics,
        "seconds": round(seconds, 3),
        "samples_per_second": round(samples_per_second, 3),
        "checkpoint": checkpoint,
        "versions": versions(),
        "data_fingerprint": fingerprint,
    }


def describe(
    run: RunDirectory,
    system: System[Any],
    options: RunOptions,
    preset: str,
    variant: str,
    source: Source,
    splits: Splits,
) -> dict[str, Any]:
    """config.json: everything that decides what the run gives, and the command that started it."""
    return {
        "system": system.slug,
        "variant": variant,
        "preset": preset,
        "config": asdict(system.config),
        "defaults": asdict(system.config_class()),
        "options": asdict(replace(options, out=str(run).rsplit("/", 2)[0])),
        "data": {
            "spec": source.spec,
            "fingerprint": source.fingerprint,
            "splits": {role: [case.id for case in getattr(splits, role)] for role in ("train", "validation", "test")},
            "bad": [asdict(case) for case in source.bad],
        },
        "versions": versions(),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
