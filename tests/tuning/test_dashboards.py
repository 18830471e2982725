"""The dashboards of a finished sweep: they start, show the sweep, and end with whoever started them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from chromium import Chromium
from made_up_sweeps import made_up_sweep

from tuning import dashboards
from tuning.records import read_sweep, read_trials
from tuning.tensorboard import write_hparams


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suts") / "finished"
    study = made_up_sweep(folder)
    record = read_sweep(folder)
    for trial in read_trials(study, record.dimensions)[:4]:
        write_hparams(folder, trial, record.objectives)
    return folder


@pytest.fixture(scope="module")
def started(sweep: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """`python -m tuning.dashboards` as a user starts it, and the addresses it prints."""
    command = [sys.executable, "-m", "tuning.dashboards", str(sweep)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = {}
        for line in process.stdout:
            if line.startswith("Ctrl-C"):
                break
            name, _, where = line.partition(" ")
            found[name] = where.strip()
        yield process, found
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "ended\n"
        assert process.wait(30) == 0
        assert psutil.wait_procs(children, timeout=10)[1] == []


def test_the_report_is_written_and_served(started: tuple[object, dict[str, str]], sweep: Path) -> None:
    with urllib.request.urlopen(started[1]["report"]) as answer:
        assert answer.read() == (sweep / "report.html").read_bytes()


def test_optuna_dashboard_has_the_trials(started: tuple[object, dict[str, str]]) -> None:
    root = started[1]["optuna-dashboard"].partition("/dashboard")[0]
    with urllib.request.urlopen(f"{root}/api/studies") as answer:
        (study,) = json.loads(answer.read())["study_summaries"]
    assert study["study_name"] == "suts-finished"


@pytest.mark.browser
def test_optuna_dashboard_opens(started: tuple[object, dict[str, str]], chromium: Chromium) -> None:
    chromium.look()
    chromium.open(started[1]["optuna-dashboard"])
    chromium.until("document.body.innerText.includes('suts-finished')")
    chromium.until("document.querySelectorAll('.main-svg').length > 0")
    assert {re.sub(r":\d+/.*", "", url) for url in chromium.requests if url.startswith("http")} == {"http://127.0.0.1"}


@pytest.mark.browser
def test_tensorboard_opens_at_the_hparams(started: tuple[object, dict[str, str]], chromium: Chromium) -> None:
    chromium.look()
    chromium.open(started[1]["tensorboard"])
    words = """(() => { const found = []; const walk = (node) => { if (node.shadowRoot) walk(node.shadowRoot);
        for (const child of node.childNodes) child.nodeType === 3 ? found.push(child.data) : walk(child); };
        walk(document.documentElement); return found.join(' '); })()"""
    chromium.until(f"['feature_lr', 'grid_spacing', 'dice'].every((word) => {words}.includes(word))")
    assert {re.sub(r":\d+/.*", "", url) for url in chromium.requests if url.startswith("http")} == {"http://127.0.0.1"}


def test_a_wrong_folder_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dashboards.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} is not a sweep: it has no sweep.json\n"
    assert dashboards.main([]) == 2
    assert "FOLDER is needed" in capsys.readouterr().err


@pytest.fixture
def no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensorboard" else find(name))


@pytest.mark.usefixtures("no_tensorboard")
def test_what_is_not_there_is_said_and_the_others_start(sweep: Path) -> None:
    with socket.socket() as taken, contextlib.ExitStack() as running:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = running.enter_context(dashboards.dashboards(dashboards.Flags(folder=sweep, optuna_port=port)))
        assert found["tensorboard"] == "tensorboard is not installed; pip install tensorboard adds it"
        assert found["optuna-dashboard"] == f"--optuna-port {port} cannot be used: {os.strerror(98)}"
        with urllib.request.urlopen(found["report"]) as answer:
            assert answer.status == 200


def test_a_moved_sweep_takes_its_journal_along(sweep: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("sweep.json", "study.log"):
        (moved / name).write_bytes((sweep / name).read_bytes())
    assert read_sweep(moved).storage == f"journal://{moved}/study.log"


@pytest.mark.usefixtures("no_tensorboard")
def test_a_database_needs_its_password_again(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text((sweep / "sweep.json").read_text().replace("journal://", "mysql://a:***@"))
    with dashboards.dashboards(dashboards.Flags(folder=tmp_path)) as found:
        assert "password" in found["optuna-dashboard"]
        assert found["optuna-dashboard"].endswith("is not kept; give --storage")
    journal = f"journal://{sweep}/study.log"
    with dashboards.dashboards(dashboards.Flags(folder=tmp_path, storage=journal)) as found:
        assert found["optuna-dashboard"].startswith("http://127.0.0.1:")
