"""The page's tables and lists: trials, the best settings beside the preset's, failures, facts."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medray.errors import UserError
from medray.report.measures import NO_VALUE, duration
from tuning.records import STATES, TrialRecord
from tuning.report.axes import described
from tuning.report.commands import reproduce_command
from tuning.report.results import ENDED, Results, seed_values, shown, spread_of
from tuning.space import Value

_BADGES = {"finished": "good", "stopped early": "open", "failed": "bad"}
_MAX_COMMANDS = 10


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what is read.
        spread: over the seeds, in smaller print; may be empty.
        sort: what it is sorted by, where that is not the text.
    """

    text: str
    spread: str = ""
    sort: str = ""


@dataclass(frozen=True)
class Row:
    """A trial.

    Attributes:
        number: of it.
        state: finished, stopped early, failed, running or waiting.
        badge: kind of the mark that shows the state.
        scores: a cell for each objective.
        settings: a cell for each searched field.
        seconds: of work.
        sweep: that made it.
        link: to its own page, or "".
        front: whether no other trial beats it.
    """

    number: int
    state: str
    badge: str
    scores: Sequence[Cell]
    settings: Sequence[Cell]
    seconds: Cell
    sweep: str
    link: str
    front: bool


@dataclass(frozen=True)
class Compared:
    """A searched field: what was searched, the preset's value, the best ones."""

    name: str
    searched: str
    default: str
    best: Sequence[str]


@dataclass(frozen=True)
class Tile:
    """A headline figure."""

    label: str
    value: str
    under: str = ""


def trial_rows(results: Results) -> list[Row]:
    """All trials: ranked ones first, then those that are not done, then the rest."""
    rank = {trial.number: index for index, trial in enumerate(results.ranked)}
    order = {state: index for index, state in enumerate(("running", "waiting", "finished", "stopped early", "failed"))}
    trials = sorted(results.trials, key=lambda t: (rank.get(t.number, len(rank)), order[t.state], t.number))
    return [_row(results, trial) for trial in trials]


def compared(results: Results) -> list[Compared]:
    """The searched fields, with the preset's value and that of the best trial for each objective."""
    best = [trial for index in range(len(results.metrics)) if (trial := results.best(index))]
    return [
        Compared(
            dimension.name,
            described(dimension),
            _setting(results.record.defaults, dimension.name).text,
            [_setting(trial.config, dimension.name).text for trial in best],
        )
        for dimension in results.record.dimensions
    ]


def failures(results: Results) -> list[TrialRecord]:
    """Trials that failed."""
    return [trial for trial in results.trials if trial.state == "failed"]


def commands(results: Results) -> list[tuple[str, str]]:
    """What the command is for, and the command, of the best trials."""
    made = []
    for trial in results.ranked[:_MAX_COMMANDS]:
        if trial.number in results.front:
            seeds = [run.seed for run in trial.seeds] or [0]
            more = f"; its other seeds: {', '.join(map(str, seeds[1:]))}" if seeds[1:] else ""
            scores = ", ".join(f"{m} {shown(v)}" for m, v in zip(results.metrics, trial.values, strict=True))
            title = f"Trial {trial.number}: {scores}. Seed {seeds[0]}{more}."
            made.append((title, _command(results, trial, seeds[0])))
    return made if len(results.metrics) > 1 else made[:1]


def tiles(results: Results) -> list[Tile]:
    """Best score of each objective, and how many trials ended how."""
    made = []
    for index, metric in enumerate(results.metrics):
        best = results.best(index)
        if best is not None:
            spread = spread_of(best, metric)
            seeds = f"± {shown(spread)} over {len(seed_values(best, metric))} seeds, " if spread is not None else ""
            made.append(Tile(f"best {metric}", shown(best.values[index]), f"{seeds}trial {best.number}"))
    counts = Counter(trial.state for trial in results.trials)
    made += [Tile(_LABELS.get(state, state), str(counts[state])) for state in STATES.values() if counts[state]]
    return made


_LABELS = {"running": "running, or left so"}


def status(results: Results) -> tuple[str, str]:
    """Kind and text of the mark beside the heading."""
    ended = sum(trial.state in ENDED for trial in results.own)
    asked = results.record.num_trials
    if ended >= asked:
        return ("good", "finished") if results.ranked else ("bad", "finished without a result")
    return "open", f"{ended} of {asked} trials ended"


def sentences(results: Results) -> list[str]:
    """What a reader should know before the figures."""
    told = []
    counts = Counter(trial.state for trial in results.trials)
    if not results.trials:
        told.append("No trial has started yet.")
    elif not results.ranked:
        all_failed = counts["failed"] == len(results.trials)
        told.append(
            "All trials failed; their reasons are below."
            if all_failed
            else "No trial has finished yet, so there is nothing to compare."
        )
    elif len(results.ranked) == 1:
        told.append("One trial has finished so far: there is nothing to compare it with.")
    if odd := [trial.number for trial in results.trials if trial.finished and trial not in results.ranked]:
        told.append(f"Not ranked, since an objective is not a finite number: trial {', '.join(map(str, odd))}.")
    foreign = Counter(trial.sweep for trial in results.trials if trial not in results.own)
    if foreign:
        told.append(
            f"The study {results.record.study} is shared: {sum(foreign.values())} of the {len(results.trials)} trials "
            f"are of {', '.join(sorted(foreign))}."
        )
    return told


def facts(results: Results) -> list[tuple[str, str]]:
    """The sweep in a line: system, data, how it searched."""
    record = results.record
    objectives = ", ".join(f"{metric} ({mode})" for metric, mode in record.objectives.items())
    return [
        ("preset", record.preset),
        ("variant", record.variant),
        ("data", record.data),
        ("objective" if len(record.objectives) == 1 else "objectives", objectives),
        ("sampler", record.sampler),
        ("scheduler", record.scheduler),
        ("seeds per trial", str(record.num_seeds)),
        ("trials asked for", str(record.num_trials)),
        ("started", record.started),
        *([("last change", results.changed)] if results.changed else []),
    ]


def resources(results: Results) -> list[Tile]:
    """What all trials cost together."""
    worked = [trial for trial in results.trials if trial.seconds]
    if not worked:
        return []
    hours = {
        "CPU-hours": sum(trial.seconds * trial.num_cpus for trial in worked) / 3600,
        "GPU-hours": sum(trial.seconds * trial.num_gpus for trial in worked) / 3600,
    }
    seconds = [trial.seconds for trial in worked]
    again = sum(max(0, trial.attempts - 1) for trial in results.trials)
    return [
        *(Tile(name, shown(value)) for name, value in hours.items() if value or name == "CPU-hours"),
        Tile("work in all", duration(sum(seconds))),
        Tile("of a trial, median", duration(statistics.median(seconds))),
        Tile("tries after a failure", str(again)),
    ]


def settings(results: Results) -> list[tuple[str, str]]:
    """All flags of the sweep that say something, and where the study is."""
    given = {**results.record.settings, "study": results.record.study, "storage": results.record.storage}
    return [(name.replace("_", " "), _plain(value)) for name, value in given.items() if _plain(value)]


def _row(results: Results, trial: TrialRecord) -> Row:
    values = [*trial.values, *[None] * (len(results.metrics) - len(trial.values))]
    return Row(
        trial.number,
        trial.state,
        _BADGES.get(trial.state, ""),
        [_score(trial, metric, value) for metric, value in zip(results.metrics, values, strict=False)],
        [_setting(trial.config, dimension.name) for dimension in results.record.dimensions],
        Cell(duration(trial.seconds), sort=f"{trial.seconds:.3f}") if trial.seconds else Cell(NO_VALUE),
        trial.sweep or results.record.id,
        results.link(trial),
        trial.number in results.front,
    )


def _command(results: Results, trial: TrialRecord, seed: int) -> str:
    try:
        return reproduce_command(results.record, trial, seed)
    except UserError as error:  # the system is gone, or has lost a field since: the page is none the worse
        return f"# {error}"


def _score(trial: TrialRecord, metric: str, value: float | None) -> Cell:
    if value is None:
        return Cell(NO_VALUE)
    spread = spread_of(trial, metric)
    sort = repr(value).replace("inf", "Infinity")  # as the script reads numbers
    return Cell(shown(value), "" if spread is None else f"± {shown(spread)}", sort)


def _setting(config: Mapping[str, Value], name: str) -> Cell:
    if name not in config:
        return Cell(NO_VALUE)
    value = config[name]
    return Cell(shown(value), sort=repr(value) if isinstance(value, float) else "")


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "" if value is None else str(value)
