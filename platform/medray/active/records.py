"""What a round leaves behind: numbers for the curves, the picks, the scores as counts, and where the time went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medray.active.sampler import Ranking

_BINS = 40


@dataclass(frozen=True)
class Span:
    """When something was done, in seconds since 1970: actors on other nodes share no other clock."""

    began: float
    ended: float


@dataclass(frozen=True)
class Histogram:
    """Scores of a round, counted.

    Attributes:
        edges: one more than bins.
        unlabelled: counts.
        labelled: likewise; all 0 where the sampler does not score them.
        cut: score of the last case that was picked.
    """

    edges: tuple[float, ...]
    unlabelled: tuple[int, ...]
    labelled: tuple[int, ...]
    cut: float


@dataclass(frozen=True)
class RoundRecord:
    """A finished round.

    Attributes:
        number: from 0; the first one is trained on the initial set.
        num_labelled: cases the task network was trained on.
        scores: of that network on the test cases.
        picks: ids asked for afterwards, none in the last round.
        pick_scores: what the sampler said of them.
        num_rejected: cases of all rounds so far that nobody could label.
        sampler: what the sampler measured of itself.
        seconds: wall time of the round by part: learner (training and scoring), sampler (training), ranking, waiting
            (for people), orchestration (all else).
        histogram: of the sampler's scores.
    """

    number: int
    num_labelled: int
    scores: Mapping[str, float]
    picks: tuple[str, ...] = ()
    pick_scores: tuple[float, ...] = ()
    num_rejected: int = 0
    sampler: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    histogram: Histogram | None = None


def histogram(ranking: Ranking, unlabelled: Sequence[str]) -> Histogram | None:
    """The scores of a round in bins that labelled and unlabelled cases share; None where there are none."""
    if ranking.scores is None or not len(ranking.scores):
        return None
    labelled = ranking.labelled_scores if ranking.labelled_scores is not None else ranking.scores[:0]
    edges = np.histogram_bin_edges(np.concatenate([ranking.scores, labelled]), bins=_BINS)
    counts = [np.histogram(scores, bins=edges)[0].tolist() for scores in (ranking.scores, labelled)]
    cut = max(pick_scores(ranking, unlabelled), default=math.nan)
    return Histogram(tuple(edges.tolist()), tuple(counts[0]), tuple(counts[1]), cut)


def read_record(kept: dict[str, Any]) -> RoundRecord:
    """A `RoundRecord` from what JSON kept of it."""
    counted = kept["histogram"]
    if counted is not None:
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in counted.items()}
        counted = Histogram(**values)
    tuples = {key: tuple(kept[key]) for key in ("picks", "pick_scores")}
    return RoundRecord(**{**kept, **tuples, "histogram": counted})


def pick_scores(ranking: Ranking, unlabelled: Sequence[str]) -> tuple[float, ...]:
    """The scores of the picks, in their order; none where the sampler gives none."""
    if ranking.scores is None:
        return ()
    wanted = set(ranking.picks)
    scores = {name: float(score) for name, score in zip(unlabelled, ranking.scores, strict=True) if name in wanted}
    return tuple(scores[name] for name in ranking.picks)


def seconds_of(began: float, ended: float, parts: Mapping[str, Span], waited_s: float) -> dict[str, float]:
    """Wall seconds by part; orchestration is the time in which nobody trained, scored, ranked or was waited for.

    Parts may overlap, and those of a resumed round may be from before it was resumed.
    """
    busy, until = 0.0, began
    for span in sorted(parts.values(), key=lambda span: span.began):
        start, stop = max(span.began, until), min(span.ended, ended)
        if stop > start:
            busy, until = busy + stop - start, stop
    lengths = {name: span.ended - span.began for name, span in parts.items()}
    return {**lengths, "waiting": waited_s, "orchestration": max(0.0, ended - began - busy - waited_s)}
