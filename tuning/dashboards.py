"""The dashboards of one sweep, finished or running, on this machine alone:

    python -m tuning.dashboards runs/sweeps/suts/20260301-100000        or: make dashboard SWEEP=...

Starts the sweep's own report, optuna-dashboard and TensorBoard, prints where they are, and ends them at Ctrl-C. What is
not installed is said, and the others go on.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import importlib.util
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import wsgiref.simple_server
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from socketserver import BaseServer, ThreadingMixIn
from typing import Annotated, Any

import tyro

from medray.cli.app import guarded
from medray.cli.sentences import parse
from medray.errors import UserError
from tuning.records import SweepRecord, read_sweep
from tuning.study import HIDDEN, open_storage, open_study, without_password

_HOST = "127.0.0.1"
_PATIENCE_S = 60.0
_RAY_PORTS = range(8265, 8275)
"""Where Ray puts its dashboard: the first, or the next that is free."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Which sweep, and where; a port of 0 is any that is free."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Of the sweep."""
    storage: str = ""
    """Of the study, where the sweep's is a database: its password is not kept."""
    report_port: int = 0
    """Of the sweep's own report."""
    optuna_port: int = 0
    """Of optuna-dashboard."""
    tensorboard_port: int = 0
    """Of TensorBoard."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _run(arguments), resume_with="")


@contextlib.contextmanager
def dashboards(flags: Flags) -> Iterator[dict[str, str]]:
    """Start what there is; what is not goes into the answer as a sentence.

    Yields:
        The address of each dashboard, or why it is not there.

    Raises:
        UserError: the folder is not a sweep's.
    """
    record = read_sweep(flags.folder)
    folder = flags.folder.resolve()
    storage = flags.storage or record.storage
    starts: dict[str, Callable[[], AbstractContextManager[str]]] = {
        "report": lambda: _report(folder, storage, record, flags.report_port),
        "optuna-dashboard": lambda: _optuna(storage, record.study, flags.optuna_port),
        "tensorboard": lambda: _tensorboard(folder, flags.tensorboard_port),
    }
    with contextlib.ExitStack() as started:
        found = {}
        for name, start in starts.items():
            try:
                found[name] = started.enter_context(start())
            except UserError as error:
                found[name] = str(error)
        yield found


def ray_dashboard() -> str:
    """Address of the dashboard of a Ray cluster on this machine; "" where none answers."""
    for port in _RAY_PORTS:
        url = f"http://{_HOST}:{port}"
        try:
            with urllib.request.urlopen(f"{url}/api/version", timeout=1.0) as answer:
                if "ray_version" in json.loads(answer.read()):
                    return url
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):  # it asks for the cluster's token
                return url
        except (OSError, ValueError):
            continue
    return ""


def _run(argv: Sequence[str]) -> int:
    about = "The dashboards of a sweep, on this machine alone, until Ctrl-C."
    flags = parse(Flags, argv, prog="python -m tuning.dashboards", description=about)
    for asked in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs begin with SIGINT ignored
        signal.signal(asked, signal.default_int_handler)  # children end with this process, however it is asked to
    try:
        with dashboards(flags) as found:
            if ray := ray_dashboard():
                found["ray"] = ray
            for name, where in found.items():
                print(f"{name:17} {where}", flush=True)
            print("Ctrl-C ends them", flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        print("ended", flush=True)
    return 0


@contextlib.contextmanager
def _report(folder: Path, storage: str, record: SweepRecord, port: int) -> Iterator[str]:
    if not (folder / "report.html").exists():  # of a sweep that was killed before it wrote one
        from tuning.report import write_sweep_report

        write_sweep_report(folder, open_study(_whole(storage), record.study))
    handler = functools.partial(_QuietFiles, directory=str(folder))
    with _bound(lambda: http.server.ThreadingHTTPServer((_HOST, port), handler), "--report-port", port) as url:
        yield f"{url}/report.html"


@contextlib.contextmanager
def _optuna(url: str, study: str, port: int) -> Iterator[str]:
    _installed("optuna_dashboard", "optuna-dashboard")
    import optuna_dashboard

    storage = open_storage(_whole(url))
    try:
        number = storage.get_study_id_from_name(study)
    except KeyError:
        raise UserError(f"there is no study {study!r} in {without_password(url)}") from None
    application: Any = optuna_dashboard.wsgi(storage)

    def make() -> BaseServer:
        server = _ThreadedServer((_HOST, port), _QuietApplication)
        server.set_app(application)
        return server

    with _bound(make, "--optuna-port", port) as url:
        yield f"{url}/dashboard/studies/{number}"


@contextlib.contextmanager
def _tensorboard(folder: Path, port: int) -> Iterator[str]:
    _installed("tensorboard", "tensorboard")
    port = port or _free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", _HOST, "--port", str(port)]
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            deadline = time.monotonic() + _PATIENCE_S
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    last = said.read().decode(errors="replace").strip().splitlines() or ["it says nothing"]
                    raise UserError(f"TensorBoard does not start on port {port}: {last[-1]}")
                time.sleep(0.1)
            yield f"http://{_HOST}:{port}/#hparams"
        finally:
            process.terminate()


@contextlib.contextmanager
def _bound(make: Callable[[], Any], flag: str, port: int) -> Iterator[str]:
    """A server at work in a thread; its address."""
    try:
        server = make()
    except OSError as error:
        raise UserError(f"{flag} {port} cannot be used: {error.strerror}") from None
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield f"http://{_HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _whole(url: str) -> str:
    if HIDDEN in url:
        raise UserError(f"the password of {url} is not kept; give --storage")
    return url


def _installed(module: str, package: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{package} is not installed; pip install {package} adds it")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((_HOST, port)) == 0


class _ThreadedServer(ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _QuietApplication(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal has the addresses."""


class _QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal has the addresses."""


if __name__ == "__main__":
    raise SystemExit(main())
