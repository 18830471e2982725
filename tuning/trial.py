"""What a trial does: a run for each seed, in folders that a restarted trial finds again."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from ray import tune

from medray.data.case import Source
from medray.engine.host import Host
from medray.engine.options import RunOptions
from medray.engine.rundir import RunDirectory
from medray.engine.trial import TrialResult, run_trial
from medray.errors import UserError
from medray.system import System
from tuning.fields import with_values
from tuning.records import trial_folder
from tuning.searcher import CONFIG, NUMBER, TAKEN
from tuning.turns import NOT_JUDGED, NoTrialCan, learn_in_turns

_END_PATIENCE_S = 120
"""How long a process waits for the end of a trial that was given up, which may still write a checkpoint. After Tune's
own two seconds the next trial would be taken for failed."""
_at_work = threading.Lock()
"""Held by the thread that runs a configuration in this process."""


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """What all trials of a sweep share.

    Attributes:
        sweep: its folder or url.
        system: the class.
        config: of the preset and variant, with the fields that the sweep sets.
        options: of the first seed's run.
        source: the cases, checked.
        preset: for the record.
        variant: likewise.
        command: that started the sweep, likewise.
        metrics: objectives.
        stop_on: metric that is told on the way.
        num_seeds: runs of each configuration.
        on_gpu: whether a trial without workers has a GPU of its own.
        turn: epochs or rounds between two changes, in population-based training; else 0.
    """

    sweep: str
    system: type[System[Any]]
    config: Any
    options: RunOptions
    source: Source
    preset: str
    variant: str
    command: str
    metrics: tuple[str, ...]
    stop_on: str
    num_seeds: int
    on_gpu: bool
    turn: int = 0


def run_configuration(suggested: Mapping[str, Any], job: TrialJob) -> None:
    """Run one configuration with all its seeds and tell Tune what it gave.

    What a retry would meet again (settings that cannot work together, a loss that is not finite, a metric that does
    not exist) is told as a result; anything else is raised, and Tune tries again.
    """
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", str(_END_PATIENCE_S))
    with _at_work:
        _run_configuration(suggested, job)


class EndsWhenItsWorkersHave:
    """Mixed into what Tune makes of the function: a trial that is given up lets its workers stop before it goes.

    Tune would end the process while they train, and the cores they hold would be taken until Ray's own clean-up sees
    that nobody needs them: a minute or more, and never without Ray's dashboard.
    """

    def cleanup(self) -> None:
        """As Tune's, which wakes the function to end; then wait until it has."""
        super().cleanup()  # type: ignore[misc]
        if _at_work.acquire(timeout=_END_PATIENCE_S):
            _at_work.release()


run_configuration.__mixins__ = (EndsWhenItsWorkersHave,)  # type: ignore[attr-defined]


def _run_configuration(suggested: Mapping[str, Any], job: TrialJob) -> None:
    began = time.perf_counter()
    results: list[TrialResult] = []
    curve: list[tuple[int, float]] = []
    for index in range(job.num_seeds):
        try:
            if job.turn:
                result, curve = _run_in_turns(suggested, job)
            else:
                listener = TrialListener(job.stop_on) if index == 0 else Host()
                result = _run_seed(suggested, job, index, listener)
            results.append(result)
        except NoTrialCan as error:
            tune.report({"fatal": str(error)})
            return
        except UserError as error:
            tune.report({"failure": str(error), **_cost(began)})
            return
        missing = [name for name in job.metrics if name not in results[-1].metrics]
        if missing:
            tune.report({"fatal": _no_metric(missing[0], job, results[-1].metrics)})
            return
    tune.report({**_summary(job, results), "curve": curve})


class TrialListener(Host):
    """Tells Tune how the first seed's run fares, and waits for leave to go on.

    Args:
        metric: what is told of each record that has it.
    """

    def __init__(self, metric: str) -> None:
        super().__init__()
        self._metric, self._began = metric, time.perf_counter()

    def observe(self, name: str, metrics: Mapping[str, float]) -> None:
        """Tell Tune. Where the trial is given up, this does not return."""
        value = metrics.get(self._metric)
        if name in NOT_JUDGED or value is None or not math.isfinite(value):
            return
        step = int(metrics.get("epoch", metrics.get("step", 1)))
        tune.report({"step": max(step, 1), "value": float(value), **_cost(self._began)})


def _run_in_turns(suggested: Mapping[str, Any], job: TrialJob) -> tuple[TrialResult, list[tuple[int, float]]]:
    return learn_in_turns(
        _folder(suggested, job, job.options.seed),
        lambda listener: _run_seed(suggested, job, 0, listener),
        metric=job.stop_on,
        every=job.turn,
        taken=suggested[TAKEN],
    )


def _folder(suggested: Mapping[str, Any], job: TrialJob, seed: int) -> RunDirectory:
    return RunDirectory.at(f"{job.sweep}/{trial_folder(suggested[NUMBER])}/seed-{seed}")


def _run_seed(suggested: Mapping[str, Any], job: TrialJob, index: int, listener: Host) -> TrialResult:
    seed = job.options.seed + index
    system = job.system(with_values(job.config, suggested[CONFIG]))
    return run_trial(
        _folder(suggested, job, seed),
        system,
        replace(job.options, seed=seed),
        job.source,
        preset=job.preset,
        variant=job.variant,
        command=job.command,
        listener=listener,
        device=torch.device("cuda") if job.on_gpu and torch.cuda.is_available() else None,
    )


def _summary(job: TrialJob, results: list[TrialResult]) -> dict[str, Any]:
    seeds = [
        {"seed": job.options.seed + index, "metrics": result.metrics, "seconds": round(result.seconds, 3)}
        for index, result in enumerate(results)
    ]
    means = [sum(result.metrics[name] for result in results) / len(results) for name in job.metrics]
    seconds = round(sum(result.seconds for result in results), 3)
    return {"objectives": means, "seeds": seeds, "seconds": seconds, "node": os.uname().nodename}


def _cost(began: float) -> dict[str, Any]:
    """What a trial that may not get to its end has taken so far."""
    return {"seconds": round(time.perf_counter() - began, 3), "node": os.uname().nodename}


def _no_metric(name: str, job: TrialJob, known: Mapping[str, float]) -> str:
    reported = ", ".join(sorted(known))
    return f"{job.system.slug} does not report --metric {name} on its validation cases; it reports {reported}"
