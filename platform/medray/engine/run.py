"""The verbs of every job: train, evaluate, predict, claim. Each leaves a run directory that explains itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medray import registry
from medray.data.case import Source, Splits
from medray.data.check import check_cases
from medray.data.sources import open_source
from medray.engine.models import config_from_plain, load_model, save_model
from medray.engine.options import RunOptions
from medray.engine.run_record import describe, figures_of, result_record
from medray.engine.rundir import RunDirectory
from medray.engine.workbench import InProcessWorkbench, terminated_as_interrupted
from medray.errors import UserError
from medray.progress import counted
from medray.report.html import write_report
from medray.system import ClaimResult, Evaluation, Prediction, PredictRequest, System, Trained

log = logging.getLogger(__name__)


class Interrupted(KeyboardInterrupt):
    """A run that was stopped cleanly. ``run`` is what to resume."""

    def __init__(self, run: RunDirectory) -> None:
        super().__init__(f"stopped; go on with --resume {run}")
        self.run = run


def train(slug: str, config: Any, options: RunOptions, *, preset: str, variant: str) -> RunDirectory:
    """Check the data, train, score on the test cases, write the report.

    Returns:
        the run directory.

    Raises:
        UserError: data or settings cannot serve; raised before any worker starts where it can be known then.
        Interrupted: Ctrl-C; the run can be resumed.
    """
    system_class = registry.load(slug)
    system = system_class(config)
    source, splits = _open_data(system, options)
    run = RunDirectory.create(options.out, slug, variant)
    run.write_json("config.json", describe(run, system, options, preset, variant, source, splits))
    return _train(run, system, options, splits, preset=preset, variant=variant)


def resume(where: str | Path, *, options: RunOptions | None = None, expect: str | None = None) -> RunDirectory:
    """Go on with a run where its newest whole checkpoint left it.

    Args:
        where: the run directory, a folder or an ``s3://`` url.
        options: the run's own, with others for what does not change the result (`OPERATIONAL`).
        expect: slug of the system it must be a run of.

    Raises:
        UserError: no run there, a run of another system, or its data has changed since.
    """
    run = RunDirectory.open(where)
    saved = run.read_config()
    if expect is not None and saved["system"] != expect:
        raise UserError(f"{where} is a run of {saved['system']}, not of {expect}")
    system_class = registry.load(saved["system"])
    system = system_class(config_from_plain(system_class.config_class, saved["config"]))
    options = options or config_from_plain(RunOptions, saved["options"])
    source, splits = _open_data(system, options)
    if source.fingerprint != saved["data"]["fingerprint"]:
        raise UserError(f"the data in {options.data} has changed since {where} began; start a new run instead")
    return _train(run, system, options, splits, preset=saved["preset"], variant=saved["variant"])


def evaluate(checkpoint: str | Path, options: RunOptions, *, expect: str | None = None) -> RunDirectory:
    """Score a trained system on every case of a data source.

    Returns:
        a run directory with evaluation.json and the report.
    """
    system, trained, card = load_model(checkpoint, expect=expect)
    source = checked_source(system, options, known=trained.about)
    run = RunDirectory.create(options.out, system.slug, "evaluate")
    splits = Splits(train=(), validation=(), test=source.cases)
    run.write_json("config.json", describe(run, system, options, "", card["variant"], source, splits))
    with _resumable(run), _workbench(run, options) as work:
        started = time.perf_counter()
        found = {card["variant"]: (trained, system.evaluate(work, trained, source.cases))}
        found |= _compare(work, system, options, splits, skip=card["variant"])
        _finish(run, system, found, options, "", card["variant"], source, checkpoint, started)
    return run


def predict(checkpoint: str | Path, request: PredictRequest, *, expect: str | None = None) -> Prediction:
    """Use a trained system on new scans, in this process."""
    system, trained, _ = load_model(checkpoint, expect=expect)
    wanted = system.input_names(trained.about)
    more = system.optional_inputs
    if not len(wanted) <= len(request.inputs) <= len(wanted) + len(more):
        takes = f"{len(wanted)} ({', '.join(wanted)})" + (f" and may take {', '.join(more)}" if more else "")
        raise UserError(f"--input of this {system.slug} model takes {takes}, got {len(request.inputs)}")
    for path in (*request.inputs, *request.labels):
        if not path.exists():
            raise UserError(f"there is no file {path}")
    return system.predict(trained, request)


def claim(slug: str, preset: str, options: RunOptions) -> tuple[ClaimResult, RunDirectory]:
    """Run the paper's claim over its variants and seeds.

    Returns:
        the checks with every raw value, and the run directory that holds claim.json.
    """
    system_class = registry.load(slug)
    config, data = system_class.claim_setting(preset)
    run = RunDirectory.create(options.out, slug, "claim")
    nothing = Source(data, (), ""), Splits((), (), ())
    described = describe(run, system_class(config), replace(options, data=data), preset, "claim", *nothing)
    run.write_json("config.json", described)
    started = time.perf_counter()
    with _resumable(run), _workbench(run, options) as work:
        result = system_class.claim(work, preset)
    run.write_json("claim.json", {**asdict(result), "held": result.held})
    metrics = {check.name: check.value for check in result.checks}
    run.write_json(
        "result.json",
        result_record(slug, "claim", preset, options.seed, metrics, time.perf_counter() - started, 0.0, None, ""),
    )
    write_report(run.path)
    run.publish()
    return result, run


def _train(
    run: RunDirectory, system: System[Any], options: RunOptions, splits: Splits, *, preset: str, variant: str
) -> RunDirectory:
    saved = run.read_config()["data"]
    source = Source(saved["spec"], (), saved["fingerprint"])
    with _resumable(run), _workbench(run, options) as work:
        started = time.perf_counter()
        work.say(
            f"{system.slug} ({variant}): {len(splits.train)} training, {len(splits.validation)} validation and "
            f"{len(splits.test)} test cases; run directory {run}"
        )
        trained = system.train(work, splits)
        save_model(run, system, trained, variant=variant)
        folder = f"{run}/checkpoints/final"
        work.say(f"scoring {len(splits.test)} test cases")
        found = {variant: (trained, system.evaluate(work, trained, splits.test))}
        found |= _compare(work, system, options, splits, skip=variant)
        _finish(run, system, found, options, preset, variant, source, folder, started)
    return run


def _open_data(system: System[Any], options: RunOptions) -> tuple[Source, Splits]:
    if not options.data:
        raise UserError("this preset needs your own data; give a folder, a manifest or another source with --data")
    source = checked_source(system, options, known={})
    return source, system.split(source, options.seed)


def checked_source(system: System[Any], options: RunOptions, *, known: Mapping[str, Any]) -> Source:
    """The source as the system groups it, without its bad cases; or an error that names them, as the options say."""
    source = open_source(options.data, fields=system.field_kinds)
    source = replace(source, cases=tuple(system.arrange(source.cases)))
    with counted(f"checking {source.spec}", len(source.cases)) as tick:
        good, bad = check_cases(
            source.cases,
            required=system.required_fields(source.cases, training=not known),
            spatial_dims=system.expected_dims(),
            empty_labels=system.empty_labels,
            policy=options.bad_samples,
            progress=tick,
        )
    unusable = (*source.bad, *system.problems(good, known))
    if unusable and options.bad_samples == "fail":
        more = f" ({len(unusable)} such cases)" if len(unusable) > 1 else ""
        raise UserError(
            f"case {unusable[0].case}: {unusable[0].reason}{more}; --bad-samples quarantine goes on without"
        )
    bad = (*bad, *unusable)
    for case in bad:
        log.warning("set aside %s: %s", case.case, case.reason)
    names = {case.case for case in bad}
    return replace(source, cases=tuple(case for case in good if case.id not in names), bad=bad)


def _compare(
    work: InProcessWorkbench, system: System[Any], options: RunOptions, splits: Splits, *, skip: str
) -> dict[str, tuple[Trained, Evaluation]]:
    """Score other variants on the same test cases, training those that learn."""
    found: dict[str, tuple[Trained, Evaluation]] = {}
    others = [name for name in options.compare if name != skip]
    if others and system.alone():
        work.say(f"not compared with {', '.join(others)}: {system.alone()}")
        return found
    for name in others:
        work.say(f"comparing with {name}")
        other = type(system)(replace(system.config, **system.variants[name].config))
        bench = work.nested(f"compare/{name}")
        trained = other.train(bench, splits)
        found[name] = trained, other.evaluate(bench, trained, splits.test)
    return found


def _finish(
    run: RunDirectory,
    system: System[Any],
    found: Mapping[str, tuple[Trained, Evaluation]],
    options: RunOptions,
    preset: str,
    variant: str,
    source: Source,
    checkpoint: str | Path,
    started: float,
) -> None:
    run.write_json(
        "evaluation.json",
        {"variants": {name: {"rows": e.rows, "summary": e.summary} for name, (_, e) in found.items()}},
    )
    own = [figure for name in found for figure in figures_of(*found[name], name if name != variant else "")]
    run.write_figures([*system.overview(found), *own])
    trained, evaluation = found[variant]
    rate = max((fit.samples_per_second for fit in trained.fits.values()), default=0.0)
    metrics = {**trained.metrics, **evaluation.summary}
    seconds = time.perf_counter() - started
    run.write_json(
        "result.json",
        result_record(
            system.slug, variant, preset, options.seed, metrics, seconds, rate, str(checkpoint), source.fingerprint
        ),
    )
    write_report(run.path)
    run.publish()


@contextmanager
def _workbench(run: RunDirectory, options: RunOptions) -> Iterator[InProcessWorkbench]:
    """Ray where the run has workers, this process where it has none. SIGTERM is heard between loops too."""
    if options.num_workers == 0:
        with terminated_as_interrupted():
            yield InProcessWorkbench(run.path, options, mirror=run.mirror)
        return
    from medray.engine.ray_train import RayWorkbench, ray_session

    # in this order: Ray listens to SIGTERM itself from its start on, and would end without a word
    with ray_session(options.num_workers * options.cpus_per_worker), terminated_as_interrupted():
        yield RayWorkbench(run.path, options, mirror=run.mirror)


@contextmanager
def _resumable(run: RunDirectory) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(run) from None
