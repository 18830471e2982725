"""Sweeps of a toy system on a real Ray: what is tried, what fails, what is stopped, what is left."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from clusters import local_ray
from toy_sweeps import DialConfig, height, registered

from tuning.records import TrialRecord, read_sweep, read_trials
from tuning.study import open_study
from tuning.sweep import main

pytestmark = pytest.mark.ray
ONE = ("dial", "--search", "config.x=uniform(0,1)", "--metric", "score", "--mode", "max", "--sampler", "random")


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with registered(), local_ray(2, dashboard=True):
        yield


def _sweep(folder: Path, *arguments: str, expect: int = 0) -> list[TrialRecord]:
    # one at a time: each process that a sweep starts takes seconds to import what it needs
    assert main(["--concurrent", "1", *arguments, "--out", str(folder)]) == expect
    return _trials(_folder(folder))


def _folder(out: Path) -> Path:
    (folder,) = (out / "sweeps" / "dial").iterdir()
    return folder


def _trials(folder: Path) -> list[TrialRecord]:
    record = read_sweep(folder)
    return read_trials(open_study(record.storage, record.study), record.dimensions)


def test_each_configuration_is_run_with_each_seed_and_judged_by_the_mean(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    trials = _sweep(tmp_path, *ONE, "--trials", "4", "--seeds", "2", "--set", f"config.diary={diary}")
    for trial in trials:
        config = DialConfig(x=trial.config["x"])
        assert trial.values == pytest.approx([(height(config, 0) + height(config, 1)) / 2])
        assert [(run.seed, run.metrics["score"]) for run in trial.seeds] == [
            (seed, pytest.approx(height(config, seed))) for seed in (0, 1)
        ]
        assert (trial.state, trial.attempts, trial.num_cpus) == ("finished", 1, 1.0)
    lines = [line.split() for line in diary.read_text().splitlines()]
    assert len(lines) == 4 * 2 * 3
    assert len({pid for *_, pid in lines}) <= 2  # processes are kept warm from trial to trial
    run = _folder(tmp_path) / "trials/0002/seed-1"
    result = json.loads((run / "result.json").read_text())
    assert (result["scored_on"], result["seed"]) == ("validation", 1)
    splits = json.loads((run / "config.json").read_text())["data"]["splits"]
    assert splits["test"] == splits["validation"]
    assert (run / "report.html").exists()
    assert (_folder(tmp_path) / "report.html").exists()


def test_what_fails_is_tried_again_from_where_it_was_or_told_and_the_sweep_goes_on(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    search = ("dial", "--search", "config.trouble=choice('','once','always','user')", "--sampler", "grid")
    fixed = ("--set", "config.x=0.9", f"config.diary={diary}", "--max-failures", "1")
    trials = _sweep(tmp_path, *search, "--metric", "score", "--mode", "max", *fixed)
    assert {trial.config["trouble"]: (trial.state, trial.attempts) for trial in trials} == {
        "": ("finished", 1), "once": ("finished", 2), "always": ("failed", 2), "user": ("failed", 1)
    }  # fmt: skip
    assert "the dial broke off" in trials[2].failure
    assert "x above 0.5 makes no sense" in trials[3].failure
    rounds = [tuple(line.split()[:3]) for line in diary.read_text().splitlines()]
    assert len(rounds) == len(set(rounds)) == 3 + 3 + 1 + 1  # nothing that was done is done again


def test_a_metric_that_nobody_reports_ends_the_sweep_with_those_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [word if word != "score" else "scoer" for word in ONE]
    trials = _sweep(tmp_path, *arguments, "--trials", "30", expect=2)
    assert len(trials) < 10
    assert re.search(
        r"error: dial does not report --metric scoer .* cases, cost, rounds, score\n", capsys.readouterr().err
    )


def test_no_finished_trial_is_an_error_that_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = ["--search", "config.x=uniform(0.6,1)"]
    _sweep(tmp_path, *ONE[:1], *search, *ONE[3:], "--trials", "2", "--set", "config.trouble=user", expect=2)
    assert "none of the 2 trials finished; the first failed: x above 0.5 makes no sense" in capsys.readouterr().err


def test_halving_gives_up_the_worse_and_says_so_in_the_study(tmp_path: Path) -> None:
    search = ("dial", "--search", "config.x=choice(0.3,0.9,0.95,1.0,0.31,0.99)", "--sampler", "grid", "--seed", "7")
    judged = ("--metric", "score", "--mode", "max", "--scheduler", "asha", "--set", "config.rounds=9")
    trials = _sweep(tmp_path, *search, *judged)
    assert sorted(trial.config["x"] for trial in trials) == [0.3, 0.31, 0.9, 0.95, 0.99, 1.0]
    assert trials[0].config["x"] == 0.3  # the grid is mixed, and with this seed the best is first
    assert [trial.state for trial in trials] == ["finished", *["stopped early"] * 5]
    assert [sorted(trial.curve) for trial in trials] == [list(range(1, 10)), *[[1]] * 5]


def test_trials_with_workers_leave_no_cores_taken_when_they_are_stopped(tmp_path: Path) -> None:
    # Without Ray's dashboard the cores of the second trial's workers would never come back, and the third would wait.
    search = ("dial", "--search", "config.x=choice(0.3,0.95,0.9)", "--sampler", "grid", "--metric", "score")
    workers = ("--mode", "max", "--num-workers", "1", "--set", "config.network=True", "config.epochs=100")
    stopping = ("--scheduler", "asha", "--stop-on", "mse", "--stop-mode", "min", "--seed", "3")
    trials = _sweep(tmp_path, *search, *workers, *stopping)
    assert [trial.state for trial in trials] == ["finished", "stopped early", "stopped early"]
    assert max(trials[0].curve) == 100  # told by workers, through the driver of the trial
    assert max(max(trial.curve) for trial in trials[1:]) < 100
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert ray.available_resources()["CPU"] == 2


def test_two_objectives_give_a_front(tmp_path: Path) -> None:
    arguments = ("dial", "--search", "config.x=uniform(0,1)", "--metric", "score", "cost", "--mode", "max", "min")
    trials = _sweep(tmp_path, *arguments, "--trials", "5")
    record = read_sweep(_folder(tmp_path))
    study = open_study(record.storage, record.study)
    assert [len(trial.values) for trial in trials] == [2] * 5
    front = {trial.number for trial in study.best_trials}
    right_of_the_best = {trial.number for trial in trials if trial.config["x"] > 0.3 + 1e-9}
    assert front.isdisjoint(right_of_the_best - {min(trials, key=lambda trial: abs(trial.config["x"] - 0.3)).number})


def test_more_trials_of_a_sweep_that_has_ended_but_no_other_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _sweep(tmp_path, *ONE, "--trials", "2")
    assert main(["--resume", str(_folder(tmp_path)), "--seeds", "3"]) == 2
    assert "--seeds of a sweep is settled when it starts: it has 1, got 3" in capsys.readouterr().err
    moved = tmp_path / "moved"
    _folder(tmp_path).rename(moved)
    assert main(["--resume", str(moved), "--trials", "4"]) == 0
    after = _trials(moved)
    assert len({trial.sweep for trial in after}) == 1
    assert (moved / "trials/0003/seed-0/result.json").exists()
    assert after[:2] == before
    assert [trial.state for trial in after] == ["finished"] * 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["dial", "--search", "config.y=uniform(0,1)", "--metric", "score", "--mode", "max"], "no field config.y"),
        (
            ["dial", "--search", "config.x=uniform(0,2)", "--metric", "score", "--mode", "max"],
            "out of the field's bounds",
        ),
        (["dial", "--search", "config.x=uniform(0,1)"], "give --metric NAME and --mode"),
        (["dial", "--search", "config.x=uniform(0,1)", "--metric", "score"], "more or less of score better"),
        (["dail", "--search", "config.x=uniform(0,1)"], "did you mean dial"),
        (["dial", "--metric", "score", "--mode", "max"], "nothing to search"),
        (["dial", "--space", "gamma3"], "the space gamma3 is for mvaal, not for dial"),
        (["--space", "gama3"], "there is no space 'gama3'"),
        ([*ONE, "--set", "config.rounds=many"], "--config.rounds expects a whole number, got 'many'"),
        ([*ONE, "--preset", "huge"], "no preset 'huge'"),
        ([*ONE, "--trails", "3"], "did you mean --trials"),
        ([*ONE, "--trials", "0"], "--trials is 1 or more"),
        ([*ONE[:7], "--sampler", "grid"], "is not one; give choice"),
        ([*ONE, "--metric", "cost", "--mode", "min", "--scheduler", "asha"], "compares by one metric"),
        ([*ONE, "--storage", "postgresql://me:secret@127.0.0.1:1/x"], "cannot be reached"),
        ([*ONE, "--scheduler", "asha", "--stop-on", "mse"], "more or less of mse better"),
        (["--resume", "nowhere"], "there is no nowhere"),
        ([*ONE, "--data", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_each_mistake_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert sentence in said[-1]
    assert said[-1].startswith("error: ")
    assert "secret" not in " ".join(said)
    assert not list(tmp_path.rglob("sweep.json"))


def test_a_study_shared_by_two_sweeps_has_the_trials_of_both(tmp_path: Path) -> None:
    shared: tuple[Any, ...] = ("--trials", "2", "--study", "common", "--storage", f"sqlite:///{tmp_path}/study.db")
    _sweep(tmp_path / "one", *ONE, *shared)
    both = _sweep(tmp_path / "two", *ONE, *shared)
    assert len({trial.sweep for trial in both}) == 2
    assert len({trial.config["x"] for trial in both}) == 4
    assert (_folder(tmp_path / "two") / "trials/0003/seed-0/result.json").exists()
