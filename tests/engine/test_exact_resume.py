"""A run that is killed anywhere and goes on ends as if nothing had happened: weights, metrics, order of samples."""

from __future__ import annotations

import functools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_learners import Autoencoder, Diary, Normed, Regression, Rivals

from medray.engine.checkpoint import CheckpointStore
from medray.engine.host import Host
from medray.engine.loop import LoopSettings, run_loop
from medray.engine.options import LoopOptions
from medray.engine.rundir import append_json, read_json_lines
from medray.engine.world import World

TIMES = {"wall_s", "samples_per_second"}


def settings(run: Path, **options: Any) -> LoopSettings:
    return LoopSettings(name="train", run=run, options=LoopOptions(**options), tensorboard=False)


def in_a_process_of_its_own(make: Any, at: LoopSettings, *, kill_at_step: int | None = None) -> int:
    """Run the loop in a forked process, which kills itself with SIGKILL at a step. Returns the wait status."""

    def doomed() -> Any:
        learner = make()
        step = learner.training_step

        def training_step(batch: Any, now: Any) -> Any:
            if now.index == kill_at_step:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(batch, now)

        learner.training_step = training_step
        return learner

    pid = os.fork()
    if pid == 0:
        try:
            run_loop(doomed, World(), at)
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


def outcome(run: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], list[dict[str, Any]]]:
    found = CheckpointStore(run / "checkpoints" / "train").latest()
    assert found is not None
    records = [r for r in read_json_lines(run / "metrics.jsonl") if r["name"] != "speed"]
    return found[0], found[1], [{k: v for k, v in r.items() if k not in TIMES} for r in records]


@pytest.mark.parametrize("make", [functools.partial(Diary, dropout=0.3), Normed, Rivals, Autoencoder])
@pytest.mark.parametrize("options", [{"checkpoint_every_steps": 2}, {"checkpoint_every_minutes": 1e-9}])
def test_killed_again_and_again(tmp_path: Path, make: Any, options: dict[str, Any]) -> None:
    run_loop(make, World(), settings(tmp_path / "whole"))
    run = tmp_path / "killed"
    for step in (0, 1, 2, 4, 5):
        status = in_a_process_of_its_own(make, settings(run, **options), kill_at_step=step)
        assert os.WIFSIGNALED(status)
    assert in_a_process_of_its_own(make, settings(run, **options)) == 0
    expected, got = outcome(tmp_path / "whole"), outcome(run)
    assert all(torch.equal(expected[0][name], got[0][name]) for name in expected[0])
    assert got[2] == expected[2]  # every logged value, also of windows that were interrupted
    for name, optimizer in expected[1]["optimizers"].items():
        for key, kept in optimizer["state"].items():
            assert all(torch.equal(kept[part], got[1]["optimizers"][name]["state"][key][part]) for part in kept)
    for index, kept in expected[1]["sample_state"].items():
        assert all(torch.equal(kept[part], got[1]["sample_state"][index][part]) for part in kept)


def test_a_damaged_newest_checkpoint_costs_the_steps_since_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_loop(Regression, World(), settings(tmp_path / "whole"))
    run = tmp_path / "damaged"
    in_a_process_of_its_own(Regression, settings(run, checkpoint_every_steps=1), kill_at_step=5)
    newest = sorted((run / "checkpoints" / "train").glob("step-*"))[-1]
    (newest / "state.pt").write_bytes((newest / "state.pt").read_bytes()[:-100])
    run_loop(Regression, World(), settings(run))
    assert f"{newest.name} is damaged" in caplog.text
    expected, got = outcome(tmp_path / "whole"), outcome(run)
    assert all(torch.equal(expected[0][name], got[0][name]) for name in expected[0])
    assert got[2] == expected[2]


def test_half_a_line_of_a_killed_writer_takes_no_other_with_it(tmp_path: Path) -> None:
    run_loop(Regression, World(), settings(tmp_path / "whole"))
    run = tmp_path / "killed"

    class StopsAtOnce(Host):
        def stop_requested(self) -> bool:
            return True

    assert run_loop(Regression, World(), settings(run), StopsAtOnce()).step == 1
    with (run / "metrics.jsonl").open("a") as file:  # nothing whole has to be taken back, only this
        file.write('{"name": "train", "lo')
    run_loop(Regression, World(), settings(run))
    assert outcome(run)[2] == outcome(tmp_path / "whole")[2]
    assert all(map(json.loads, (run / "metrics.jsonl").read_text().splitlines()))


def test_a_line_after_half_a_line_is_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    path.write_text('{"case": "a"}\n{"ca')
    append_json(path, {"case": "b"})
    append_json(path, {"case": "c"})
    assert [record["case"] for record in read_json_lines(path)] == ["a", "b", "c"]


def test_checkpoints_by_the_clock_and_by_steps_are_where_they_should_be(tmp_path: Path) -> None:
    make = functools.partial(Regression, num_epochs=1)
    options = {"checkpoint_every_steps": 2, "keep_checkpoints": 99}
    run_loop(make, World(), settings(tmp_path, **options))
    names = [path.name[-2:] for path in sorted((tmp_path / "checkpoints" / "train").glob("step-*"))]
    assert names == ["00", "02", "03"]
