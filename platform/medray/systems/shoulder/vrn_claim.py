"""The claims of paper and issue on the phantom, over seeds: what `python jobs/vrn_rct.py claim` runs.

1. From labels of volumes alone the network tells a tear from none better than it sizes it: binary accuracy above
   top-1 ± 1 above top-1 (paper .925, .875, .690), and top-1 ± 1 above top-1 by a tenth.
2. Volumes beat slices: the same training of a 2D ResNet-18 on coronal slices has a lower top-1 (the issue's; the
   authors call for the comparison).
3. The heat map's peak lies within the tear far more often than by chance, and two blocks place it better than four.

All arms see the same cubes; differences are paired by seed and test case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medray.errors import UserError
from medray.system import ClaimCheck, ClaimResult, Row, Workbench
from medray.systems.claims import difference, score_arms, variant_arms
from medray.systems.shoulder.vrn_config import VrnConfig
from medray.systems.shoulder.vrn_presets import PRESETS, SMALL
from medray.systems.shoulder.vrn_system import VrnRct

ARMS = ("vrn", "vrn4", "resnet2d")
_BARE = {"validation_fraction": 0.0, "examples": 0}  # no curves and no pictures
_COARSE = (
    "vrn4's map has 2^3 voxels on these cubes, so its peak lies near a corner of the cube whatever it has learned: "
    "that two blocks place the tear better holds by this geometry and is no evidence for the paper's reason"
)
MIN_NEIGHBOR_GAIN = 0.10
MIN_ABOVE_CHANCE = 0.25


@dataclass(frozen=True)
class ClaimSize:
    """How much of the experiment is run. ``config`` holds for every variant alike."""

    seeds: int
    data: str
    config: Mapping[str, Any]

    def settings(self) -> VrnConfig:
        """The config all variants share."""
        return VrnConfig(**self.config)


SIZES = {
    "smoke": ClaimSize(3, "phantom:shoulder_3d?n=270&seed={seed}", {**SMALL, **_BARE}),
    "demo": ClaimSize(3, "phantom:shoulder_3d?n=500&seed={seed}", {**PRESETS["demo"].config, **_BARE}),
}


def claim_size(preset: str) -> ClaimSize:
    """Look a size up.

    Raises:
        UserError: the claim is not run at this preset.
    """
    try:
        return SIZES[preset]
    except KeyError:
        raise UserError(f"the claim runs on the phantom with --preset {' or '.join(SIZES)}, not {preset}") from None


def run_claim(work: Workbench, preset: str) -> ClaimResult:
    """Train and score every arm for every seed, side by side where there are workers.

    Raises:
        UserError: the claim is not run at this preset.
    """
    size = claim_size(preset)
    arms = variant_arms(VrnRct, ARMS, size.settings(), size.data)
    scores = score_arms(work, VrnRct, arms, seeds=range(work.seed, work.seed + size.seeds))
    rows = [{name: value for name, value in row.items() if name != "repeats"} for row in scores.rows]
    return ClaimResult(checks=judge(rows), rows=[*rows, *scores.summaries], notes=[*means(scores.summaries), _COARSE])


def judge(rows: Sequence[Row]) -> list[ClaimCheck]:
    """Every inequality, on differences paired by seed and test case."""
    one_size = "a neighboring size counted as right, it is right more often, by a tenth"
    tells = "it tells tears better than it sizes them, give or take one"
    chance = f"the heat map's peak lies in the tear more often than by chance, by {MIN_ABOVE_CHANCE}"
    return [
        _between(rows, "binary_accuracy", "top1_within_1", tells),
        _between(rows, "top1_within_1", "top1", one_size, at_least=MIN_NEIGHBOR_GAIN),
        difference(rows, "top1", "vrn", "resnet2d", statement="volumes beat slices in top-1"),
        _between(rows, "cam_hit", "cam_hit_by_chance", chance, at_least=MIN_ABOVE_CHANCE),
        difference(rows, "cam_hit", "vrn", "vrn4", statement="two blocks place the tear better than four"),
        difference(
            rows, "cam_peak_distance_mm", "vrn", "vrn4", lower_is_better=True, statement="and nearer to it, in mm"
        ),
    ]


def _between(rows: Sequence[Row], more: str, less: str, statement: str, *, at_least: float = 0.0) -> ClaimCheck:
    """That one score of the paper's network is above another one, case by case."""
    mine = [row for row in rows if row["variant"] == "vrn" and more in row]
    told: list[Row] = [
        {"variant": name, "seed": row["seed"], "case": row["case"], "score": row[name]}
        for row in mine
        for name in (more, less)
    ]
    check = difference(told, "score", more, less, statement=statement, at_least=at_least)
    return replace(check, name=f"{more}_minus_{less}")


def means(summaries: Sequence[Row]) -> list[str]:
    """Mean over seeds of every arm's main scores."""
    names = ("binary_accuracy", "top1_within_1", "top1", "sensitivity", "specificity", "cam_hit_rate",
             "cam_hit_rate_of_class", "cam_hit_chance", "cam_mass_in_tear", "cam_peak_distance_mm")  # fmt: skip
    notes = []
    for arm in ARMS:
        mine = [row for row in summaries if row["variant"] == arm]
        told = [f"{name} {sum(float(row[name]) for row in mine) / len(mine):.3f}" for name in names]
        notes.append(f"{arm}: {', '.join(told)}")
    return notes
