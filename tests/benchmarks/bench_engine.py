"""What the engine costs: SUTS training steps through it against the same steps in a bare PyTorch loop.

    python tests/benchmarks/bench_engine.py [--rounds 5] [--steps 40]

Both run in this process, in turns, on the same pairs and weights; what counts is the ratio of CPU time, round by round.
Start-up, checkpoints at the end and logging are inside the engine's time.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import tempfile
import time
from pathlib import Path

import torch

from medray.data.sources import open_source
from medray.engine.loop import LoopSettings, run_loop
from medray.engine.seeding import seed_everything
from medray.engine.world import World
from medray.learner import Learner, Step
from medray.systems.registration.pair_reader import PairReader
from medray.systems.registration.suts_learner import SutsLearner
from medray.systems.registration.suts_system import Suts


class Prepared:
    """Hands out learners with the data already loaded, so that only steps are compared."""

    def __init__(self, num_steps: int) -> None:
        preset = Suts.presets["smoke"]
        config = Suts.config_class(**preset.config)
        subintervals = max(1, num_steps * config.batch_size // 9 // 3)
        iterations = subintervals * config.feature_every
        self.config = dataclasses.replace(config, subintervals=subintervals, iterations_per_scale=iterations)
        system = Suts(self.config)
        splits = system.split(open_source(preset.data), seed=0)
        refs = system._pairs(splits.train, "auto")
        reader = PairReader(system._work_grid(refs))
        self.pairs = [pair for ref in refs for pair in reader.load(ref)]

    def __call__(self) -> Learner:
        return SutsLearner(self.config, self.pairs, (), range(1, 7))


def bare(make: Prepared) -> int:
    """The loop of `medray.learner`'s docstring."""
    seed_everything(0, "init")
    learner = make()
    optimizers = learner.configure_optimizers()
    index = 0
    for epoch in range(learner.schedule.num_epochs):
        order = list(learner.order(epoch, 0))
        for start in range(0, len(order), learner.schedule.batch_size):
            batch = learner.collate(order[start : start + learner.schedule.batch_size], epoch)
            learner.training_step(batch, Step(optimizers, epoch=epoch, index=index))
            index += 1
    return index


def engine(make: Prepared, run: Path) -> int:
    """The same through `run_loop`."""
    settings = LoopSettings(name="train", run=run)
    return run_loop(make, World(), settings).step


def main() -> None:
    """Print the ratio of every round and the median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=120)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    make = Prepared(arguments.steps)
    ratios = []
    bare(make)  # warm-up
    for number in range(arguments.rounds):
        times = {}
        with tempfile.TemporaryDirectory() as folder:
            jobs = {"bare": functools.partial(bare, make), "engine": functools.partial(engine, make, Path(folder))}
            for name in sorted(jobs, reverse=bool(number % 2)):
                began = time.process_time()
                steps = jobs[name]()
                times[name] = time.process_time() - began
        ratios.append(times["bare"] / times["engine"])
        print(f"round {number}: {steps} steps, bare {times['bare']:.2f} s, engine {times['engine']:.2f} s CPU, "
              f"throughput ratio {ratios[-1]:.3f}")  # fmt: skip
    print(f"engine / bare throughput, median of {len(ratios)}: {statistics.median(ratios):.3f} (at least 0.97 wanted)")


if __name__ == "__main__":
    main()
