"""One run of a sweep: trained as `train` trains it, and scored on the validation cases, never on the test cases.

Its folder is a run directory like others, with a checkpoint, a report, and a result that says what it was scored on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from medray.data.case import Source, Splits
from medray.engine.host import Host
from medray.engine.models import save_model
from medray.engine.options import RunOptions
from medray.engine.run_record import describe, figures_of, result_record
from medray.engine.rundir import RunDirectory
from medray.engine.workbench import InProcessWorkbench
from medray.report.html import write_report
from medray.system import System


@dataclass(frozen=True)
class TrialResult:
    """What a run of a sweep measured, and how long the try that finished it took."""

    metrics: dict[str, float]
    seconds: float


def run_trial(
    run: RunDirectory,
    system: System[Any],
    options: RunOptions,
    source: Source,
    *,
    preset: str,
    variant: str,
    command: str,
    listener: Host,
    device: torch.device | None = None,
) -> TrialResult:
    """Train and score, going on where an earlier try in the same folder stopped; at once if that one had finished.

    Args:
        run: its folder; may be new.
        system: with the config of the trial.
        options: ``num_workers`` 0 trains in this process, more on Ray Train's workers.
        source: whose cases were checked.
        preset: for the record.
        variant: likewise.
        command: likewise; that of this process is Ray's.
        listener: hears what is logged and may stop it.
        device: where this process computes, without workers.

    Raises:
        UserError: the config, or the data with it, cannot serve.
        StoppedByUser: the listener stopped it.
    """
    done = run.read_result()
    if done is not None:
        return TrialResult(done["metrics"], done["seconds"])
    started = time.perf_counter()
    splits = judged_on_validation(system, source, options.seed)
    described = describe(run, system, options, preset, variant, source, splits)
    run.write_json("config.json", {**described, "command": command})
    work = _workbench(run, options)
    work.listener = listener
    work.device = device or work.device
    trained = system.train(work, splits)
    save_model(run, system, trained, variant=variant)
    evaluation = system.evaluate(work, trained, splits.test)
    metrics = {**trained.metrics, **evaluation.summary}
    run.write_json("evaluation.json", {"variants": {variant: {"rows": evaluation.rows, "summary": evaluation.summary}}})
    run.write_figures(figures_of(trained, evaluation, ""))
    seconds = time.perf_counter() - started
    rate = max((fit.samples_per_second for fit in trained.fits.values()), default=0.0)
    checkpoint, seed = f"{run}/checkpoints/final", options.seed
    result = result_record(system.slug, variant, preset, seed, metrics, seconds, rate, checkpoint, source.fingerprint)
    run.write_json("result.json", {**result, "scored_on": "validation"})
    write_report(run.path)
    run.publish()
    return TrialResult(metrics, seconds)


def judged_on_validation(system: System[Any], source: Source, seed: int) -> Splits:
    """The split of `train` with the validation cases in the place of the test cases.

    Where a system keeps no validation cases, its own split is made once more, of the training cases.

    Raises:
        UserError: the cases cannot be split so.
    """
    splits = system.split(source, seed)
    if splits.validation:
        return replace(splits, test=splits.validation)
    return system.split(replace(source, cases=splits.train), seed)


def _workbench(run: RunDirectory, options: RunOptions) -> InProcessWorkbench:
    if options.num_workers == 0:
        return InProcessWorkbench(run.path, options, mirror=run.mirror, quiet=True)
    from medray.engine.ray_train import RayWorkbench

    return RayWorkbench(run.path, options, mirror=run.mirror)
