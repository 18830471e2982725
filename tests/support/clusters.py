"""A local Ray for tests, of one node or several: its own temporary folder and ports, no other cluster touched."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")

QUICK_NODE_DEATH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""Read by the head when it starts: a node that does not answer is lost after about 3 s instead of 15."""


@contextmanager
def local_ray(num_cpus: int = 2, *, dashboard: bool = False) -> Iterator[None]:
    """Start a Ray of this process alone; workers can import the test support modules."""
    import ray

    with _folder() as folder, _environment({"PYTHONPATH": _support_path()}):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=dashboard,
                dashboard_host="127.0.0.1",
                dashboard_port=free_port(),
                logging_level="ERROR",
                log_to_driver=False,
                _temp_dir=str(folder),
            )
            yield
        finally:
            ray.shutdown()


class Nodes:
    """Several nodes of one CPU on this machine, and a head without any that runs the driver and Ray's own actors.

    Nodes can only be added from the main thread (Ray sets a signal handler), so training goes `beside` it.
    """

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.address: str = self._cluster.address
        self.alive: list[Any] = []

    def add(self) -> Any:
        """One more node."""
        node = self._cluster.add_node(num_cpus=1)
        self.alive.append(node)
        return node

    def kill(self, node: Any) -> None:
        """SIGKILL to the raylet and every process under it, as when a machine loses power."""
        import psutil

        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        raylet.suspend()  # or it would start new processes while its old ones are killed
        family = [*raylet.children(recursive=True), raylet]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)
        self.alive.remove(node)

    def shutdown(self) -> None:
        """Stop every node, also the killed ones' remains."""
        self._cluster.shutdown()


@contextmanager
def nodes(num_nodes: int, *, environment: Mapping[str, str] = QUICK_NODE_DEATH) -> Iterator[Nodes]:
    """A cluster of ``num_nodes`` nodes with one CPU each, this process its driver.

    Args:
        num_nodes: nodes to start with, besides the head.
        environment: variables of every process of the cluster.
    """
    import ray

    # Ray writes the address of the newest cluster there, where every other driver would find it.
    with _folder() as folder, _environment({"PYTHONPATH": _support_path(), "RAY_TMPDIR": str(folder), **environment}):
        (folder / "ray").mkdir()
        cluster = Nodes()
        try:
            for _ in range(num_nodes):
                cluster.add()
            ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False, namespace="medray")
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


class Beside(Generic[T]):
    """A function that runs in a thread beside the main one."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._outcome: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(function,), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[[], T]) -> None:
        try:
            self._outcome.append(function())
        except BaseException as error:
            self._error = error

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
        """Until the condition holds; fails when the function ends before it does."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self._thread.is_alive(), f"ended too early: {self._error or self._outcome}"
            assert time.monotonic() < deadline, f"did not come about within {timeout_s:g} s"
            time.sleep(0.05)

    def result(self, timeout_s: float = 180.0) -> T:
        """What the function returned, or the exception it raised."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"did not end within {timeout_s:g} s"
        if self._error is not None:
            raise self._error
        return self._outcome[0]


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mr", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _support_path() -> str:
    return os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def job_cluster(num_cpus: int = 2) -> Iterator[dict[str, str]]:
    """A cluster as `ray start` makes it, that takes jobs; yields the environment in which `ray job submit` finds it."""
    ray = str(Path(sys.executable).with_name("ray"))
    with tempfile.TemporaryDirectory(prefix="mr", dir="/tmp", ignore_cleanup_errors=True) as name:
        dashboard = free_port()
        environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": name,
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
            "OMP_NUM_THREADS": "1",
        }
        head = [ray, "start", "--head", "--block", f"--port={free_port()}", f"--dashboard-port={dashboard}",
                "--dashboard-host=127.0.0.1", f"--temp-dir={name}/ray", f"--num-cpus={num_cpus}",
                "--disable-usage-stats", f"--ray-client-server-port={free_port()}",
                f"--dashboard-agent-listen-port={free_port()}"]  # fmt: skip
        Path(name, "ray").mkdir()
        with Path(name, "head.log").open("wb") as log:
            cluster = subprocess.Popen(head, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            while subprocess.run([ray, "job", "list"], env=environment, capture_output=True).returncode:
                time.sleep(1)
            yield environment
        finally:
            os.killpg(cluster.pid, signal.SIGTERM)
            cluster.wait(60)


def free_port() -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
