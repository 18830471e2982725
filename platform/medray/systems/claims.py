"""What the claims of the systems share: train and score arms over seeds, then judge paired differences.

An arm is a variant with its data. Every seed trains and scores all arms on the same cases, so that differences are
paired by seed and case; intervals come from a bootstrap that draws seeds first and then cases within them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from medray.data.sources import open_source
from medray.metrics.statistics import paired_bootstrap
from medray.system import ClaimCheck, Row, System, Workbench


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One of the things a claim compares.

    Attributes:
        name: under which its scores appear.
        config: of the system.
        data: source it is trained and scored on; ``{seed}`` in it stands for the seed.
    """

    name: str
    config: Any
    data: str


def variant_arms(system: type[System[Any]], names: Sequence[str], config: Any, data: str) -> list[Arm]:
    """An arm for each of a system's variants, all with this config but for what the variant changes, on one source."""
    return [Arm(name=name, config=replace(config, **system.variants[name].config), data=data) for name in names]


@dataclass(frozen=True)
class Scores:
    """What the arms scored, each record with "variant" and "seed".

    Attributes:
        rows: one per case, as `Evaluation.rows`.
        summaries: one per arm and seed, as `Evaluation.summary`.
    """

    rows: list[Row]
    summaries: list[Row]


def score_arms(work: Workbench, system: type[System[Any]], arms: Sequence[Arm], *, seeds: Sequence[int]) -> Scores:
    """Train every arm on every seed and score it on that seed's test cases, side by side where there are workers.

    Args:
        work: where to run.
        system: whose arms they are.
        arms: each is trained by itself, whatever it shares with another.
        seeds: of the data (``{seed}``), the split and the training.
    """
    work.say(f"claim over seeds {list(seeds)}: {', '.join(arm.name for arm in arms)}")
    pairs = [(seed, arm) for seed in seeds for arm in arms]
    parts = work.map_runs(functools.partial(_score, system), pairs, name="arm")
    return Scores([row for part in parts for row in part.rows], [row for part in parts for row in part.summaries])


def _score(system: type[System[Any]], work: Workbench, pair: tuple[int, Arm]) -> Scores:
    work.seed, arm = pair
    made = system(arm.config)
    source = open_source(arm.data.replace("{seed}", str(work.seed)), fields=made.field_kinds)
    splits = made.split(replace(source, cases=tuple(made.arrange(source.cases))), work.seed)
    evaluation = made.evaluate(work, made.train(work, splits), splits.test)
    told: Row = {"variant": arm.name, "seed": work.seed}
    return Scores([{**told, **row} for row in evaluation.rows], [{**told, **evaluation.summary}])


def difference(
    records: Sequence[Row],
    metric: str,
    better: str,
    worse: str,
    *,
    statement: str,
    at_least: float = 0.0,
    lower_is_better: bool = False,
) -> ClaimCheck:
    """Whether one arm beats another in a metric, on records paired by seed and case.

    Args:
        records: rows or summaries of `Scores`; a record without the metric, or with nan, is left out with its pair.
        metric: name of the number compared.
        better: arm that should win.
        worse: arm that should lose.
        statement: the inequality in words.
        at_least: by how much it should win; with 0 the mean must be above 0.
        lower_is_better: for distances and errors; the value reported is then ``worse`` minus ``better``.

    Returns:
        the mean difference with its 95 % bootstrap interval; not held where nothing could be paired.
    """
    ours, theirs = (_by_case(records, metric, name) for name in (better, worse))
    sign = -1.0 if lower_is_better else 1.0
    differences = {key: sign * (value - theirs[key]) for key, value in ours.items() if key in theirs}
    mean, low, high = paired_bootstrap(list(differences.values()), groups=[seed for seed, _ in differences])
    held = mean >= at_least if at_least else mean > 0
    first, second = (worse, better) if lower_is_better else (better, worse)
    return ClaimCheck(f"{metric}_{first}_minus_{second}", statement, mean, at_least, (low, high), held)


def bound(
    records: Sequence[Row],
    metric: str,
    arm: str,
    *,
    statement: str,
    at_least: float | None = None,
    at_most: float | None = None,
) -> ClaimCheck:
    """Whether an arm's mean of a metric stays on one side of a number; arguments as of `difference`.

    Raises:
        ValueError: not exactly one of ``at_least`` and ``at_most``.
    """
    if (at_least is None) == (at_most is None):
        raise ValueError("bound takes either at_least or at_most")
    values = _by_case(records, metric, arm)
    mean, low, high = paired_bootstrap(list(values.values()), groups=[seed for seed, _ in values])
    if at_least is not None:
        return ClaimCheck(f"{metric}_{arm}", statement, mean, at_least, (low, high), mean >= at_least)
    assert at_most is not None
    return ClaimCheck(f"{metric}_{arm}", statement, mean, at_most, (low, high), mean <= at_most)


def _by_case(records: Sequence[Row], metric: str, arm: str) -> dict[tuple[int, str], float]:
    found = {}
    for record in records:
        value = record.get(metric)
        if record["variant"] == arm and isinstance(value, int | float) and math.isfinite(value):
            found[int(record["seed"]), str(record.get("case", ""))] = float(value)
    return found
