"""Registration with SUTS against elastix: accuracy and CPU time on the same pairs, one core, one run.

    python tests/benchmarks/bench_registration.py --data DIR                           hand-crafted MIND features
    python tests/benchmarks/bench_registration.py --data DIR --checkpoint RUN --test patient07   and learned ones

DIR holds co-registered modalities of patients (``patient/t1.nii.gz``, ``patient/flair.nii.gz``). The moving one is
deformed by known fields, see `medray.data.deformed`. RUN is a training run of the preset brain on other patients.
The table gives the mean end-point error in the brain, folded pixels, CPU seconds per pair (features included), and
their ratio to elastix. Then the throughput at batch 1, 8 and 32, and where the time of one grid update goes.
Not a test: numbers depend on the machine, ratios much less.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medray.classical.elastix import register_elastix
from medray.data.case import Case
from medray.data.deformed import deformed_cases
from medray.data.intensity import normalize_intensity
from medray.engine.models import load_model
from medray.metrics.registration import end_point_error_px, folded_pixels
from medray.nn.bspline import BSplineGrid
from medray.nn.grid_state import GridState
from medray.nn.warp import warp
from medray.nn.weights import load_network
from medray.systems.registration.suts import (
    FeaturePair,
    SutsConfig,
    advance,
    demons_step,
    pool,
    register,
)

FAST: dict[str, Any] = {
    "smooth_on": "bending",
    "smooth_weights": (0.03, 0.03, 0.03),
    "damping": 0.01,
    "mind_radius": 1,
    "mind_dilation": 1,
    "strides": (4, 2, 1),
    "iterations_per_scale": 30,
    "subintervals": 6,
    "grid_lr_decay": 0.05,
}
"""Where the grid updates are spent better than in the paper: pooled features at coarse scales, a step size that decays
(30 steps then settle as well as 300), and a penalty on bending instead of stretching."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """One pair as tensors, (1, 1, *shape) images; truth (1, D, *shape) in pixels; mask (1, *shape)."""

    moving: Tensor
    fixed: Tensor
    truth: Tensor
    mask: Tensor


def read(case: Case) -> Pair:
    """Load and normalize one case."""

    def image(name: str) -> Tensor:
        return torch.from_numpy(normalize_intensity(case.volume(name).array))[None]

    return Pair(
        moving=image("moving"),
        fixed=image("fixed"),
        truth=torch.from_numpy(case.volume("displacement").array)[None],
        mask=torch.from_numpy(case.volume("mask").array) > 0,
    )


def report(line: str) -> None:
    """One line for whoever waits."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def measure(name: str, align: Callable[[Pair], Tensor], pairs: Sequence[Pair], reference_s: float | None) -> float:
    """Register every pair, print a row of the table, return the median CPU time per pair in seconds."""
    errors, folded, count, seconds = [], 0.0, 0.0, []
    for pair in pairs:
        begin = time.process_time()
        displacement = align(pair)
        seconds.append(time.process_time() - begin)
        total, pixels = end_point_error_px(displacement, pair.truth, pair.mask)
        errors.append(float(total / pixels))
        bad, all_pixels = folded_pixels(displacement)
        folded, count = folded + float(bad), count + float(all_pixels)
    cpu_s = statistics.median(seconds)
    ratio = "" if reference_s is None else f"{reference_s / cpu_s:9.1f}x"
    report(
        f"{name:<34}{statistics.fmean(errors):9.3f}{max(errors):9.3f}{100 * folded / count:11.4f}{cpu_s:10.3f}{ratio}"
    )
    return cpu_s


def elastix(pair: Pair) -> Tensor:
    """The classical peer with its paper's settings."""
    return torch.from_numpy(register_elastix(pair.moving[0, 0].numpy(), pair.fixed[0, 0].numpy()))[None]


def suts(config: SutsConfig, network: FeaturePair) -> Callable[[Pair], Tensor]:
    """Features and registration of one pair."""

    @torch.no_grad()
    def align(pair: Pair) -> Tensor:
        moving, fixed = network(pair.moving, pair.fixed)
        return register(moving, fixed, config)

    return align


@torch.no_grad()
def throughput(pairs: Sequence[Pair], config: SutsConfig, network: FeaturePair) -> None:
    """CPU time per pair at batch 1, 8 and 32."""
    report("\nbatch   CPU s per pair")
    for size in (1, 8, 32):
        batch = [pairs[index % len(pairs)] for index in range(size)]
        moving, fixed = torch.cat([p.moving for p in batch]), torch.cat([p.fixed for p in batch])
        begin = time.process_time()
        register(*network.forward(moving, fixed), config)
        report(f"{size:5d}{(time.process_time() - begin) / size:12.3f}")


@torch.no_grad()
def breakdown(pair: Pair, config: SutsConfig, network: FeaturePair) -> None:
    """Milliseconds of one grid update at every scale, by part."""
    features = network(pair.moving, pair.fixed)
    report("\nspacing stride   update ms =  warp  Demons  spline  rest")
    for scale, (spacing, stride) in enumerate(zip(config.grid_spacing, config.strides, strict=True)):
        moving, fixed = pool(features[0], stride), pool(features[1], stride)
        grid = BSplineGrid(pair.moving.shape[2:], spacing, stride=stride)
        state = GridState.start(torch.zeros(1, 2, *grid.knots))
        field = grid.dense(state.control)
        parts = [
            timed(lambda: advance(moving, fixed, state, grid, scale, 1, config)),  # noqa: B023  called at once
            timed(lambda: warp(moving, field)),  # noqa: B023
            timed(lambda: demons_step(moving, fixed, config.damping)),  # noqa: B023
            timed(lambda: grid.adjoint_mean(grid.dense(state.control))),  # noqa: B023
        ]
        rest = parts[0] - sum(parts[1:])
        report(f"{spacing:7d}{stride:7d}{parts[0]:12.2f}{parts[1]:8.2f}{parts[2]:8.2f}{parts[3]:8.2f}{rest:6.2f}")


def timed(function: Callable[[], object], repeats: int = 30) -> float:
    """Median CPU milliseconds of a call."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        function()
        times.append(time.process_time() - begin)
    return 1e3 * statistics.median(times)


def parse() -> argparse.Namespace:
    """Flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of patients with co-registered modalities")
    parser.add_argument("--moving", default="t1", help="modality that is deformed")
    parser.add_argument("--fixed", default="flair", help="modality that is met")
    parser.add_argument("--test", help="patient to register; the last one by default")
    parser.add_argument("--pairs", type=int, default=12, help="test pairs")
    parser.add_argument("--checkpoint", type=Path, help="a run of the preset brain, trained on other patients")
    parser.add_argument("--skip-paper", action="store_true", help="leave out the rows with the paper's 3 x 300 updates")
    return parser.parse_args()


def spread(cases: Sequence[Case], count: int) -> list[Pair]:
    """``count`` of the cases, evenly over the list, read."""
    return [read(cases[int(index)]) for index in np.linspace(0, len(cases) - 1, min(count, len(cases)))]


def main() -> None:
    """Register, print."""
    args = parse()
    torch.set_num_threads(1)
    cases = deformed_cases(args.data, args.moving, args.fixed, every=2)
    test = args.test or cases[-1].patient
    pairs = spread([case for case in cases if case.patient == test], args.pairs)
    fast = SutsConfig(**FAST)
    network, append_mind = None, False
    if args.checkpoint:
        system, trained, _ = load_model(args.checkpoint, expect="suts")
        append_mind = system.config.append_mind
        network = FeaturePair(dataclasses.replace(fast, append_mind=append_mind))
        load_network(network, trained.weights or args.checkpoint, prefix="features.")
    report(f"\n{len(pairs)} pairs of {test}, {tuple(pairs[0].moving.shape[2:])} px, one core")
    report(f"{'':<34}{'EPE px':>9}{'worst':>9}{'folded %':>11}{'CPU s':>10}{'elastix /':>10}")
    measure("unregistered", lambda pair: torch.zeros_like(pair.truth), pairs, None)
    elastix(pairs[0])  # the first call loads ITK
    reference_s = measure("elastix, MI, affine + B-spline", elastix, pairs, None)
    cnn = "cnn + mind" if append_mind else "cnn"
    kinds: dict[str, tuple[SutsConfig, FeaturePair]] = {}
    mind = dataclasses.replace(fast, features="mind")
    kinds["mind"] = (mind, FeaturePair(mind))
    if network is not None:
        kinds[cnn] = (dataclasses.replace(fast, append_mind=append_mind), network)
    rows = [(f"{kind}, 3 x {fast.iterations_per_scale}, fast", *kinds[kind]) for kind in kinds]
    if not args.skip_paper:
        settled: dict[str, Any] = {"iterations_per_scale": 300, "subintervals": 60}
        rows += [(f"{kind}, 3 x 300, fast", dataclasses.replace(c, **settled), n) for kind, (c, n) in kinds.items()]
        paper = SutsConfig(damping=fast.damping)
        rows += [(f"{kind}, 3 x 300, paper", paper, features) for kind, (_, features) in kinds.items()]
    for name, config, features in rows:
        measure(name, suts(config, features), pairs, reference_s)
    name, config, features = rows[len(kinds) - 1]
    report(f"\n{name}")
    throughput(pairs, config, features)
    breakdown(pairs[0], config, features)


if __name__ == "__main__":
    main()
