"""Start a sweep, or go on with one: what is checked before, what Ray Tune is told, what is left in its folder."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial
from ray.tune.schedulers import TrialScheduler

from medray.engine.options import RunOptions
from medray.engine.ray_train import ray_session, wait_for_resources
from medray.engine.run import Interrupted, checked_source
from medray.engine.rundir import RunDirectory, versions
from medray.errors import UserError
from medray.storage import is_url
from tuning.alone import alone
from tuning.keeper import StudyKeeper
from tuning.plan import Plan, plan
from tuning.population import Population
from tuning.progress import Progress, best_of, throttled
from tuning.records import JOURNAL, SWEEP_FILE, SweepRecord, read_sweep, read_trial, trial_folder
from tuning.report import write_sweep_report
from tuning.searcher import EndIfFatal, GiveUp, StudySearcher
from tuning.settings import OPERATIONAL, SweepSettings
from tuning.study import HIDDEN, absolute, create_study, make_pruner, open_study, without_password
from tuning.tensorboard import write_hparams
from tuning.trial import TrialJob, run_configuration

log = logging.getLogger("medray.tuning")

_STUDY = "study.log"
"""The study of a sweep that has no database, in its folder."""
_TUNE = ".tune"
"""Folder of Tune's own files, while a sweep runs."""
_BOOKKEEPING_BYTES = 64 * 2**20
"""Memory that a trial asks for whose workers hold the cores; Tune refuses trials that ask for nothing."""


def start(settings: SweepSettings) -> RunDirectory:
    """Run a new sweep to its end.

    Returns:
        its folder.

    Raises:
        UserError: settings, data or storage cannot serve; no trial finished.
        Interrupted: Ctrl-C; it can be resumed.
    """
    settings = replace(settings, storage=absolute(settings.storage))
    made = plan(settings)
    label = settings.study or settings.space or "search"
    if is_url(settings.out) and not settings.storage:
        raise UserError("a sweep in object storage needs a database for its study; give --storage postgresql://...")
    source = checked_source(made.system(made.config), made.options, known={})
    folder = RunDirectory.create(settings.out, f"sweeps/{made.system.slug}", label)
    storage = settings.storage or f"{JOURNAL}{folder.path / _STUDY}"
    name = settings.study or f"{made.system.slug}-{folder.path.name}"
    try:
        study = _study(made, storage, name)
    except UserError:
        with suppress(OSError):
            folder.path.rmdir()
        raise
    with alone(folder):
        _write(folder, _record(made, folder, name))
        return _run(made, folder, study, source)


def resume(settings: SweepSettings) -> RunDirectory:
    """Go on with a sweep: finished trials stay, running ones continue from their checkpoints.

    Raises:
        UserError: there is no sweep, its data has changed, or as `start`.
        Interrupted: as `start`.
    """
    folder = RunDirectory.at(settings.resume)
    saved = read_sweep(folder.path)
    settings = replace(settings, storage=absolute(settings.storage))
    made = plan(settings)
    source = checked_source(made.system(made.config), made.options, known={})
    storage = settings.storage or saved.storage
    if HIDDEN in storage:
        raise UserError(f"the password of {storage} is not kept; give --storage again with --resume")
    open_study(storage, saved.study)  # a new one would begin at 0, and take the results in the folders for its own
    with alone(folder):
        # what was asked for anew holds for the next time too
        _write(folder, replace(saved, num_trials=made.num_trials, **_kept(made.settings)))
        return _run(made, folder, _study(made, storage, saved.study), source)


def stored_settings(folder: str) -> SweepSettings:
    """The settings of the sweep in ``folder``.

    Raises:
        UserError: there is none.
    """
    path = RunDirectory.at(folder).path if is_url(folder) else Path(folder)
    saved: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in read_sweep(path).settings.items()
    }
    return SweepSettings(**saved)


def settled(stored: SweepSettings, asked: SweepSettings) -> None:
    """Check that nothing differs that decides what a resumed sweep gives.

    Raises:
        UserError: something does.
    """
    for name, before in asdict(stored).items():
        now = getattr(asked, name)
        if before != now and name not in OPERATIONAL:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} of a sweep is settled when it starts: it has {before}, got {now}; leave it out")


def _run(made: Plan, folder: RunDirectory, study: Study, source: Any) -> RunDirectory:
    settings, record = made.settings, read_sweep(folder.path)
    keeper = StudyKeeper(
        study,
        made.dimensions,
        sweep=record.id,
        num_trials=made.num_trials,
        sampler=made.sampler,
        seed=settings.seed,
        pruner=_pruner(made),
    )
    job = TrialJob(
        sweep=str(folder),
        system=made.system,
        config=made.config,
        options=made.options,
        source=source,
        preset=made.preset,
        variant=made.variant,
        command=record.command,
        metrics=tuple(made.objectives),
        stop_on=made.stop_on,
        num_seeds=settings.seeds,
        on_gpu=settings.use_gpu and settings.num_workers == 0,
        turn=settings.perturb_every if made.scheduler == "pbt" else 0,
    )
    refresh = partial(_refresh, folder, study)
    log.info("sweep of %s: %d trials, %s; %s", made.system.slug, made.num_trials, _told(made), folder)
    cores = max(1, settings.num_workers) * made.options.cpus_per_worker
    try:
        if keeper.to_hand_out:
            with ray_session(cores, dashboard=True) as dashboard, _interruptible():
                _need_dashboard(settings, dashboard)
                _need_gpus(made)
                _tune(made, job, keeper, _progress(made, keeper, folder, refresh), folder)
    except KeyboardInterrupt:
        refresh()
        raise Interrupted(folder) from None
    refresh()
    if keeper.fatal:
        raise UserError(keeper.fatal)
    if keeper.to_hand_out or keeper.num_open:
        raise Interrupted(folder)
    _tell_best(keeper.mine(), made)
    return folder


def _tune(made: Plan, job: TrialJob, keeper: StudyKeeper, progress: Progress, folder: RunDirectory) -> None:
    # Its other way of telling what happens ignores `verbose`.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the runs have logs of their own
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # the last report has the objectives instead
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # `Progress` tells what fails, in a line
    import ray
    from ray import tune

    settings = made.settings
    within = settings.num_workers == 0
    resources: dict[str, float] = (
        {"CPU": made.options.cpus_per_worker, "GPU": int(settings.use_gpu)}
        if within
        else {"CPU": 0, "memory": _BOOKKEEPING_BYTES}
    )
    at_a_time = settings.concurrent or room(ray.cluster_resources(), made.options, use_gpu=settings.use_gpu)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_configuration, job=job), resources),
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(keeper),
            scheduler=_scheduler(made, keeper),
            num_samples=keeper.to_hand_out,
            # of a population all begin, and take turns
            max_concurrent_trials=None if made.scheduler == "pbt" else at_a_time,
            reuse_actors=True,  # a trial leaves a warm process behind: the next need not import anything
        ),
        run_config=tune.RunConfig(
            name=f"{time.time_ns()}",
            storage_path=str(folder.path / _TUNE),
            failure_config=tune.FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=None),  # see tuning.population
            callbacks=[progress],
            stop=EndIfFatal(keeper),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(folder.path / _TUNE, ignore_errors=True)  # the study and the runs have all that counts


def _scheduler(made: Plan, keeper: StudyKeeper) -> TrialScheduler:
    if made.scheduler == "pbt":
        every, seed = made.settings.perturb_every, made.settings.seed
        return Population(keeper, made.config, made.dimensions, mode=made.stop_mode, every=every, seed=seed)
    return GiveUp(keeper)


def _pruner(made: Plan) -> BasePruner:
    settings = made.settings
    mode = next(iter(made.objectives.values()))
    reverse = bool(made.stop_mode) and made.stop_mode != mode
    return make_pruner(made.scheduler, grace=settings.grace, reduction=settings.reduction, reverse=reverse)


def room(have: Mapping[str, float], options: RunOptions, *, use_gpu: bool) -> int:
    """How many trials a cluster has room for at a time; at least one, which then waits for nodes.

    Args:
        have: resources of the cluster.
        options: of a trial's runs.
        use_gpu: whether each worker, or each trial without any, takes a GPU.
    """
    workers = max(1, options.num_workers)
    fits = [have.get("CPU", 0) // (workers * options.cpus_per_worker)]
    if use_gpu:
        fits.append(have.get("GPU", 0) // workers)
    return max(1, int(min(fits)))


def _study(made: Plan, storage: str, name: str) -> Study:
    setting = {"preset": made.preset, "variant": made.variant, "data": made.data, "set": dict(made.fields_set),
               "seeds": made.settings.seeds, "stop_on": made.stop_on}  # fmt: skip
    return create_study(
        storage,
        name,
        system=made.system.slug,
        objectives=made.objectives,
        dimensions=made.dimensions,
        setting=setting,
    )


def _record(made: Plan, folder: RunDirectory, study: str) -> SweepRecord:
    return SweepRecord(
        id=folder.path.name,
        system=made.system.slug,
        preset=made.preset,
        variant=made.variant,
        data=made.data,
        objectives=made.objectives,
        dimensions=made.dimensions,
        defaults={each.name: getattr(made.config, each.name) for each in made.dimensions},
        fields_set=made.fields_set,
        sampler=made.sampler,
        scheduler=made.scheduler,
        num_seeds=made.settings.seeds,
        num_trials=made.num_trials,
        study=study,
        command=shlex.join(["python", "-m", "tuning.sweep", *map(without_password, sys.argv[1:])]),
        started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        versions=versions(),
        **_kept(made.settings),
    )


def _kept(settings: SweepSettings) -> dict[str, Any]:
    """The settings and the place of the study as sweep.json has them."""
    place = without_password(settings.storage)
    return {"settings": {**asdict(settings), "storage": place, "resume": ""}, "storage": place or f"{JOURNAL}{_STUDY}"}


def _write(folder: RunDirectory, record: SweepRecord) -> None:
    folder.write_json(SWEEP_FILE, {**asdict(record), "dimensions": [each.text for each in record.dimensions]})
    folder.publish()


def _progress(made: Plan, keeper: StudyKeeper, folder: RunDirectory, refresh: Callable[[], None]) -> Progress:
    """Who follows the trials: each goes to TensorBoard's table as it ends, the report is written now and then."""
    report = throttled(refresh)

    def ended(trial: FrozenTrial) -> None:
        try:
            write_hparams(folder.path, read_trial(trial, made.dimensions), made.objectives)
            report()
        except Exception:  # a picture that fails must not end hours of work; at the end it will be told
            log.warning("the report could not be written", exc_info=True)

    return Progress(keeper, made.objectives, made.num_trials, ended)


def _refresh(folder: RunDirectory, study: Study) -> None:
    """Write the report anew."""
    write_sweep_report(folder.path, study)
    folder.publish()


def _need_dashboard(settings: SweepSettings, dashboard: str) -> None:
    """Ray frees what the workers of a lost trial hold through the service that is part of its dashboard."""
    if settings.num_workers and not dashboard:
        raise UserError(
            "trials with workers of their own need Ray's dashboard, else the cores of lost trials stay taken; "
            "start the cluster with its dashboard, or give --num-workers 0"
        )
    if dashboard:
        log.info("Ray's dashboard: http://%s", dashboard)


def _need_gpus(made: Plan) -> None:
    """Tune would wait for a GPU without a word, where none can come."""
    settings = made.settings
    wait_for_resources(replace(made.options, num_workers=max(1, settings.num_workers), use_gpu=settings.use_gpu))


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM (`ray job stop`, a pod that is evicted) becomes the Ctrl-C that Tune stops at in good order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Tune leaves its own handlers behind, which would swallow the first Ctrl-C after it.
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _told(made: Plan) -> str:
    searched = ", ".join(each.text.removeprefix("config.") for each in made.dimensions)
    judged = " and ".join(f"{metric} ({mode})" for metric, mode in made.objectives.items())
    return f"{judged} over {searched}"


def _tell_best(trials: list[FrozenTrial], made: Plan) -> None:
    """The end in a line.

    Raises:
        UserError: no trial has finished.
    """
    if not trials:
        log.info("other sweeps of the study %s have tried all choices", made.settings.study)
        return
    best = best_of(trials, made.objectives)
    if best is None:
        reasons = [trial.user_attrs["failure"] for trial in trials if trial.user_attrs.get("failure")]
        why = f"; the first failed: {reasons[0]}" if reasons else ""
        raise UserError(f"none of the {len(trials)} trials finished{why}")
    values = ", ".join(f"{name} {value:.4g}" for name, value in zip(made.objectives, best.values, strict=True))
    log.info(
        "best in %s: trial %d (%s), %s", next(iter(made.objectives)), best.number, values, trial_folder(best.number)
    )
