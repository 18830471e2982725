"""Numbers of a finished campaign: the area under its label curve, and how many rare cases it asked for."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from medray.active.records import RoundRecord

EARLY = 2
"""Rounds whose picks are looked at for rare cases: later ones find fewer left."""


def area_under_curve(records: Sequence[RoundRecord], metric: str) -> float:
    """Mean height of the metric over the number of labels, by trapezoids; the metric itself for one round."""
    labels = np.array([record.num_labelled for record in records], dtype=float)
    heights = np.array([record.scores[metric] for record in records])
    if labels[-1] == labels[0]:
        return float(heights.mean())
    return float(np.trapezoid(heights, labels) / (labels[-1] - labels[0]))


def enrichment(picks: Sequence[str], groups: Mapping[str, str], available: Sequence[str]) -> float:
    """Share of rare cases in the picks over their share in what could be picked; nan where nothing is rare.

    Args:
        picks: ids.
        groups: of every case of the pool, by id; empty where it is unknown.
        available: ids of what could be picked. Rare is what is not of its largest group.
    """
    known = [groups[name] for name in available if groups[name]]
    chosen = [groups[name] for name in picks if groups[name]]
    if not known or not chosen:
        return math.nan
    common = max(sorted(set(known)), key=known.count)
    rare = sum(group != common for group in known) / len(known)
    return sum(group != common for group in chosen) / len(chosen) / rare if rare else math.nan


def campaign_numbers(
    records: Sequence[RoundRecord], metric: str, groups: Mapping[str, str], initial: Collection[str]
) -> dict[str, float]:
    """What a campaign is compared by.

    Args:
        records: of its rounds.
        metric: of the task.
        groups: of every case of the pool, by id.
        initial: ids of those that were labelled before the first query.
    """
    early = [name for record in records[:EARLY] for name in record.picks]
    numbers = {
        f"area_{metric}": area_under_curve(records, metric),
        "enrichment": enrichment(early, groups, [name for name in groups if name not in initial]),
        "labels": float(records[-1].num_labelled),
        "rejected": float(records[-1].num_rejected),
    }
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
