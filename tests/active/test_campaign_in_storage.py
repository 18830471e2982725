"""A campaign whose run lives in object storage: machines come and go, and people find it there."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_campaigns import toy_campaign

from medray.active.campaign import CampaignResult
from medray.active.lead import run_campaign
from medray.data.case import Volume
from medray.data.sources import open_source
from medray.data.writers import write_volume
from medray.engine.mirror import Mirror
from medray.engine.options import LoopOptions, RunOptions
from medray.engine.run import Interrupted, resume, train
from medray.engine.rundir import RunDirectory, read_json_lines
from medray.engine.workbench import InProcessWorkbench
from medray.storage import Folder
from medray.storage.local import local_copy
from medray.systems.active_learning.mvaal_config import PRESETS, MvaalConfig


@pytest.fixture
def another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Go on where nothing of the run is on the disk; the machine that was left is gone."""
    numbers = itertools.count()

    def move() -> None:
        shutil.rmtree(os.environ["MEDRAY_SCRATCH"], ignore_errors=True)
        monkeypatch.setenv("MEDRAY_SCRATCH", str(tmp_path / f"machine-{next(numbers)}"))

    monkeypatch.setenv("MEDRAY_SCRATCH", str(tmp_path / "none"))

    move()
    return move


class Stop(Exception):
    """The machine is gone."""


class Machine(InProcessWorkbench):
    """Is gone when so many stages have been begun; only what is in storage is left."""

    left = 0

    def stage(self, name: str, make: Any) -> Path:
        Machine.left -= 1
        if Machine.left == 0:
            raise Stop
        return super().stage(name, make)

    def nested(self, name: str) -> Machine:
        return Machine(self.out / name, self.options, mirror=self.mirror, quiet=True, tensorboard=False)


def machine(url: str) -> Machine:
    folder = local_copy(url, "driver")
    return Machine(folder, LoopOptions(), mirror=Mirror(folder, Folder(url)), quiet=True, tensorboard=False)


def course(result: CampaignResult) -> list[Any]:
    return [(r.number, r.num_labelled, r.picks, r.pick_scores, r.scores, r.histogram) for r in result.records]


def test_each_round_on_another_machine(tmp_path: Path, bucket: str, another_machine: Callable[[], None]) -> None:
    url, campaign = f"{bucket}/run", toy_campaign(rounds=2)
    stops = 0
    for left in itertools.count(3, 2):  # before each ranking, and before each round's end or the next one's training
        another_machine()
        Machine.left = left
        try:
            result = run_campaign(machine(url), campaign)
            break
        except Stop:
            stops += 1
    assert stops >= 3
    here = InProcessWorkbench(tmp_path / "here", quiet=True, tensorboard=False)
    assert course(result) == course(run_campaign(here, campaign))
    kinds = [json.loads(Folder(url).read(f"campaign/pool/ledger/{n:06d}.json"))["kind"] for n in range(8)]
    assert kinds == ["open", *["begin", "query", "answers"] * 2, "begin"]


def data(folder: Path) -> dict[str, bytes]:
    """Write images, and masks for the first ones. Returns all masks as PNG."""
    masks = {}
    for number, case in enumerate(open_source("phantom:brain_multimodal?n=14&validation=0&test=0&size=32").cases):
        array, mask = case.volume("image").array, case.volume("label").array > 0
        write_volume(Volume((255 * array / array.max()).astype(np.uint8), np.eye(4)), folder / f"image/{case.id}.png")
        stream = io.BytesIO()
        Image.fromarray(mask[0].astype(np.uint8)).save(stream, "PNG")
        masks[case.id] = stream.getvalue()
        if number < 8:
            (folder / "label").mkdir(exist_ok=True)
            (folder / f"label/{case.id}.png").write_bytes(masks[case.id])
    return masks


def test_people_label_in_the_bucket(tmp_path: Path, bucket: str, another_machine: Callable[[], None]) -> None:
    masks = data(tmp_path / "data")
    small = {**PRESETS["smoke"].config, "sampler": "random", "task_epochs": 1, "budget": 3, "rounds": 2}
    config = MvaalConfig(**{**small, "oracle": "human", "wait_hours": 1e-9})
    options = RunOptions(data=f"{tmp_path / 'data'}?image=image&label=label", out=bucket, num_workers=0)
    with pytest.raises(Interrupted) as stopped:
        train("mvaal", config, replace(options, compare=("random",)), preset="smoke", variant="mvaal")
    run = Folder(str(stopped.value.run))
    desk = run.folder("annotation")

    asked = list(csv.DictReader(io.StringIO(desk.read("round-000/worklist.csv").decode("utf-8-sig"))))
    assert desk.exists("round-000/index.html")
    first, second, third = (row["case"] for row in asked)
    assert states(run) == {"labelled": len(run_labels(run)), "queried": 3}
    desk.write(f"round-000/labels/{first}.png", masks[first])
    desk.write(f"round-000/labels/{second}.png", masks[second][:40])
    another_machine()
    with pytest.raises(Interrupted):
        resume(run.url)
    assert states(run)["queried"] == 2
    assert "damaged" in run.read("problems.csv").decode()

    desk.write(f"round-000/labels/{second}.png", masks[second])
    filled = f"case,label,status\n{third},,cannot label\n".encode()
    desk.write("round-000/worklist.csv", filled)
    another_machine()
    with pytest.raises(Interrupted):
        resume(run.url)
    for name in json.loads(desk.read("round-001/query.json"))["cases"]:
        desk.write(f"round-001/labels/{name}.png", masks[name])
    another_machine()
    done = resume(run.url)

    assert desk.read("round-000/worklist.csv") == filled
    known = states(run)["labelled"] - 5
    assert states(run) == {"labelled": known + 5, "rejected": 1}
    rounds = [r["num_labelled"] for r in read_json_lines(done.metrics_file) if r["name"] == "rounds"]
    assert rounds == [known, known + 2, known + 5]
    assert run.read("problems.csv").decode().count("damaged") == 1
    assert run.exists("report.html")


def states(run: Folder) -> dict[str, int]:
    """Cases by state, as the run's table in storage tells."""
    found = [row["state"] for row in csv.DictReader(io.StringIO(run.read("pool.csv").decode()))]
    return {state: found.count(state) for state in sorted(set(found))}


def run_labels(run: Folder) -> list[Any]:
    """What was known from the start."""
    known: list[Any] = json.loads(run.read("campaign/pool/ledger/000000.json"))["known"]
    return known


def test_what_was_fetched_is_not_sent_back(bucket: str, another_machine: Callable[[], None]) -> None:
    run = Folder(f"{bucket}/run")
    for name in ("config.json", "pool.csv", "annotation/round-000/labels/a.png"):
        run.write(name, b"{}")
    opened = RunDirectory.open(run.url)
    run.write("pool.csv", b"newer")
    run.delete("annotation/round-000/labels/a.png")
    opened.write_json("result.json", {})
    opened.publish()
    assert run.read("pool.csv") == b"newer"
    assert not run.exists("annotation/round-000/labels/a.png")
    assert run.exists("result.json")
