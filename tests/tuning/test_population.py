"""Population-based training: how settings change, how weights are handed on, what a killed trial or driver loses."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_populations
from clusters import local_ray
from optuna.pruners import NopPruner
from ray import tune
from ray.tune.schedulers.pbt import _explore
from toy_populations import Climb, ClimberConfig, climbing
from toy_sweeps import registered

from medray.engine.host import Host
from medray.engine.options import LoopOptions
from medray.engine.rundir import RunDirectory
from medray.engine.trial import TrialResult
from medray.engine.workbench import InProcessWorkbench, StoppedByUser
from tuning.keeper import StudyKeeper
from tuning.population import mutations, within_bounds
from tuning.records import TrialRecord, read_sweep, read_trials
from tuning.space import parse_dimension
from tuning.study import create_study, open_study
from tuning.sweep import main
from tuning.turns import NoTrialCan, TurnListener, learn_in_turns, take_over

DIMENSIONS = tuple(
    parse_dimension(text)
    for text in (
        "lr=loguniform(1e-4,1e-1)",
        "clip=uniform(0.1,0.3)",
        "drop=quniform(0.1,0.7,0.2)",
        "units=logint(2,64)",
        "depth=int(3,9)",
        "sizes=choice((20,10,7),(8,),(4,2))",
        "lr_end=choice(None,0.5)",
    )
)
BEGINNING = {"lr": 0.09, "clip": 0.11, "drop": 0.5, "units": 60, "depth": 3, "sizes": (8,), "lr_end": None}
CLIMB = ("climber", "--metric", "height", "--mode", "max", "--scheduler", "pbt")


def test_changed_settings_stay_in_their_ranges_and_of_their_kind() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    config: dict[str, Any] = BEGINNING
    seen = []
    for _ in range(500):
        config, _ = _explore(config, mutations(DIMENSIONS), 0.25, (1.2, 0.8), lambda c: within_bounds(c, DIMENSIONS))
        seen.append(config)
    for name, low, high, kind in (
        ("lr", 1e-4, 1e-1, float), ("clip", 0.1, 0.3, float), ("drop", 0.1, 0.7, float),
        ("units", 2, 64, int), ("depth", 3, 9, int),
    ):  # fmt: skip
        values = [each[name] for each in seen]
        assert min(values) >= low
        assert max(values) <= high
        assert {type(value) for value in values} == {kind}
        assert len(set(values)) > 3
    assert max(each["lr"] for each in seen) == 1e-1  # pushed beyond the end and moved back
    assert {round(each["drop"], 6) for each in seen} == {0.1, 0.3, 0.5, 0.7}
    assert {each["sizes"] for each in seen} == {(20, 10, 7), (8,), (4, 2)}
    assert {each["lr_end"] for each in seen} == {None, 0.5}
    json.dumps(seen)  # as the study keeps them


def test_the_study_remembers_changes_and_hands_out_the_settings_of_the_last(tmp_path: Path) -> None:
    dimensions = DIMENSIONS[4:6]

    def keeper() -> StudyKeeper:
        study = create_study(
            f"sqlite:///{tmp_path}/study.db",
            "s",
            system="s",
            objectives={"a": "max"},
            dimensions=dimensions,
            setting={},
        )
        return StudyKeeper(
            study, dimensions, sweep="one", num_trials=2, sampler="random", seed=0, pruner=NopPruner()
        )  # fmt: skip

    first = keeper()
    found = first.next("a")
    assert found is not None
    number, config = found
    assert first.history("a") == []
    change = {"change": 1, "step": 8, "source": 5, "source_step": 4, "checkpoint": "/there"}
    first.changed("a", {"depth": 4, "sizes": (4, 2)}, change)
    first.changed("a", {"depth": 5, "sizes": (8,)}, {**change, "change": 2, "step": 12})
    again = keeper()  # the driver was killed
    assert again.next("b") == (number, {"depth": 5, "sizes": (8,)})
    assert again.history("b")[-1] == {**change, "change": 2, "step": 12, "config": {"depth": 5, "sizes": "8"}}
    (record,) = read_trials(again.study, dimensions)
    assert record.config == config
    assert record.last_config == {"depth": 5, "sizes": (8,)}
    assert [(each.step, each.source, each.config["sizes"]) for each in record.history] == [
        (8, 5, (4, 2)),
        (12, 5, (8,)),
    ]


def test_checkpoints_are_taken_over_whole_wherever_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    donor = _learnt(tmp_path / "donor", 3.0) / "checkpoints"
    theirs = _files(donor)
    for fatal in range(3):  # before the first rename, between the two, after both
        run = RunDirectory.at(str(_learnt(tmp_path / f"mine{fatal}", 1.0)))
        mine = _files(run.path / "checkpoints")
        assert mine != theirs
        with monkeypatch.context() as patch, suppress(_Killed):
            patch.setattr(Path, "rename", _killed_at(fatal))
            take_over(run, donor)
        assert _files(run.path / "checkpoints") == (mine, {}, theirs)[fatal]
        take_over(run, donor)
        assert _files(run.path / "checkpoints") == theirs
        assert not [path for path in run.path.iterdir() if path.name.startswith(".checkpoints")]


def test_a_change_is_made_once_and_a_restarted_trial_keeps_its_newer_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    donor = _learnt(tmp_path / "donor", 3.0)
    run = RunDirectory.at(str(tmp_path / "mine"))
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", lambda metrics, checkpoint=None: told.append(metrics))
    taken = {"change": 1, "checkpoint": str(donor / "checkpoints"), "source_step": 3}

    def turn(speed: float, taken: Mapping[str, Any] | None, dies_at: int = 100) -> list[tuple[int, float]]:
        with pytest.raises(_Killed):
            learn_in_turns(run, _climbing(run, speed, dies_at), metric="height", every=2, taken=taken)
        return told[-1]["curve"]

    assert turn(1.0, None, dies_at=5) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert turn(5.0, taken, dies_at=7) == [(4, 14.0), (5, 19.0), (6, 24.0)]  # on from the donor's 9
    assert turn(5.0, taken, dies_at=11) == [(8, 34.0), (9, 39.0)]  # on from its own checkpoint at 7, not the donor's
    assert turn(5.0, {**taken, "change": 2}, dies_at=7) == [(4, 14.0), (5, 19.0), (6, 24.0)]  # another change


@pytest.mark.parametrize(("decay", "gains"), [(1.0, [1, 1, 1, 4, 4, 4]), (0.5, [1, 0.5, 0.25, 0.5, 0.25, 0.125])])
def test_a_changed_learning_rate_counts_wherever_its_schedule_is(
    tmp_path: Path, decay: float, gains: list[float]
) -> None:
    listener = TurnListener("height", 2)  # asked at 2, heard at the end of epoch 3: one step each
    with pytest.raises(StoppedByUser):
        _climb(tmp_path, ClimberConfig(speed=1.0, decay=decay), listener)
    rest = Host()
    heights = dict(listener.curve)
    rest.observe = lambda name, m: heights.update({m["epoch"]: m["height"]} if "height" in m else {})  # type: ignore[method-assign]
    _climb(tmp_path, ClimberConfig(speed=4.0, decay=decay), rest)
    assert np.diff([0, *(heights[epoch] for epoch in range(1, 7))]).tolist() == gains


def test_a_system_that_cannot_take_turns_is_told_so(tmp_path: Path) -> None:
    def learn(listener: Host) -> TrialResult:
        listener.observe("rounds", {"step": 1, "score": 0.5})
        return TrialResult({"score": 1.0}, 1.0)

    run = RunDirectory.at(str(tmp_path))
    with pytest.raises(NoTrialCan, match="this system trains without any"):
        learn_in_turns(run, learn, metric="score", every=1, taken=None)
    (tmp_path / "checkpoints/train/step-00000000").mkdir(parents=True)
    with pytest.raises(NoTrialCan, match=r"--stop-on psnr is not measured .* it measures score"):
        learn_in_turns(run, learn, metric="psnr", every=1, taken=None)
    assert learn_in_turns(run, learn, metric="score", every=5, taken=None)[1] == [(1, 0.5)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--trials", "1"], "--trials 2 or more"),
        (["--seeds", "2"], "one seed each, got --seeds 2"),
        (["--num-workers", "1"], "in the trials' own processes, got --num-workers 1"),
        (["--concurrent", "1"], "leave --concurrent out"),
        (["--out", "s3://bucket/runs"], "every node sees, got --out s3://bucket/runs"),
        (["--metric", "cost", "--mode", "min"], "compares by one metric"),
    ],
)
def test_what_a_population_cannot_do_is_told_before_it_starts(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with climbing():
        assert main([*CLIMB, "--search", "config.speed=uniform(0,1)", *arguments]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.ray
class TestOnRay:
    """More trials than cores."""

    @pytest.fixture(scope="class", autouse=True)
    def _cluster(self) -> Iterator[None]:
        with climbing(), registered(), local_ray(2):
            yield

    def test_the_slow_go_on_from_the_weights_of_the_fast(self, tmp_path: Path) -> None:
        speeds = [0.01, 0.02, 0.5, 1.0, 1.1]
        search = f"config.speed=choice({','.join(map(str, speeds))})"
        arguments = ("--sampler", "grid", "--trials", "5", "--perturb-every", "3", "--set", "config.num_epochs=20")
        trials = _sweep(tmp_path, *CLIMB, "--search", search, *arguments)
        assert [trial.config["speed"] for trial in trials] == speeds
        assert [(trial.state, trial.attempts) for trial in trials] == [("finished", 1)] * 5
        assert trials[0].history
        for trial in trials:
            began = pytest.approx(trial.seeds[0].metrics["began"])
            if not trial.history:
                assert trial.config["speed"] == began
                assert trial.values == (pytest.approx(20 * trial.config["speed"], rel=1e-4),)
                continue
            # The untrained weight is of another trial: nothing but its checkpoint has it.
            assert trial.config["speed"] != began
            assert [speed for speed in speeds if speed == began]
            assert trial.values[0] > 20 * trial.config["speed"]
            last = trial.history[-1]
            curve = list(trial.curve.values())[-(20 - last.source_step) :]
            assert np.diff(curve) == pytest.approx(last.config["speed"], rel=1e-3)
            run = _folder(tmp_path) / trial.folder / "seed-0/config.json"
            assert json.loads(run.read_text())["config"]["speed"] == last.config["speed"]
        assert not (_folder(tmp_path) / ".tune").exists()

    def test_a_system_without_checkpoints_ends_the_sweep(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ("dial", "--search", "config.x=uniform(0,1)", "--metric", "score", "--mode", "max")
        assert main([*arguments, "--scheduler", "pbt", "--trials", "9", "--out", str(tmp_path)]) == 2
        assert "this system trains without any; give another --scheduler" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_driver_costs_no_trial_and_no_change(tmp_path: Path) -> None:
    arguments = ("--sampler", "grid", "--search", "config.speed=choice(0.01,0.02,1.0,1.1)", "--trials", "4")
    more = ("--perturb-every", "3", "--set", "config.num_epochs=30", "config.pause_s=0.2", "--out", str(tmp_path))
    driver = _driver(*CLIMB, *arguments, *more)
    try:
        deadline = time.monotonic() + 120
        while not any(trial.history for trial in _trials(tmp_path)):
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        driver.kill()
        driver.wait()
    before = _trials(tmp_path)
    assert "running" in {trial.state for trial in before}
    assert _driver("--resume", str(_folder(tmp_path))).wait(180) == 0
    after = _trials(tmp_path)
    assert [(trial.number, trial.state) for trial in after] == [(number, "finished") for number in range(4)]
    for old, new in zip(before, after, strict=True):
        assert new.config == old.config
        assert new.history[: len(old.history)] == old.history
        own = new.seeds[0].metrics["began"] == pytest.approx(new.config["speed"])
        assert own == (not new.history)


def _driver(*arguments: str) -> subprocess.Popen[bytes]:
    support = Path(toy_populations.__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(support), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, str(support / "sweep_driver.py"), *arguments], env=environment)


def _trials(out: Path) -> list[TrialRecord]:
    if not list(out.glob("sweeps/*/*/sweep.json")):
        return []
    record = read_sweep(_folder(out))
    return read_trials(open_study(record.storage, record.study), record.dimensions)


def _sweep(out: Path, *arguments: str) -> list[TrialRecord]:
    assert main([*arguments, "--out", str(out)]) == 0
    return _trials(out)


def _folder(out: Path) -> Path:
    (folder,) = (out / "sweeps" / "climber").iterdir()
    return folder


class _Killed(Exception):
    """In the place of SIGKILL."""


def _killed_at(fatal: int) -> Callable[[Path, Path], Path]:
    rename, count = Path.rename, 0

    def renamed(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count > fatal:
            raise _Killed
        return rename(self, target)

    return renamed


def _files(folder: Path) -> dict[str, bytes]:
    """What a loop reads there."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".owner"
    }


def _learnt(folder: Path, speed: float) -> Path:
    """A run after three epochs."""
    _climb(folder, ClimberConfig(speed=speed, num_epochs=3), Host())
    return folder


def _climb(folder: Path, config: ClimberConfig, listener: Host) -> None:
    work = InProcessWorkbench(folder, LoopOptions(loader_workers=0), quiet=True, tensorboard=False)
    work.listener = listener
    work.fit(lambda: Climb(config))


def _climbing(run: RunDirectory, speed: float, dies_at: int) -> Callable[[Host], TrialResult]:
    """Learns with what `learn_in_turns` gives it; killed at the end of an epoch, with its checkpoint."""

    class Dying(Climb):
        def begin_epoch(self, epoch: int) -> None:
            if epoch >= dies_at:
                raise _Killed

    def learn(listener: Host) -> TrialResult:
        work = InProcessWorkbench(run.path, LoopOptions(loader_workers=0), quiet=True, tensorboard=False)
        work.listener = listener
        work.fit(lambda: Dying(replace(ClimberConfig(), speed=speed, num_epochs=50)))
        raise AssertionError

    return learn
