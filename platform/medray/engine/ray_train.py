"""The only module that starts Ray and Ray Train: the same `Workbench`, on worker processes."""

from __future__ import annotations

import importlib.metadata
import itertools
import logging
import os
import secrets
import socket
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from medray.engine.desk import WorkerHost, close_desk, open_desk
from medray.engine.elastic import ElasticRun
from medray.engine.host import Host
from medray.engine.loop import LoopResult, LoopSettings, run_loop
from medray.engine.mirror import Mirror, followed
from medray.engine.options import RunOptions
from medray.engine.reinforce import usable_precision
from medray.engine.team import ANYWHERE, RayTeam, gpu_share, own_device
from medray.engine.workbench import InProcessWorkbench, fit_result, part_of_run, terminated_as_interrupted
from medray.errors import UserError
from medray.learner import Learner
from medray.policy import PolicyProblem
from medray.progress import Watcher
from medray.storage import Folder
from medray.storage.local import local_copy
from medray.system import FitResult, Hosting, Team, Workbench

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_STOP_PATIENCE_S = 60.0
_LISTEN_S = 0.5
_ONE_PRESS_S = 1.0
"""Interrupts this close together are one: a shell or a supervisor may signal both the process and its group."""


@contextmanager
def ray_session(num_cpus: int, *, dashboard: bool = False) -> Iterator[str]:
    """Attach to the cluster the job was submitted to, or one running here, or start a local one; leave as found.

    Args:
        num_cpus: that a local one has at least, so that the run fits.
        dashboard: whether a local one has Ray's dashboard, on this machine's own address alone.

    Yields:
        host and port of Ray's dashboard; empty where there is none.
    """
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    cluster = _running_cluster()
    if cluster in (None, "local"):
        _protect_local_cluster()
    import ray  # only now: it reads how to authenticate when it is imported

    if ray.is_initialized():
        yield _dashboard_address()
        return
    options: dict[str, Any] = {
        "logging_level": "ERROR",
        "log_to_driver": bool(os.environ.get("MEDRAY_WORKER_LOGS")),
        "namespace": "medray",
        "runtime_env": _runtime_env(),
    }
    if cluster in (None, "local"):
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, num_cpus),
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            **options,
        )
    else:
        ray.init(address=cluster, **options)
    try:
        yield _dashboard_address()
    finally:
        ray.shutdown()


def _dashboard_address() -> str:
    from ray._private.worker import (
        get_dashboard_url,
    )  # the public way, ray.init's return value, is only for who calls it

    return get_dashboard_url() or ""


def _protect_local_cluster() -> None:
    """A token for this cluster alone. Ray listens on every interface, and left to itself it would leave a token file
    in the home directory, after which `ray start` asks for a token that `ray job submit` does not send.
    """
    if "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _runtime_env() -> dict[str, Any]:
    """Workers find an installed medray by themselves; a bare checkout must be on their path."""
    library = Path(__file__).resolve().parents[2]
    try:
        found = Path(str(importlib.metadata.distribution("medray").locate_file(""))).resolve()
    except importlib.metadata.PackageNotFoundError:
        found = library
    if found != library or str(library) == sysconfig.get_path("purelib"):
        return {}
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # the submitted job may set a PYTHONPATH of its own
    paths = (str(library), str(library.parent), os.environ.get("PYTHONPATH"))  # its envs/ is beside it
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}}


def _running_cluster() -> str | None:
    """Address of the cluster this process belongs to or that runs on this machine, None where there is none.

    Ray's own search waits minutes for a cluster that died without cleaning up, so its address is tried first.
    """
    if os.environ.get("RAY_ADDRESS"):
        return os.environ["RAY_ADDRESS"]
    left_by_ray_start = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    try:
        address = left_by_ray_start.read_text().strip()
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=1.0):
            return address
    except (OSError, ValueError):
        return None


class RayWorkbench(InProcessWorkbench):
    """Gradient loops on Ray Train workers; maps as Ray tasks. Needs a `ray_session`."""

    options: RunOptions

    def __init__(self, out: Path, options: RunOptions, *, mirror: Mirror | None = None) -> None:
        super().__init__(out, options, mirror=mirror)

    def fit(self, make_learner: Callable[[], Learner], *, name: str = "train") -> FitResult:
        """See `Workbench.fit`. Lost workers are replaced and go on from the newest whole checkpoint."""
        wait_for_resources(self.options)
        if self.mirror:
            self.mirror.push()
        log_file, desk = self.out / "metrics.jsonl", open_desk()
        try:
            with (
                terminated_as_interrupted(),
                followed(Folder(self.url), log_file) if self.url else nullcontext(),
                Watcher(log_file),
            ):
                result = _in_thread(lambda: self._run_trainer(make_learner, name, desk), desk, self.listener)
        finally:
            close_desk(desk)
        return fit_result(result)

    def reinforce(self, problem: PolicyProblem, *, name: str = "train") -> FitResult:
        """See `Workbench.reinforce`. Workers sample; this process learns, or a GPU. Who is lost is replaced."""
        import ray

        from medray.rl.crew import CrewOnRay

        options, precision = self.options, usable_precision(self.options)
        wait_for_resources(options)

        def make_crew() -> CrewOnRay:
            return CrewOnRay(problem, self.seed, num_runners=options.num_workers, max_restarts=options.max_failures,
                             use_gpu=options.use_gpu, precision=precision)  # fmt: skip

        for attempt in itertools.count():
            try:
                return self._reinforce(problem, make_crew, name)
            except ray.exceptions.RayActorError as error:
                if attempt == options.max_failures:
                    raise
                log.warning("an actor was lost (%s); going on from the newest checkpoint", error)
        raise AssertionError("unreachable")

    def _run_trainer(self, make_learner: Callable[[], Learner], name: str, desk: Any) -> LoopResult:
        import ray
        from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchTrainer

        options = self.options

        def fit(num_workers: int) -> LoopResult:
            trainer = TorchTrainer(
                _worker,
                train_loop_config={
                    "make_learner": make_learner,
                    "settings": self.loop_settings(name),
                    "desk": desk,
                    "run": self.out.name,
                    "url": self.url,
                },
                scaling_config=ScalingConfig(
                    num_workers=num_workers,
                    use_gpu=options.use_gpu,
                    resources_per_worker={"CPU": options.cpus_per_worker} | ({"GPU": 1} if options.use_gpu else {}),
                ),
                run_config=RunConfig(
                    # A name of its own each time: what counts for resuming are the run's checkpoints, not Ray's record.
                    name=f"{name}-{time.time_ns()}",
                    storage_path=str(self.out / ".ray"),
                    failure_config=FailureConfig(
                        max_failures=0 if options.min_workers else options.max_failures,
                        controller_failure_limit=0 if options.min_workers else -1,
                    ),
                    logging_config=LoggingConfig("WARNING"),
                ),
            )
            outcome = trainer.fit().return_value
            if "failure" in outcome:
                raise _raised_by_worker(outcome["failure"])
            return LoopResult(**outcome)

        try:
            return ElasticRun(options, desk, fit).run() if options.min_workers else fit(options.num_workers)
        except TrainingFailedError:
            failure = ray.get(desk.failure.remote())
            if failure:
                raise _raised_by_worker(failure) from None
            raise

    def nested(self, name: str) -> RayWorkbench:
        """A workbench of its own under this run, on the same workers."""
        return RayWorkbench(self.out / name, replace(self.options, seed=self.seed), mirror=self.mirror)

    def map(self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, name: str) -> list[ResultT]:
        """See `Workbench.map`."""
        import ray

        def run(item: ItemT) -> ResultT:  # Ray takes functions, not partials or builtins
            return function(item)

        task = ray.remote(num_cpus=1, max_retries=self.options.max_failures, scheduling_strategy=ANYWHERE)(run)
        return _collect([task.remote(item) for item in items])

    def map_runs(
        self, function: Callable[[Workbench, ItemT], ResultT], items: Iterable[ItemT], *, name: str
    ) -> list[ResultT]:
        """See `Workbench.map_runs`."""
        import ray

        out, url = self.out, self.url  # not self: a mirror does not travel
        options = replace(self.options, seed=self.seed)
        pieces = list(items)

        def run(index: int, item: ItemT) -> ResultT:
            work = part_of_run(f"{name}/{index}", out, url, options)
            work.device = own_device()
            result = function(work, item)
            if work.mirror:
                work.mirror.push()
            return result

        task = ray.remote(
            num_cpus=1,
            num_gpus=gpu_share(options, ray.cluster_resources(), len(pieces)),
            max_retries=self.options.max_failures,
            scheduling_strategy=ANYWHERE,
        )(run)
        return _collect([task.remote(index, item) for index, item in enumerate(pieces)])

    @contextmanager
    def team(
        self,
        make_member: Callable[[Workbench, ItemT], Any],
        items: Mapping[str, ItemT],
        *,
        name: str,
        hosting: Hosting = "process",
        patient: bool = False,
    ) -> Iterator[Team]:
        """See `Workbench.team`."""
        options = replace(self.options, seed=self.seed)
        team = RayTeam(make_member, items, name, self.out, self.url, options, hosting=hosting, patient=patient)
        try:
            yield team
        finally:
            team.end()


def wait_for_resources(options: RunOptions) -> None:
    """Say so when the cluster is smaller than the run: it will wait for nodes to join.

    Raises:
        UserError: GPUs are asked for on a cluster of this machine alone that has none.
    """
    import ray

    have = ray.cluster_resources()
    if options.use_gpu and not have.get("GPU") and len(ray.nodes()) == 1:
        raise UserError("--use-gpu was given but the Ray cluster has no GPU; leave it out or join a GPU node")
    wanted = (options.min_workers or options.num_workers) * options.cpus_per_worker
    if have.get("CPU", 0) < wanted:
        log.warning("the cluster has %g CPUs and the run needs %d; waiting for more nodes", have.get("CPU", 0), wanted)


def _collect(references: list[Any]) -> list[Any]:
    import ray

    try:
        return list(ray.get(references))
    except BaseException as error:
        # Only what still runs: cancelling a task that is just ending aborts the driver (Ray 2.60).
        for reference in ray.wait(references, num_returns=len(references), timeout=0)[1]:
            ray.cancel(reference)
        if isinstance(error, ray.exceptions.RayTaskError):
            raise error.as_instanceof_cause() from None
        raise


def _in_thread(function: Callable[[], LoopResult], desk: Any, listener: Host) -> LoopResult:
    """Run Ray Train beside this thread, which stays free to hear Ctrl-C or the listener and to pass on that wish."""
    import ray

    outcome: list[LoopResult] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    # An event, not thread.join(): a join that is interrupted takes the thread for ended (Python 3.11).
    done = threading.Event()
    threading.Thread(target=target, name="ray-train", daemon=True).start()
    deadline: float | None = None
    while not done.is_set():
        try:
            done.wait(timeout=_LISTEN_S)
            if deadline is not None or listener.stop_requested():
                desk.ask_to_stop.remote()
            for said in ray.get(desk.news.remote()):
                log.warning("%s", said)
            for name, metrics in ray.get(desk.notes.remote()):
                listener.observe(name, metrics)
        except KeyboardInterrupt:
            now = time.monotonic()
            if deadline is not None:
                if now > deadline - _STOP_PATIENCE_S + _ONE_PRESS_S:
                    raise
                continue
            deadline = now + _STOP_PATIENCE_S
            log.warning("stopping after this step with a checkpoint; Ctrl-C again stops at once")
        except BaseException:  # the listener gives up: the workers give their cores back before this goes on
            desk.ask_to_stop.remote()
            done.wait(timeout=_STOP_PATIENCE_S)
            raise
        if deadline is not None and time.monotonic() > deadline:
            raise KeyboardInterrupt("the workers did not stop in time")
    if errors:
        raise errors[0]
    for name, metrics in ray.get(desk.notes.remote()):
        listener.observe(name, metrics)
    return outcome[0]


def _worker(config: dict[str, Any]) -> dict[str, Any]:
    """What each Ray Train worker runs.

    A mistake in the code or data would fail again on every retry, so the worker that meets one leaves word of it; the
    next try reads it and ends at once. Lost workers and broken connections leave none and are retried.
    """
    import ray
    import ray.train
    import ray.train.torch

    from medray.engine.world import World

    settings: LoopSettings = config["settings"]
    desk = config["desk"]
    failure = ray.get(desk.failure.remote())
    if failure:
        return {"failure": failure}
    mirror = None
    if config["url"]:
        mirror = Mirror(local_copy(config["url"], f"worker-{settings.name}"), Folder(config["url"]))
        settings = replace(settings, run=mirror.local)
        settings.run.mkdir(parents=True, exist_ok=True)
    elif not settings.run.is_dir():
        raise UserError(f"{settings.run} is not visible on node {os.uname().nodename}; --out must be shared storage")
    context = ray.train.get_context()
    world = World(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    try:
        with WorkerHost(desk, run=config["run"], loop=settings.name, mirror=mirror) as host:
            return vars(run_loop(config["make_learner"], world, settings, host))
    except Exception as error:
        if not _lost_contact(error):
            kind = "UserError" if isinstance(error, UserError) else type(error).__name__
            note = {"kind": kind, "message": str(error), "traceback": traceback.format_exc()}
            ray.get(desk.report_failure.remote(note))
        raise


def _lost_contact(error: Exception) -> bool:
    """Whether an error only says that another worker, or a process of this one, went away."""
    import torch.distributed as dist

    text = str(error).lower()
    signs = ("connection closed by peer", "connection reset", "gloo", "nccl", "broken pipe", "dataloader worker")
    return isinstance(error, dist.DistError) or (
        not isinstance(error, UserError) and any(sign in text for sign in signs)
    )


def _raised_by_worker(failure: dict[str, str]) -> Exception:
    if failure["kind"] == "UserError":
        return UserError(failure["message"])
    return RuntimeError(f"a training worker failed:\n{failure['traceback']}")
