"""The chaos test: training runs killed by SIGKILL again and again must end as if nothing had happened.

    make chaos                                                        all scenarios, 6 to 13 minutes on 2 cores
    python -m tests.chaos --seed 7 --scenario process storage         other moments, fewer scenarios

Results to expect: a line for each kill, a line for each run that says "as if undisturbed", a table, and totals with
0 samples lost or repeated and a largest weight difference of 0. Exits with 1 when anything differs, when a process is
left over, or when a full run killed fewer than 20 times or missed a moment of training entirely.

The seed decides in which moment of a run each kill comes, after how many steps and how long into the moment; the
machine decides the rest, so two runs with one seed kill in the same manner and not at the same instruction.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import secrets
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.chaos import forked, on_ray
from tests.chaos.kills import all_moments
from tests.chaos.learners import LEARNERS
from tests.chaos.stage import MARK, Stage, leaked
from tests.chaos.verdict import failed

SCENARIOS: Mapping[str, Callable[[Stage], None]] = {
    "process": forked.process,
    "storage": forked.storage,
    "loader": forked.loader,
    "workers": on_ray.workers,  # those without Ray come first: they fork, and Ray leaves threads behind
    "driver": on_ray.driver,
    "nodes": on_ray.nodes,
}
_LEAST = 20
"""Kills in a full run."""


def main() -> int:
    """Play the scenarios and report; 0 if every promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="decides every kill")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--learner", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    parser.add_argument("--kills", type=int, default=99, help="at most so many in each training run")
    arguments = parser.parse_args()
    logging.getLogger("medray").addHandler(logging.NullHandler())  # the warnings of runs that are killed are theirs
    os.environ[MARK] = secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="medray-chaos-") as folder:
        stage = Stage(Path(folder), arguments.seed, arguments.learner, arguments.kills)
        for name in (name for name in SCENARIOS if name in arguments.scenario):
            _play(stage, name)
    full = set(arguments.scenario) == set(SCENARIOS) and arguments.kills >= parser.get_default("kills")
    return _report(stage, full=full)


def _play(stage: Stage, name: str) -> None:
    began = time.monotonic()
    try:
        SCENARIOS[name](stage)
    except Exception as error:  # the other scenarios still have something to say
        traceback.print_exc()
        stage.judge(name, "", failed(f"{type(error).__name__}: {error}"))
    if left := leaked(stage, name):
        stage.judge(name, "", failed(f"processes left over: {', '.join(left)}"))
    stage.seconds[name] = time.monotonic() - began


def _report(stage: Stage, *, full: bool) -> int:
    hits = Counter((kill.scenario, moment) for kill in stage.kills for moment in kill.moments)
    columns = list(stage.seconds)
    print("\nkills that hit a process ...".ljust(31) + "".join(f"{name:>9}" for name in columns) + "    total")
    for moment in all_moments():
        counts = [hits[name, moment] for name in columns]
        print(f"  {moment:28}" + "".join(f"{count:9}" for count in counts) + f"{sum(counts):9}")
    by_scenario = Counter(kill.scenario for kill in stage.kills)
    print(f"  {'kills':28}" + "".join(f"{by_scenario[name]:9}" for name in columns) + f"{len(stage.kills):9}")
    seconds = list(stage.seconds.values())
    print(f"  {'seconds':28}" + "".join(f"{value:9.0f}" for value in seconds) + f"{sum(seconds):9.0f}")
    problems = [
        f"{name} {learner}: {problem}" for name, learner, verdict in stage.verdicts for problem in verdict.problems
    ]
    survived = sum(sum(kill.scenario == name and kill.learner == learner for kill in stage.kills)
                   for name, learner, verdict in stage.verdicts if verdict.ok)  # fmt: skip
    missed = [moment for moment in all_moments() if not sum(hits[name, moment] for name in columns)]
    if full and missed:
        problems.append(f"no kill hit a process {', '.join(missed)}")
    if full and len(stage.kills) < _LEAST:
        problems.append(f"only {len(stage.kills)} kills")
    if not stage.kills:
        problems.append("nothing was killed")
    print(f"\nkills survived: {survived} of {len(stage.kills)}, in {len(stage.verdicts)} runs")
    print(f"samples lost or repeated: {sum(verdict.samples for *_, verdict in stage.verdicts):g}")
    print(f"largest weight difference: {max((verdict.weights for *_, verdict in stage.verdicts), default=0.0):g}")
    with contextlib.suppress(OSError):
        print(f"load average at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for problem in problems:
        print(f"PROBLEM {problem}")
    return 0 if not problems and all(verdict.ok for *_, verdict in stage.verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
