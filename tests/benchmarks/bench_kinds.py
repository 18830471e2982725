"""Where the time of each system's smoke run goes, in this process and without Ray.

    python tests/benchmarks/bench_kinds.py [--rounds 3] [SLUG ...]

Prints one line per system: seconds in all, and the share of each part in percent (medians over rounds). "data", "step",
"rest of train" (what is not a gradient loop) and "evaluate" do the work that the run is for; the others are what the
platform adds.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

PARTS = ("import", "check data", "data", "step", "checkpoint", "rest of loop", "rest of train", "evaluate", "report",
         "other")  # fmt: skip


class Stopwatch:
    """Seconds by name; what is called inside another part counts for the inner one only."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("check data", "fit", "train", "evaluate", "report"), 0.0)
        self._inside: list[float] = []

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time added to ``name``."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            self._inside.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - began
                self.seconds[name] += spent - self._inside.pop()
                if self._inside:
                    self._inside[-1] += spent

        return call


def smoke(slug: str, out: Path) -> dict[str, float]:
    """Run the smoke preset and take its time apart; seconds by part."""
    began = time.perf_counter()
    from medray import registry
    from medray.engine import run, workbench
    from medray.engine.options import RunOptions

    system, watch = registry.load(slug), Stopwatch()
    imported = time.perf_counter() - began
    preset = system.presets["smoke"]
    options = RunOptions(data=preset.data, out=str(out), num_workers=0, compare=preset.compare)

    def patched(owner: Any, attribute: str, name: str) -> Any:
        return mock.patch.object(owner, attribute, watch.timed(name, getattr(owner, attribute)))

    with contextlib.ExitStack() as stack:
        for owner, attribute, name in ((run, "checked_source", "check data"),
                                       (workbench.InProcessWorkbench, "fit", "fit"),
                                       (system, "train", "train"), (system, "evaluate", "evaluate"),
                                       (run, "write_report", "report")):  # fmt: skip
            stack.enter_context(patched(owner, attribute, name))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        folder = run.train(slug, system.config_class(**preset.config), options, preset="smoke",
                           variant=next(iter(system.variants))).path  # fmt: skip
    total = time.perf_counter() - began
    loops = dict.fromkeys(("data", "compute", "checkpoint"), 0.0)
    for log in folder.rglob("metrics.jsonl"):
        for part, seconds in _of_loops(log).items():
            loops[part] += seconds
    spent = watch.seconds
    known = {
        "import": imported,
        "check data": spent["check data"],
        "data": loops["data"],
        "step": loops["compute"],
        "checkpoint": loops["checkpoint"],
        "rest of loop": spent["fit"] - sum(loops.values()),
        "rest of train": spent["train"],
        "evaluate": spent["evaluate"],
        "report": spent["report"],
    }
    return {"total": total, **known, "other": total - sum(known.values())}


def _of_loops(log: Path) -> dict[str, float]:
    """Seconds of the steps that a log tells of."""
    found, at = dict.fromkeys(("data", "compute", "checkpoint"), 0.0), dict[str, int]()
    for line in log.read_text().splitlines():
        record = json.loads(line)
        if record["name"] == "speed":
            steps = record["step"] - at.get(record["loop"], 0)
            at[record["loop"]] = record["step"]
            for part in found:
                found[part] += record[f"{part}_ms"] * steps / 1000
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slugs", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as out:
            print(json.dumps(smoke(arguments.one, Path(out))))
        return
    from medray import registry

    print(f"{'system':18}{'seconds':>9}" + "".join(f"{part:>15}" for part in PARTS))
    for slug in arguments.slugs or sorted(registry.ENTRIES):
        rounds = []
        for _ in range(arguments.rounds):
            command = [sys.executable, __file__, "--one", slug]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            rounds.append(json.loads(told.splitlines()[-1]))
        shares = [statistics.median(100 * one[part] / one["total"] for one in rounds) for part in PARTS]
        seconds = statistics.median(one["total"] for one in rounds)
        print(f"{slug:18}{seconds:9.1f}" + "".join(f"{share:14.1f}%" for share in shares), flush=True)
    print(f"medians of {arguments.rounds}; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
