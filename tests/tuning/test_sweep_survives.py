"""A sweep whose driver is killed twice, or that loses a node, ends with the trials of one left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clusters import Beside, nodes
from object_store import object_store
from toy_sweeps import registered

from tuning.records import TrialRecord, read_sweep, read_trials
from tuning.study import open_study
from tuning.sweep import main

pytestmark = pytest.mark.ray
SUPPORT = Path(__file__).parents[1] / "support"
SWEEP = ("dial", "--search", "config.x=uniform(0,1)", "--metric", "score", "--mode", "max", "--trials", "5",
         "--set", "config.pause_s=0.3", "config.rounds=4")  # fmt: skip


def _trials(out: Path) -> list[TrialRecord]:
    (folder,) = (out / "sweeps" / "dial").iterdir()
    record = read_sweep(folder)
    return read_trials(open_study(record.storage, record.study), record.dimensions)


def _tried(trials: list[TrialRecord]) -> list[tuple[str, float, float]]:
    return [(trial.state, trial.config["x"], trial.values[0]) for trial in trials]


@contextmanager
def _driver(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command line in a process and a cluster of its own."""
    with tempfile.TemporaryDirectory(prefix="mr", dir="/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder, "ray").mkdir()
        path = os.pathsep.join((str(SUPPORT), os.environ.get("PYTHONPATH", "")))
        environment = {**os.environ, "RAY_TMPDIR": folder, "PYTHONPATH": path}
        driver = subprocess.Popen(
            [sys.executable, str(SUPPORT / "sweep_driver.py"), *arguments], env=environment, stderr=subprocess.PIPE
        )
        try:
            yield driver
        finally:
            if driver.poll() is None:
                driver.kill()
            driver.wait()
            time.sleep(2)  # its cluster ends by itself


def _wait_for_lines(diary: Path, number: int, driver: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while not diary.exists() or len(diary.read_text().splitlines()) < number:
        assert driver.poll() is None, f"ended with {driver.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _end(driver: subprocess.Popen[bytes]) -> int:
    _, said = driver.communicate(timeout=300)
    print(said.decode())  # pytest shows it where a test fails
    return driver.returncode


def test_killed_twice_and_resumed_it_has_tried_the_same(tmp_path: Path) -> None:
    """TPE, one after another: what is tried next depends on all that came before."""
    diary = tmp_path / "diary"
    sweep = (*SWEEP, "--concurrent", "1", "--sampler", "tpe")
    with _driver(*sweep, "--out", str(tmp_path / "alone")) as driver:
        assert _end(driver) == 0
    with _driver(*sweep, "--set", f"config.diary={diary}", "--out", str(tmp_path / "killed")) as driver:
        _wait_for_lines(diary, 6, driver)
        driver.send_signal(signal.SIGKILL)
    (folder,) = (tmp_path / "killed/sweeps/dial").iterdir()
    with _driver("--resume", str(folder)) as driver:
        _wait_for_lines(diary, 14, driver)
        driver.send_signal(signal.SIGINT)  # the second time politely
        assert _end(driver) == 130
    with _driver("--resume", str(folder)) as driver:
        assert _end(driver) == 0
    assert _tried(_trials(tmp_path / "killed")) == _tried(_trials(tmp_path / "alone"))
    rounds = [tuple(line.split()[:3]) for line in diary.read_text().splitlines()]
    assert len(rounds) == len(set(rounds)) == 5 * 4  # no finished round was done again


def test_trials_of_a_lost_node_go_on_on_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a cluster without dashboard, where trials with workers of their own are refused."""
    diary = tmp_path / "diary"
    arguments = [
        *SWEEP,
        "--set",
        f"config.diary={diary}",
        "--sampler",
        "random",
        "--out",
        str(tmp_path),
        "--max-failures",
        "3",
    ]
    with registered(), nodes(2) as cluster:
        assert main([*SWEEP, "--sampler", "random", "--num-workers", "1", "--out", str(tmp_path / "refused")]) == 2
        assert "need Ray's dashboard" in capsys.readouterr().err
        sweep = Beside(lambda: main(arguments))
        sweep.wait_until(lambda: diary.exists() and len(diary.read_text().splitlines()) >= 3)
        cluster.kill(cluster.alive[0])
        cluster.add()
        assert sweep.result(240) == 0
    trials = _trials(tmp_path)
    assert [trial.state for trial in trials] == ["finished"] * 5
    assert max(trial.attempts for trial in trials) == 2


def test_runs_in_object_storage_with_the_study_in_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDRAY_SCRATCH", str(tmp_path / "scratch"))
    with object_store() as store:
        place = ("--out", store.bucket("sweeps"), "--storage", f"sqlite:///{tmp_path}/study.db", "--study", "dials")
        with _driver(*SWEEP[:7], "--trials", "2", "--sampler", "random", *place) as driver:
            assert _end(driver) == 0
        names = [entry["Key"] for entry in store.client().list_objects_v2(Bucket="sweeps")["Contents"]]
    kept = {name.split("/", 3)[3] for name in names}
    assert {"sweep.json", "report.html", "trials/0001/seed-0/result.json", "trials/0001/seed-0/report.html"} <= kept
    assert not [name for name in kept if name.startswith(".")]
