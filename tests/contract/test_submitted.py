"""Every job through `ray job submit`, on Ray Train workers and tasks, as users start it; every claim to its verdict.

python -m pytest tests/contract/test_submitted.py -m slow
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import job_cluster

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with job_cluster() as found:
        yield found


def _submit(environment: dict[str, str], slug: str, *arguments: str) -> list[str]:
    command = [RAY, "job", "submit", "--", sys.executable, str(ROOT / "jobs" / f"{slug}.py"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return (done.stdout + done.stderr).splitlines()


def test_the_job_runs_where_it_is_submitted(slug: str, environment: dict[str, str], tmp_path: Path) -> None:
    told = _submit(environment, slug, "train", "--out", str(tmp_path))
    runs = list((tmp_path / slug).glob("*/result.json"))
    assert len(runs) == 1, "\n".join(told[-20:])
    assert any(line.strip() == str(runs[0].parent) for line in told)
    assert (runs[0].parent / "report.html").is_file()


def test_the_claim_has_a_verdict(slug: str, environment: dict[str, str], tmp_path: Path) -> None:
    """Whether it holds is told by its page in docs/systems; that it comes to a verdict with numbers is held here."""
    told = _submit(environment, slug, "claim", "--out", str(tmp_path))
    found = list((tmp_path / slug).glob("*/claim.json"))
    assert len(found) == 1, "\n".join(told[-20:])
    verdict = json.loads(found[0].read_text())
    assert verdict["checks"]
    assert verdict["rows"]
    assert verdict["held"] == all(check["held"] for check in verdict["checks"])
