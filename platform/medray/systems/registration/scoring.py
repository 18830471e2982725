"""Scores and pictures of registered pairs. Shared by the registration systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medray.metrics.registration import (
    dice_per_label,
    end_point_error_px,
    folded_pixels,
    landmark_distance_mm,
    warp_labels,
)
from medray.system import Evaluation, Figure, Row
from medray.systems.registration.pair_reader import ImagePair


@dataclass(frozen=True)
class ScoredPair:
    """One registered pair: its row of the table, the sums behind the aggregates, and maybe a picture."""

    row: Row
    sums: Mapping[str, tuple[float, float]]
    figure: Figure | None = None


def score_pair(
    pair: ImagePair, displacement: NDArray[np.float32], names: Mapping[int, str], seconds: float
) -> ScoredPair:
    """Everything that can be said of one displacement.

    Args:
        pair: the images, with whatever is known of labels, landmarks and truth.
        displacement: (D, *shape) in pixels.
        names: organ value to name.
        seconds: CPU time the registration took.

    Returns:
        Row and sums with the metrics dice_<organ>, dice_mean, landmark_mm, epe_px and folded_percent, each except the
        last also as initial_ before registration.
    """
    field = torch.from_numpy(np.ascontiguousarray(displacement))[None]
    folded, pixels = folded_pixels(field)
    sums: dict[str, tuple[float, float]] = {
        "folded_percent": (100 * float(folded.sum()), float(pixels.sum())),
        "cpu_s": (seconds, 1.0),
    }
    for prefix, used in (("", field), ("initial_", torch.zeros_like(field))):
        sums.update({prefix + name: value for name, value in _alignment(pair, used, names).items()})
    row: Row = {"case": pair.id}
    row.update({name: total / count for name, (total, count) in sums.items() if count})
    return ScoredPair(row, sums)


def _alignment(pair: ImagePair, field: Tensor, names: Mapping[int, str]) -> dict[str, tuple[float, float]]:
    sums: dict[str, tuple[float, float]] = {}
    if pair.moving_label is not None and pair.fixed_label is not None:
        moving, fixed = (torch.from_numpy(label)[None] for label in (pair.moving_label, pair.fixed_label))
        dice = dice_per_label(warp_labels(moving, field), fixed, list(names))[0]
        present = dice.isfinite()
        for name, value, known in zip(names.values(), dice.tolist(), present.tolist(), strict=True):
            if known:
                sums[f"dice_{name}"] = (value, 1.0)
        if present.any():
            sums["dice_mean"] = (float(dice[present].sum()), float(present.sum()))
    if len(pair.fixed_landmarks):
        distances = landmark_distance_mm(
            field, torch.from_numpy(pair.fixed_landmarks), torch.from_numpy(pair.moving_landmarks), pair.spacing_mm
        )
        known = distances.isfinite()
        if known.any():
            sums["landmark_mm"] = (float(distances[known].sum()), float(known.sum()))
    if pair.truth is not None:
        mask = None if pair.mask is None else torch.from_numpy(pair.mask)[None]
        total, count = end_point_error_px(field, torch.from_numpy(pair.truth)[None], mask)
        sums["epe_px"] = (float(total.sum()), float(count.sum()))
    return sums


def summarize(scored: Sequence[ScoredPair]) -> Evaluation:
    """Sums over all pairs, divided once. dice_mean weighs every organ of every pair alike."""
    totals: dict[str, list[float]] = {}
    for pair in scored:
        for name, (total, count) in pair.sums.items():
            entry = totals.setdefault(name, [0.0, 0.0])
            entry[0] += total
            entry[1] += count
    return Evaluation(
        rows=[pair.row for pair in scored],
        summary={name: total / count for name, (total, count) in totals.items() if count},
        figures=[pair.figure for pair in scored if pair.figure is not None],
    )
