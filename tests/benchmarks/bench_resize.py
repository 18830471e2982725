"""How long an elastic run stands still when one of its two nodes is killed, and when a node joins.

    python tests/benchmarks/bench_resize.py [--rounds 6] [--slow-cluster]

Both nodes are on this machine; the kill is SIGKILL of the raylet and every process under it. Absolute seconds: the load
average is printed beside them.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
if "RAY_AUTH_MODE" not in os.environ:
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from clusters import QUICK_NODE_DEATH, Beside, nodes
from toy_learners import Regression

from medray.engine.options import RunOptions
from medray.engine.ray_train import RayWorkbench
from medray.learner import Step


class Ticking(Regression):
    """Leaves a file named after the number of workers at every step; takes its time until told to end."""

    def __init__(self, folder: Path, num_epochs: int) -> None:
        super().__init__(num_epochs=num_epochs)
        self.folder = folder

    def training_step(self, batch: dict[str, Any], step: Step) -> Any:
        if not (self.folder / "end").exists():
            time.sleep(0.2)
        metrics = super().training_step(batch, step)
        if os.environ["RANK"] == "0":
            (self.folder / os.environ["WORLD_SIZE"]).write_text("")
        return metrics

    def num_validation_samples(self) -> int:
        return 0


def main() -> None:
    """Print every round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--slow-cluster", action="store_true", help="Ray's own patience with nodes that do not answer")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {"shrink": [], "grow": []}
    with (
        tempfile.TemporaryDirectory() as name,
        nodes(2, environment={} if arguments.slow_cluster else QUICK_NODE_DEATH) as cluster,
    ):
        folder = Path(name)
        options = RunOptions(data="", num_workers=2, min_workers=1, max_failures=-1, checkpoint_every_steps=5)
        work = RayWorkbench(folder / "run", options)
        fit = Beside(functools.partial(work.fit, functools.partial(Ticking, folder, 100 * arguments.rounds)))
        fit.wait_until((folder / "2").exists)
        for number in range(arguments.rounds):
            for what, size in (("shrink", "1"), ("grow", "2")):
                time.sleep(3 + 10 * random.random())  # at any phase of Ray's own rounds
                (folder / size).unlink(missing_ok=True)
                if what == "shrink":
                    cluster.kill(cluster.alive[-1])
                else:
                    cluster.add()
                began = time.monotonic()
                fit.wait_until((folder / size).exists)
                seconds[what].append(time.monotonic() - began)
                print(f"round {number}: {what} {seconds[what][-1]:.1f} s, load {os.getloadavg()[0]:.1f}", flush=True)
        (folder / "end").touch()
        fit.result()
    for what, each in seconds.items():
        print(f"{what}: median {statistics.median(each):.1f} s, worst {max(each):.1f} s of {len(each)}")


if __name__ == "__main__":
    main()
