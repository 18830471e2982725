"""The members of a `Team` as Ray actors: each has a process of its own, which may be lost and comes back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from medray.engine.options import RunOptions
from medray.engine.workbench import InProcessWorkbench, part_of_run

ItemT = TypeVar("ItemT")


class _Seat:
    """What runs in the actor. The first call makes the member, so that what goes wrong then reaches the caller."""

    def __init__(
        self, make_member: Callable[[Any, Any], Any], item: Any, part: str, out: Path, url: str, options: RunOptions
    ) -> None:
        self._where = (part, out, url, options)
        self._make, self._item = make_member, item
        self._work: InProcessWorkbench | None = None
        self._member: Any = None

    def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        if self._work is None:
            work = part_of_run(*self._where)
            self._member = self._make(work, self._item)
            self._work = work
        result = getattr(self._member, method)(*arguments)
        if self._work.mirror:
            self._work.mirror.push()
        return result


class RayTeam:
    """See `medray.system.Team`. A member whose process or node is lost is made anew, by the same constructor.

    Ray restarts the actor, but its calls are not repeated: whoever leads the team decides what an absence means, and
    nobody waits for a node that may take minutes to be replaced. Where the cluster has fewer CPUs (or GPUs) than the
    team has members, they share them.
    """

    def __init__(
        self,
        make_member: Callable[[Any, ItemT], Any],
        items: Mapping[str, ItemT],
        name: str,
        out: Path,
        url: str,
        options: RunOptions,
    ) -> None:
        import ray

        have = ray.cluster_resources()
        seat: Any = ray.remote(
            num_cpus=_share(options.cpus_per_worker, have.get("CPU", 0), len(items)),
            num_gpus=_share(1, have.get("GPU", 0), len(items)) if options.use_gpu else 0,
            max_restarts=-1,
            max_task_retries=0,
        )(_Seat)
        self._seats = {
            key: seat.remote(make_member, item, f"{name}/{key}", out, url, options) for key, item in items.items()
        }

    def call(self, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """See `medray.system.Team.call`."""
        import ray

        asked = {key: self._seats[key].call.remote(method, args) for key, args in arguments.items()}
        results = {}
        for key, reference in asked.items():
            try:
                results[key] = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from None
            except ray.exceptions.RayActorError:
                continue  # lost, or not back yet
        return results

    def end(self) -> None:
        """End the members."""
        import ray

        for seat in self._seats.values():
            ray.kill(seat)


def _share(wanted: int, there: float, members: int) -> float:
    """What each member asks for: what is wanted if there is enough for all, else an equal part (Ray counts 1/10000)."""
    if wanted * members <= there or not there:
        return wanted
    part = there / members
    return math.floor(part) if part >= 1 else math.floor(part * 1e4) / 1e4
