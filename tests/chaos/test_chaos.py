"""A part of `make chaos` that fits into every test run; see `python -m tests.chaos --help`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def kill_and_compare(*arguments: str) -> int:
    """Run the command, which judges by itself; returns how many kills its runs survived."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE, timeout=500
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-2000:]
    survived = re.search(r"kills survived: (\d+) of (\d+)", done.stdout)
    assert survived is not None
    assert survived[1] == survived[2]
    return int(survived[1])


@pytest.mark.parametrize(("scenario", "kills"), [("process", 4), ("storage", 3), ("loader", 2)])
def test_killed_without_ray(scenario: str, kills: int) -> None:
    assert kill_and_compare("--scenario", scenario, "--kills", str(kills)) >= 2 * kills


@pytest.mark.ray
def test_a_worker_killed_on_ray() -> None:
    assert kill_and_compare("--scenario", "workers", "--learner", "vae", "--kills", "1") == 1
