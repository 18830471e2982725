"""Images per second through BliMSR's degradation, and where the time goes.

    python tests/benchmarks/bench_degradation.py                   batches of 8 crops of 64, 256 and 512 px, one thread
    python tests/benchmarks/bench_degradation.py --device cuda

One JSON line per kind and size: milliseconds per image to draw the plan and to carry it out, images per second of both
together, and the milliseconds per image of each kind of step (measured in a second pass over the images one by one).
Not a test: milliseconds depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from medray.systems.super_resolution.degradation import DegradationSettings, Plan, degrade, draw_plan
from medray.systems.super_resolution.degradation_settings import ROUNDS, Kind


class Stopwatch:
    """Milliseconds by name, each measured until the device is done."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spent: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time of what is inside."""
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.spent[name] += 1e3 * (time.perf_counter() - started)


def by_step(high: torch.Tensor, plans: list[Plan], watch: Stopwatch) -> None:
    """Each image alone, each step by itself."""
    for image, plan in zip(high.split(1), plans, strict=True):
        for step in filter(None, plan.steps):
            with watch.measure(type(step).__name__):
                image = type(step).run(image, [step])


def measure(kind: Kind, side: int, batch: int, repeats: int, device: torch.device) -> dict[str, object]:
    """Over ``repeats`` batches, after one to warm up."""
    generator = torch.Generator().manual_seed(0)
    high = torch.rand(batch, 1, side, side, generator=generator).to(device)
    settings = DegradationSettings(kind=kind)
    whole, steps = Stopwatch(device), Stopwatch(device)
    for repeat in range(repeats + 1):
        with whole.measure("draw"):
            plans = [draw_plan(settings, (side, side), generator) for _ in range(batch)]
        with whole.measure("degrade"):
            degrade(high, plans)
        by_step(high, plans, steps)
        if not repeat:
            whole.spent.clear()
            steps.spent.clear()
    images = batch * repeats
    return {
        "kind": kind,
        "side_px": side,
        "draw_ms": round(whole.spent["draw"] / images, 3),
        "degrade_ms": round(whole.spent["degrade"] / images, 3),
        "images_per_s": round(1e3 * images / sum(whole.spent.values()), 1),
        "steps_ms": {
            name: round(spent / images, 3) for name, spent in sorted(steps.spent.items(), key=lambda item: -item[1])
        },
    }


def main() -> None:
    """Print a line per kind and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 256, 512])
    arguments = parser.parse_args()
    for kind in ROUNDS:
        for side in arguments.sides:
            print(json.dumps(measure(kind, side, arguments.batch, arguments.repeats, arguments.device)), flush=True)


if __name__ == "__main__":
    main()
