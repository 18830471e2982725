"""From `ray job submit` to the first training step on a warm cluster, and where the time goes.

    python tests/benchmarks/bench_start.py [--rounds 3]

Starts a cluster of its own on this machine (`ray start --head --block`, its own ports and folder), submits the default
SUTS job to it and reads the times off what the job leaves: the run directory (driver up, data checked), the checkpoint
of step 0 (worker up, learner built), the first record of training.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
    with tempfile.TemporaryDirectory(prefix="mr", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder, dashboard = Path(name), free_port()
        environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": name,
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
            "OMP_NUM_THREADS": "1",
        }
        head = [RAY, "start", "--head", "--block", f"--port={free_port()}", f"--dashboard-port={dashboard}",
                "--dashboard-host=127.0.0.1", f"--temp-dir={name}/ray", "--num-cpus=2", "--disable-usage-stats",
                f"--ray-client-server-port={free_port()}"]  # fmt: skip
        (folder / "ray").mkdir()
        with (folder / "head.log").open("wb") as log:
            cluster = subprocess.Popen(head, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            while subprocess.run([RAY, "job", "list"], env=environment, capture_output=True).returncode:
                time.sleep(1)
            rounds = [measure(environment, folder / f"out{number}") for number in range(arguments.rounds)]
        finally:
            os.killpg(cluster.pid, signal.SIGTERM)
            cluster.wait(60)
    names = ("submitted", "driver up, data checked", "worker up, learner built", "first record of training")
    for number, milestones in enumerate(rounds):
        print(f"round {number}: " + ", ".join(f"{what} {at:.1f} s" for what, at in zip(names, milestones, strict=True)))
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    print("median: " + ", ".join(f"{what} {at:.1f} s" for what, at in zip(names, medians, strict=True))
          + f"; load {os.getloadavg()[0]:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
