"""The page's tables and lists: trials, the best settings beside the preset's, failures, commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medray.errors import UserError
from medray.report.measures import NO_VALUE, duration
from tuning.records import TrialRecord
from tuning.report.axes import described
from tuning.report.commands import reproduce_command
from tuning.report.results import Results, shown, spread_of
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
