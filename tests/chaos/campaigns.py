"""Campaigns of active learning whose actors, driver and nodes are killed, at moments that the seed decides.

python -m tests.chaos.campaigns FOLDER       a driver to be killed: a Ray of its own, and a campaign from wherever it is
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from clusters import Beside, Nodes, nodes
from toy_campaigns import toy_campaign

from medray.active.campaign import CampaignResult
from medray.active.lead import run_campaign
from medray.engine.options import RunOptions
from medray.engine.ray_train import RayWorkbench, ray_session
from medray.engine.rundir import read_json_lines
from medray.engine.team import SEATS
from medray.engine.workbench import InProcessWorkbench
from tests.chaos.on_ray import Driver

OPTIONS = RunOptions(data="", max_failures=-1, checkpoint_every_steps=2)
ROUNDS = 6
_PAUSE_S = 0.03
_PATIENCE_S = 240.0
MEMBERS = ("pool", "learner", "sampler", "oracle")


def undisturbed(folder: Path) -> dict[str, Any]:
    """The same campaign without Ray, and nobody killed."""
    campaign = toy_campaign(rounds=ROUNDS)
    return course(run_campaign(InProcessWorkbench(folder, OPTIONS, quiet=True, tensorboard=False), campaign))


def course(result: CampaignResult) -> dict[str, Any]:
    """All that a kill must not change."""
    told = [[r.number, r.num_labelled, r.picks, r.pick_scores, dict(r.scores)] for r in result.records]
    answers = [[answer.case, answer.value] for answer in result.answers]
    return json.loads(json.dumps({"rounds": told, "answers": answers, "rows": list(result.rows)}))


def with_actors_killed(folder: Path, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Each member is killed twice, then a whole node. Returns the course and who was killed."""
    rng = random.Random(seed)
    killed: list[str] = []
    with nodes(2) as cluster:
        beside = Beside(
            lambda: run_campaign(RayWorkbench(folder, OPTIONS), toy_campaign(rounds=ROUNDS, pause_s=_PAUSE_S))
        )
        for member in rng.sample(MEMBERS * 2, 2 * len(MEMBERS)):
            process = _process_of(folder, member, beside)
            time.sleep(rng.uniform(0.0, 1.5))
            process.kill()
            process.wait(10)  # else it might be taken for the one that comes after it
            killed.append(member)
        beside.wait_until(partial(_alive, folder, "learner"))
        _replace_node_of(cluster, _process_of(folder, "learner", beside).pid)
        killed.append("node")
        return course(beside.result(_PATIENCE_S)), killed


def with_drivers_killed(folder: Path, seed: int, kills: int) -> dict[str, Any]:
    """The driver, and the Ray it started, are killed in the middle of a round and started anew."""
    rng = random.Random(seed)
    for kill in range(kills + 1):
        driver = Driver.of("tests.chaos.campaigns", folder)
        try:
            if kill == kills:
                driver.finish()
                break
            before = _lines(folder)
            _until(lambda before=before: _lines(folder) > before, driver.process.poll)  # type: ignore[misc]
            time.sleep(rng.uniform(0.0, 1.0))
            os.kill(driver.process.pid, signal.SIGKILL)
            driver.process.wait()
        finally:
            driver.close()
    told: dict[str, Any] = json.loads((folder / "course.json").read_text())
    return told


def _lines(folder: Path) -> int:
    """How often a member has begun to live, and checkpoints there are: a sign that a round is going on."""
    return len(list(folder.rglob("campaign/*/checkpoints/*/step-*"))) + len(list(folder.rglob("stages/*")))


def _until(condition: Callable[[], bool], over: Callable[[], Any]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert over() is None, "the driver ended before it was killed"
        assert time.monotonic() < deadline, "nothing went on"
        time.sleep(0.02)


def _pid(folder: Path, member: str) -> int:
    seats = list(read_json_lines(folder / "campaign" / member / SEATS))
    return int(seats[-1]["pid"]) if seats else 0


def _alive(folder: Path, member: str) -> bool:
    pid = _pid(folder, member)
    with suppress(psutil.NoSuchProcess):
        return bool(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _process_of(folder: Path, member: str, beside: Beside[Any]) -> psutil.Process:
    beside.wait_until(partial(_alive, folder, member))
    return psutil.Process(_pid(folder, member))


def _replace_node_of(cluster: Nodes, worker: int) -> None:
    family = {process.pid for process in psutil.Process(worker).parents()}
    node = next(node for node in cluster.alive if node.all_processes["raylet"][0].process.pid in family)
    cluster.kill(node)
    cluster.add()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with ray_session(2):
        result = run_campaign(RayWorkbench(folder, OPTIONS), toy_campaign(rounds=ROUNDS, pause_s=_PAUSE_S))
    (folder / "course.json").write_text(json.dumps(course(result)))
