"""What saving costs training, and what coming back costs.

    python tests/benchmarks/bench_checkpoints.py [--seconds 40] [--every-s 10] [--million-weights 10] [--rounds 3]

A network of so many weights under Adam (three times that is saved) trains in this process with a checkpoint every few
seconds. Stall: time that steps waited, as the run itself reports it (`checkpoint_ms`). Then the same is killed half way
by SIGKILL and started again in a new interpreter: time to its first step, and how many steps it repeated.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from medray.engine.loop import LoopSettings, run_loop
from medray.engine.options import LoopOptions
from medray.engine.rundir import read_json_lines
from medray.engine.world import World
from medray.learner import Learner, Schedule, Step, SumCount


class Dense(Learner):
    """So many weights, and steps that take tens of milliseconds."""

    def __init__(self, million_weights: float, num_steps: int, note: Path | None = None) -> None:
        super().__init__()
        width = int((million_weights * 1e6 / 4) ** 0.5)
        self.networks = nn.ModuleDict({"net": nn.Sequential(*(nn.Linear(width, width) for _ in range(4)))})
        self.x = torch.randn(64, width)
        self.schedule = Schedule(num_epochs=1, batch_size=8, validate_every_epochs=0)
        self.num_steps, self.note = num_steps, note

    def configure_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam keeps two more numbers per weight."""
        return {"net": torch.optim.Adam(self.networks.parameters(), lr=1e-6)}

    def num_samples(self) -> int:
        """Enough for the steps."""
        return 8 * self.num_steps

    def collate(self, indices: Sequence[int], epoch: int) -> Tensor:
        """Always the same."""
        return self.x

    def training_step(self, batch: Tensor, step: Step) -> Mapping[str, SumCount]:
        """One update; notes when it happened."""
        if self.note is not None:
            with self.note.open("a") as file:
                file.write(f"{step.index} {time.time()}\n")
        loss = self.networks["net"](batch).square().sum()
        step.backward(step.mean(loss, batch.numel()))
        step.update("net")
        return {"loss": SumCount(loss.detach(), batch.numel())}


def fit(folder: Path, million_weights: float, num_steps: int, every_s: float, note: Path | None = None) -> None:
    """Train through the engine."""
    options = LoopOptions(checkpoint_every_minutes=every_s / 60, loader_workers=0)
    settings = LoopSettings(name="train", run=folder, options=options, tensorboard=False)
    run_loop(lambda: Dense(million_weights, num_steps, note), World(), settings)


def steps_per_second(million_weights: float) -> float:
    """Of a few steps."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "note"
        fit(Path(folder), million_weights, 12, 0, note)
        times = [float(line.split()[1]) for line in note.read_text().splitlines()]
    return 1 / statistics.median(after - before for before, after in itertools.pairwise(times[2:]))


def stall(arguments: argparse.Namespace, num_steps: int) -> tuple[float, float, int]:
    """Share of the time that steps waited, milliseconds per checkpoint, and how many there were."""
    with tempfile.TemporaryDirectory() as folder:
        fit(Path(folder), arguments.million_weights, num_steps, arguments.every_s)
        records = [r for r in read_json_lines(Path(folder) / "metrics.jsonl") if r["name"] == "speed"]
    window = num_steps / len(records)
    waited = sum(r["checkpoint_ms"] for r in records) * window
    total = sum(r["step_ms"] for r in records) * window
    count = max(1, round(total / 1000 / arguments.every_s))
    return waited / total, waited / count, count


def resume(arguments: argparse.Namespace, num_steps: int) -> tuple[float, int, float]:
    """Seconds to the first step of a new interpreter, steps repeated, seconds of training repeated."""
    again = [sys.executable, __file__, "--child", "--every-s", str(arguments.every_s), "--steps", str(num_steps),
             "--million-weights", str(arguments.million_weights), "--folder"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "note"
        first = subprocess.Popen([*again, folder])
        while not note.exists() or len(note.read_text().splitlines()) < num_steps // 2:
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        first.wait()
        done = int(note.read_text().split("\n")[-2].split()[0])
        killed = time.time()
        second = subprocess.Popen([*again, folder])
        lines = len(note.read_text().splitlines())
        while len(note.read_text().splitlines()) < lines + 2:
            time.sleep(0.02)
        index, when = note.read_text().splitlines()[lines].split()
        second.kill()
        second.wait()
    repeated = done + 1 - int(index)
    return float(when) - killed, repeated, repeated / num_steps * arguments.seconds


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--every-s", type=float, default=10)
    parser.add_argument("--million-weights", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.child:
        fit(arguments.folder, arguments.million_weights, arguments.steps, arguments.every_s, arguments.folder / "note")
        return
    num_steps = int(arguments.seconds * steps_per_second(arguments.million_weights))
    print(f"{arguments.million_weights:g} M weights, {num_steps} steps, load {os.getloadavg()[0]:.1f}")
    shares = []
    for _ in range(arguments.rounds):
        share, each_ms, count = stall(arguments, num_steps)
        shares.append((share, each_ms))
        print(f"checkpoint every {arguments.every_s:g} s ({count}): steps waited {share:.2%} of the time, "
              f"{each_ms:.0f} ms each")  # fmt: skip
    median_ms = statistics.median(each for _, each in shares)
    print(f"median {statistics.median(share for share, _ in shares):.2%} at this interval, "
          f"{median_ms / 6000:.3f}% at the default of ten minutes")  # fmt: skip
    costs = [resume(arguments, num_steps) for _ in range(arguments.rounds)]
    for seconds, repeated, repeated_s in costs:
        print(f"killed: {seconds:.1f} s to the first step, {repeated} steps ({repeated_s:.1f} s) repeated")
    print(f"median start {statistics.median(cost[0] for cost in costs):.1f} s")


if __name__ == "__main__":
    main()
