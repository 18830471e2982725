"""What a sweep's folder says to whoever goes on with it. No trial runs here."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.study import Study
from toy_sweeps import registered

from medray.engine.rundir import RunDirectory
from medray.errors import UserError
from tuning import run
from tuning.alone import alone
from tuning.records import read_sweep
from tuning.settings import SweepSettings
from tuning.study import absolute

SETTINGS = SweepSettings(
    system="dial", search=("config.x=uniform(0,1)",), metric=("score",), mode=("max",), trials=3, sampler="random"
)


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Study]]:
    """The studies of the sweeps that were started or resumed; a trial is asked for, and nothing else done."""
    seen: list[Study] = []

    def stop_there(made: Any, folder: RunDirectory, study: Study, source: Any) -> RunDirectory:
        study.ask()
        seen.append(study)
        return folder

    monkeypatch.setattr(run, "_run", stop_there)
    with registered():
        yield seen


def _resume(folder: RunDirectory, **changes: Any) -> RunDirectory:
    return run.resume(replace(run.stored_settings(str(folder)), resume=str(folder), **changes))


@pytest.mark.parametrize("storage", ["", "sqlite:///study.db", "journal://kept/study.log"])
def test_the_study_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, studies: list[Study], storage: str
) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = run.start(replace(SETTINGS, storage=storage))
    monkeypatch.chdir(tmp_path / "there")
    _resume(folder)
    assert len(studies[1].get_trials()) == 2


def test_a_lost_study_is_not_begun_anew_over_the_results_of_the_first(tmp_path: Path) -> None:
    folder = run.start(replace(SETTINGS, out=str(tmp_path)))
    (folder.path / "study.log").unlink()
    with pytest.raises(UserError, match=r"there is no study 'dial-.*' in journal:///.*study\.log"):
        _resume(folder)


def test_what_a_resumed_sweep_was_asked_for_anew_holds_when_it_is_resumed_again(tmp_path: Path) -> None:
    folder = run.start(replace(SETTINGS, out=str(tmp_path)))
    before = read_sweep(folder.path)
    _resume(folder, trials=9, concurrent=1)
    again = read_sweep(folder.path)
    assert (again.num_trials, run.stored_settings(str(folder)).trials) == (9, 9)
    assert again == replace(before, num_trials=9, settings={**before.settings, "trials": 9, "concurrent": 1})


def test_a_sweep_that_is_running_is_not_resumed_beside_it(tmp_path: Path) -> None:
    folder = run.start(replace(SETTINGS, out=str(tmp_path)))
    with alone(folder), pytest.raises(UserError, match="is being run by another process"):
        _resume(folder)
    _resume(folder)


def test_a_file_system_without_locks_refuses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with alone(RunDirectory.at(str(tmp_path))):
        assert "cannot be locked" in caplog.text


def test_only_urls_of_files_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///a/b.db") == f"sqlite:///{tmp_path}/a/b.db"
    assert absolute("journal://b.log") == f"journal://{tmp_path}/b.log"
    for whole in ("", "sqlite:////a/b.db", "sqlite:///:memory:", "journal:///b.log", "postgresql://me@host/db"):
        assert absolute(whole) == whole
