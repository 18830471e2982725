"""Runs that live in object storage: nothing is lost with the machine, nor with storage that is away for a while."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from object_store import Store, object_store
from toy_learners import Diary

from medray.engine import mirror as mirror_module
from medray.engine.checkpoint import CheckpointStore
from medray.engine.host import Host
from medray.engine.loop import LoopSettings, run_loop
from medray.engine.mirror import Mirror
from medray.engine.options import LoopOptions, RunOptions
from medray.engine.run import evaluate, resume, train
from medray.engine.rundir import RunDirectory, read_json_lines
from medray.engine.world import World
from medray.errors import UserError
from medray.learner import Step
from medray.storage import Folder
from medray.systems.registration.suts_system import Suts

make = functools.partial(Diary, dropout=0.3, num_epochs=4)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with object_store() as running:
        yield running


@pytest.fixture
def bucket(store: Store, request: pytest.FixtureRequest) -> str:
    return store.bucket("runs-" + "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:50])


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDRAY_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(mirror_module, "_EVERY_S", 0.05)


def fit(make_learner: Any, machine: Path, url: str, *, patience_s: float = 20.0, **options: Any) -> Any:
    """Train as a machine would whose copy of the run is in ``machine``."""
    mirror = Mirror(machine, Folder(url, patience_s=patience_s))
    machine.mkdir(parents=True, exist_ok=True)
    settings = LoopSettings(name="train", run=machine, options=LoopOptions(**options), tensorboard=False)
    return run_loop(make_learner, World(), settings, Host(mirror))


def outcome(machine: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], list[Any]]:
    found = CheckpointStore(machine / "checkpoints" / "train").latest()
    assert found is not None
    records = [r for r in read_json_lines(machine / "metrics.jsonl") if r["name"] != "speed"]
    return found[0], found[1], [(r["name"], r["step"], r.get("loss"), r.get("mse")) for r in records]


def assert_same(got: Path, expected: Path) -> None:
    mine, reference = outcome(got), outcome(expected)
    assert all(torch.equal(mine[0][name], reference[0][name]) for name in reference[0])
    assert mine[2] == reference[2]
    visits = [state["sample_state"][index]["visits"].item() for state in (mine[1],) for index in range(11)]
    assert visits == [4.0] * 11


class Dies(Diary):
    """The machine is gone at a step: its process by SIGKILL, its disk with it."""

    def __init__(self, at: int, pause_s: float = 0.05, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.at, self.pause_s = at, pause_s

    def training_step(self, batch: Any, step: Step) -> Any:
        if step.index == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.pause_s)
        return super().training_step(batch, step)


def machine_that_dies(at: int, machine: Path, url: str, **options: Any) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            fit(functools.partial(Dies, at, dropout=0.3, num_epochs=4), machine, url, **options)
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    shutil.rmtree(machine)


def test_another_machine_goes_on_where_the_lost_one_had_uploaded(tmp_path: Path, bucket: str) -> None:
    fit(make, tmp_path / "whole", bucket + "/whole")
    for number, at in enumerate((3, 6, 9)):
        machine_that_dies(at, tmp_path / f"machine{number}", bucket + "/run", checkpoint_every_steps=1)
        steps = [name for name in Folder(bucket + "/run/checkpoints/train").names() if name.startswith("step-")]
        assert steps
    fit(make, tmp_path / "last", bucket + "/run")
    assert_same(tmp_path / "last", tmp_path / "whole")
    uploaded = Folder(bucket + "/run").read("metrics.jsonl")
    assert uploaded == (tmp_path / "last" / "metrics.jsonl").read_bytes()


def test_checkpoints_in_storage_are_those_kept_and_the_best(tmp_path: Path, bucket: str) -> None:
    fit(make, tmp_path / "run", bucket + "/run", checkpoint_every_steps=1)
    local = {path.name for path in (tmp_path / "run" / "checkpoints" / "train").glob("step-*")}
    remote = Folder(bucket + "/run/checkpoints/train")
    assert {name.rstrip("/") for name in remote.names() if name.startswith("step-")} == local
    assert remote.read("best").decode() in local


@pytest.mark.parametrize("outage_s", [0.5, pytest.param(30.0, marks=pytest.mark.slow)])
def test_an_outage_in_mid_run_loses_nothing(tmp_path: Path, store: Store, bucket: str, outage_s: float) -> None:
    fit(make, tmp_path / "whole", bucket + "/whole")
    with store.bad_network() as network:

        class Outage(Diary):
            def training_step(self, batch: Any, step: Step) -> Any:
                {3: network.refuse, 8: network.heal}.get(step.index, lambda: None)()
                time.sleep(outage_s / 5 if 3 <= step.index < 8 else 0.1)
                return super().training_step(batch, step)

        fit(functools.partial(Outage, dropout=0.3, num_epochs=4), tmp_path / "run", bucket + "/run")
    assert_same(tmp_path / "run", tmp_path / "whole")
    fit(make, tmp_path / "elsewhere", bucket + "/run")
    assert_same(tmp_path / "elsewhere", tmp_path / "whole")


def test_storage_that_stays_away_ends_in_a_sentence_and_a_resumable_run(
    tmp_path: Path, store: Store, bucket: str
) -> None:
    fit(make, tmp_path / "whole", bucket + "/whole")
    with store.bad_network() as network:

        class Outage(Diary):
            def training_step(self, batch: Any, step: Step) -> Any:
                if step.index == 3:
                    network.refuse()
                return super().training_step(batch, step)

        with pytest.raises(UserError, match=r"did not answer.*everything is kept in .*--resume"):
            fit(functools.partial(Outage, dropout=0.3, num_epochs=4), tmp_path / "run", bucket + "/run", patience_s=1)
    result = fit(make, tmp_path / "run", bucket + "/run")  # the same machine, later
    assert result.step == 12
    fit(make, tmp_path / "elsewhere", bucket + "/run")
    assert_same(tmp_path / "elsewhere", tmp_path / "whole")


def test_killed_during_upload(tmp_path: Path, store: Store, bucket: str) -> None:
    """A checkpoint without its list of checksums does not exist."""
    fit(make, tmp_path / "whole", bucket + "/whole")
    with store.bad_network() as network:
        slow = threading.Timer(0.4, lambda: network.slow(20_000))
        slow.start()
        machine_that_dies(7, tmp_path / "first", bucket + "/run", checkpoint_every_steps=1)
        slow.cancel()
    fit(make, tmp_path / "last", bucket + "/run")
    assert_same(tmp_path / "last", tmp_path / "whole")


def test_a_damaged_checkpoint_in_storage_is_named_and_the_one_before_used(
    tmp_path: Path, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    fit(make, tmp_path / "whole", bucket + "/whole")
    remote = Folder(bucket + "/whole/checkpoints/train")
    newest = sorted(name for name in remote.names() if name.startswith("step-"))[-1]
    content = bytearray(remote.read(newest + "state.pt"))
    content[len(content) // 2] ^= 1
    remote.write(newest + "state.pt", bytes(content))
    fit(make, tmp_path / "elsewhere", bucket + "/whole")
    assert f"{newest.rstrip('/')} is damaged" in caplog.text
    assert_same(tmp_path / "elsewhere", tmp_path / "whole")


def test_a_second_process_on_the_same_run_stops_the_first(tmp_path: Path, bucket: str) -> None:
    class Overtaken(Diary):
        def training_step(self, batch: Any, step: Step) -> Any:
            if step.index == 4:
                Folder(bucket + "/run/checkpoints/train").write("owner", b"somebody else")
            time.sleep(0.1)
            return super().training_step(batch, step)

    with pytest.raises(UserError, match="another process has taken over"):
        fit(functools.partial(Overtaken, num_epochs=4), tmp_path / "run", bucket + "/run", checkpoint_every_steps=1)


def test_a_whole_job_in_storage(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """train --out s3://, then everything that takes a run takes its url, on a machine that has never seen it."""
    monkeypatch.chdir(tmp_path)
    preset = Suts.presets["smoke"]
    config = Suts.config_class(**{**preset.config, "iterations_per_scale": 10, "subintervals": 1})
    options = RunOptions(data="phantom:abdomen?n=6&size=48", out=bucket + "/out", num_workers=0)
    run = train("suts", config, options, preset="smoke", variant="cnn")
    url = str(run)
    assert url.startswith(bucket + "/out/suts/")
    names = {entry.name for entry in Folder(url).list()}
    assert {"config.json", "metrics.jsonl", "report.html", "result.json", "checkpoints/final/medray.json"} <= names
    assert json.loads(Folder(url).read("result.json"))["checkpoint"] == f"{url}/checkpoints/final"
    monkeypatch.setenv("MEDRAY_SCRATCH", str(tmp_path / "another machine"))
    again = evaluate(url, RunOptions(data="phantom:abdomen?n=3&size=48&seed=9", out="local", num_workers=0))
    assert (again.path / "report.html").is_file()
    resumed = resume(url)
    assert str(resumed) == url
    assert RunDirectory.open(url).read_config()["system"] == "suts"
    with pytest.raises(UserError, match="is not a run directory"):
        RunDirectory.open(bucket + "/nothing/here")
