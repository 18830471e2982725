"""From `ray job submit` to the first training step on a warm cluster, and where the time goes.

    python tests/benchmarks/bench_start.py [--rounds 3]

Starts a cluster of its own on this machine (its own ports and folder), submits the default
SUTS job to it and reads the times off what the job leaves: the run directory (driver up, data checked), the checkpoint
of step 0 (worker up, learner built), the first record of training.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from clusters import job_cluster

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


def measure(environment: dict[str, str], out: Path) -> list[float]:
    """Seconds from submission to each milestone."""
    began = time.time()
    job = ["--no-wait", "--", sys.executable, str(ROOT / "jobs" / "suts.py"), "train", "--out", str(out), "--compare"]
    subprocess.run([RAY, "job", "submit", *job], env=environment, check=True, capture_output=True)
    submitted = time.time() - began
    found = [submitted]
    for pattern in ("suts/*/config.json", "suts/*/checkpoints/train/step-00000000", "suts/*/metrics.jsonl"):
        while not list(out.glob(pattern)):
            time.sleep(0.02)
        found.append(next(out.glob(pattern)).stat().st_ctime - began)
    while not list(out.glob("suts/*/result.json")):
        time.sleep(0.2)
    return found


def main() -> None:
    """Print each round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with job_cluster() as environment, tempfile.TemporaryDirectory() as folder:
        rounds = [measure(environment, Path(folder) / f"out{number}") for number in range(arguments.rounds)]
    names = ("submitted", "driver up, data checked", "worker up, learner built", "first record of training")
    for number, milestones in enumerate(rounds):
        print(f"round {number}: " + ", ".join(f"{what} {at:.1f} s" for what, at in zip(names, milestones, strict=True)))
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    print("median: " + ", ".join(f"{what} {at:.1f} s" for what, at in zip(names, medians, strict=True))
          + f"; load {os.getloadavg()[0]:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
