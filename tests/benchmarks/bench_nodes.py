"""How the engine's own cost grows with the number of nodes and of samples, measured with a learner that does nothing.

    python tests/benchmarks/bench_nodes.py [--nodes 1 2 4 8] [--samples 1000 1000000] [--steps 500] [--rounds 3]

Nodes are simulated on this machine with one CPU each; the number of steps is the same for every number of samples (the
batch grows). Prints a Markdown table of medians over rounds:

* between steps, ms: the first worker's time from the end of one step to the start of the next, median over steps;
* adding up, ms: of `Step.mean` and `Step.update`, where workers wait for each other. With more nodes than cores they
  take turns on them, and that is most of this number;
* controller: CPU time of Ray Train's controller process per step, which must not grow with the number of samples. It
  polls by the clock, so it is also given per second.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
if "RAY_AUTH_MODE" not in os.environ:
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import psutil
import torch
from clusters import Beside, nodes
from torch import nn
from torch.optim import SGD, Optimizer

from medray.engine.options import RunOptions
from medray.engine.ray_train import RayWorkbench
from medray.learner import Learner, Schedule, Step, SumCount

PAUSE_S = 0.02
"""Stands for a step's work. A run has to last for seconds: processes' CPU time comes in units of 10 ms."""
WARM_UP = 20


class Idle(Learner):
    """One weight and one update per step, nothing computed. The first worker notes its times at two steps."""

    def __init__(self, num_samples: int, num_steps: int, notes: Path) -> None:
        super().__init__()
        self.networks = nn.ModuleDict({"net": nn.Linear(1, 1)})
        self.schedule = Schedule(num_epochs=1, batch_size=num_samples // num_steps, validate_every_epochs=0)
        self.total, self.num_steps, self.notes = num_samples, num_steps, notes
        self.between_s: list[float] = []
        self.adding_s: list[float] = []
        self.left = 0.0

    def configure_optimizers(self) -> dict[str, Optimizer]:
        return {"net": SGD(self.networks.parameters(), lr=0.0)}

    def num_samples(self) -> int:
        return self.total

    def collate(self, indices: Sequence[int], epoch: int) -> int:
        return len(indices)

    def training_step(self, batch: int, step: Step) -> dict[str, SumCount]:
        entered = time.perf_counter()
        time.sleep(PAUSE_S)
        loss = self.networks["net"](torch.zeros(1, 1)).sum()
        before = time.perf_counter()
        step.backward(step.mean(loss, batch))
        step.update("net")
        if step.index > WARM_UP:
            self.between_s.append(entered - self.left)
            self.adding_s.append(time.perf_counter() - before)
        if step.index in (WARM_UP, self.num_steps - 1) and os.environ["RANK"] == "0":
            partial = self.notes / "partial"
            partial.write_text(json.dumps({"between_s": self.between_s, "adding_s": self.adding_s}))
            partial.rename(self.notes / ("warm" if step.index == WARM_UP else "done"))
        self.left = time.perf_counter()
        return {"loss": SumCount(loss.detach(), batch)}


def controller() -> psutil.Process:
    """Ray Train's controller, among this process's descendants."""
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::TrainContr"):
            return process
    raise RuntimeError("no Ray Train controller runs")


def measure(num_workers: int, num_samples: int, num_steps: int) -> dict[str, float]:
    """One run on the running cluster."""
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder)
        work = RayWorkbench(notes / "run", RunOptions(data="", num_workers=num_workers))
        began = time.monotonic()
        fit = Beside(functools.partial(work.fit, functools.partial(Idle, num_samples, num_steps, notes)))
        marks = []
        for name in ("warm", "done"):
            fit.wait_until((notes / name).exists)
            cpu = controller().cpu_times()
            marks.append((time.monotonic(), cpu.user + cpu.system))
        fit.result()
        times = json.loads((notes / "done").read_text())
    steps = num_steps - 1 - WARM_UP
    cpu_s, wall_s = marks[1][1] - marks[0][1], marks[1][0] - marks[0][0]
    return {
        "start_s": marks[0][0] - began,
        "between_ms": 1e3 * statistics.median(times["between_s"]),
        "adding_ms": 1e3 * statistics.median(times["adding_s"]),
        "step_ms": 1e3 * wall_s / steps,
        "controller_ms_per_step": 1e3 * cpu_s / steps,
        "controller_ms_per_s": 1e3 * cpu_s / wall_s,
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--samples", type=int, nargs="+", default=[1_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, {arguments.steps} steps a run, medians of {arguments.rounds} runs\n")
    print("| nodes | samples | start to step 20, s | between steps, ms | adding up, ms | whole step, ms "
          "| controller, CPU-ms per step | controller, CPU-ms per s | load |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for num_nodes in arguments.nodes:
        with nodes(num_nodes):
            runs = {
                (samples, number): measure(num_nodes, samples, arguments.steps)
                for number in range(arguments.rounds)
                for samples in arguments.samples
            }
        for samples in arguments.samples:
            rows = [runs[samples, number] for number in range(arguments.rounds)]
            cells = [statistics.median(row[name] for row in rows) for name in rows[0]]
            print(f"| {num_nodes} | {samples:,} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
