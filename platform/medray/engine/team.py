"""The members of a `Team` as Ray actors: each has a process of its own, which may be lost and comes back."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import torch

from medray.engine.options import RunOptions
from medray.engine.rundir import append_json
from medray.engine.workbench import InProcessWorkbench, part_of_run
from medray.errors import UserError
from medray.progress import Watcher
from medray.system import Hosting

ItemT = TypeVar("ItemT")


SEATS = "seats.jsonl"
"""In a member's folder: the processes it has lived in, for whoever looks for it in `ray list actors` or in a log."""

ANYWHERE = "DEFAULT"
"""Where tasks and members may run; said out loud, since what a trial of a sweep starts would else have to fit into the
little that the trial itself holds."""
_TELL_EVERY_S = 15.0


class _Seat:
    """What runs in the actor. The first call makes the member, so that what goes wrong then reaches the caller."""

    def __init__(
        self,
        make_member: Callable[[Any, Any], Any],
        item: Any,
        make_workbench: Callable[[], InProcessWorkbench],
    ) -> None:
        self._make_workbench = make_workbench
        self._make, self._item = make_member, item
        self._work: InProcessWorkbench | None = None
        self._member: Any = None

    def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        if self._work is None:
            work = self._make_workbench()
            work.device = own_device()
            self._member = self._make(work, self._item)
            self._work = work
            append_json(work.out / SEATS, {"node": os.uname().nodename, "pid": os.getpid(), "since": time.time()})
        result = getattr(self._member, method)(*arguments)
        if self._work.mirror:
            self._work.mirror.push()
        return result


class RayTeam:
    """See `medray.system.Team`. A member whose process or node is lost is made anew, by the same constructor.

    Ray restarts the actor. In a ``patient`` team it repeats the call too; else whoever leads the team decides what an
    absence means, and nobody waits for a node that may take minutes to be replaced. Where the cluster has fewer CPUs
    (or GPUs) than the team has members, they share them.
    """

    def __init__(
        self,
        make_member: Callable[[Any, ItemT], Any],
        items: Mapping[str, ItemT],
        name: str,
        out: Path,
        url: str,
        options: RunOptions,
        *,
        hosting: Hosting = "process",
        patient: bool = False,
    ) -> None:
        import ray

        spread = hosting == "workers" and options.num_workers > 1
        seat: Any = ray.remote(
            **_resources(options, ray.cluster_resources(), len(items), idle=spread or hosting == "books"),
            scheduling_strategy=ANYWHERE,
            max_restarts=-1,
            max_task_retries=-1 if patient else 0,
        )(_Seat)
        work_of = _on_workers if spread else part_of_run
        self._name, self._patient = name, patient
        self._seats = {
            key: seat.remote(make_member, item, functools.partial(work_of, f"{name}/{key}", out, url, options))
            for key, item in items.items()
        }
        # Members in object storage write their logs on machines of their own.
        watched = hosting == "workers" and not url
        self._logs = {key: out / name / key / "metrics.jsonl" for key in items} if watched else {}

    def call(self, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """See `medray.system.Team.call`. The person watching sees how far members with workers are."""
        with ExitStack() as stack:
            for key in arguments.keys() & self._logs.keys():
                stack.enter_context(Watcher(self._logs[key], label=key, every_s=_TELL_EVERY_S))
            return self._call(method, arguments)

    def _call(self, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        import ray

        asked = {key: self._seats[key].call.remote(method, args) for key, args in arguments.items()}
        results = {}
        for key, reference in asked.items():
            try:
                results[key] = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from None
            except ray.exceptions.RayActorError as error:
                if self._patient:  # Ray itself has given it up
                    raise UserError(
                        f"{self._name}/{key} was lost and cannot be made anew: {_first_line(error)}"
                    ) from error
                continue  # lost, or not back yet
        return results

    def end(self) -> None:
        """End the members."""
        import ray

        for seat in self._seats.values():
            ray.kill(seat)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def own_device() -> torch.device:
    """The GPU that Ray gave this process, or the CPU; a GPU that is merely visible belongs to others."""
    import ray

    return torch.device("cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu")


def _on_workers(part: str, out: Path, url: str, options: RunOptions) -> InProcessWorkbench:
    """The workbench of a part of a run whose loops have training workers of their own."""
    from medray.engine.ray_train import RayWorkbench

    here = part_of_run(part, out, url, options)
    return RayWorkbench(here.out, options, mirror=here.mirror)


def _resources(options: RunOptions, have: Mapping[str, float], members: int, *, idle: bool) -> dict[str, float]:
    if idle:
        return {"num_cpus": 0, "num_gpus": 0}
    return {
        "num_cpus": _share(options.cpus_per_worker, have.get("CPU", 0), members),
        "num_gpus": gpu_share(options, have, members),
    }


def gpu_share(options: RunOptions, have: Mapping[str, float], parts: int) -> float:
    """What each of so many parts of a run asks for, of the GPUs that the cluster has; 0 without ``--use-gpu``."""
    return _share(1, have.get("GPU", 0), parts) if options.use_gpu else 0


def _share(wanted: int, there: float, members: int) -> float:
    """What each member asks for: what is wanted if there is enough for all, else an equal part (Ray counts 1/10000)."""
    if wanted * members <= there or not there:
        return wanted
    part = there / members
    return math.floor(part) if part >= 1 else math.floor(part * 1e4) / 1e4
