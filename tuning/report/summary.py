"""What the page says about a sweep in words and single figures."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medray.report.measures import duration
from tuning.records import STATES
from tuning.report.results import Results, seed_values, shown, spread_of

_ENDED = ("finished", "stopped early", "failed")
_LABELS = {"running": "running, or left so"}


@dataclass(frozen=True)
class Tile:
    """A headline figure."""

    label: str
    value: str
    under: str = ""


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


def status(results: Results) -> tuple[str, str]:
    """Kind and text of the mark beside the heading."""
    ended = sum(results.is_own(trial) and trial.state in _ENDED for trial in results.trials)
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
    ranked = {trial.number for trial in results.ranked}
    if odd := [trial.number for trial in results.trials if trial.finished and trial.number not in ranked]:
        told.append(f"Not ranked, since an objective is not a finite number: trial {', '.join(map(str, odd))}.")
    foreign = Counter(trial.sweep for trial in results.trials if not results.is_own(trial))
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


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "" if value is None else str(value)
