"""The paper's two claims on the phantom, over seeds: what `python jobs/suts.py claim` runs.

1. Across modalities, in the same optimizer, learned features align organs better than MIND by at least 0.03 Dice, both
   better than no registration, and raw intensities do not (table 1 and the phantom's permuted contrast).
2. Within one modality the descent layer alone, on raw intensities, lifts Dice by at least 0.2 (sec. 3: 0.44 to 0.69).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medray.errors import UserError
from medray.system import ClaimCheck, ClaimResult, Row, Workbench
from medray.systems.claims import Arm, bound, difference, score_arms, variant_arms
from medray.systems.registration.suts_system import Suts, SutsSettings

MIN_GAIN_OVER_MIND = 0.03
MIN_MONOMODAL_GAIN = 0.2


@dataclass(frozen=True)
class ClaimSize:
    """How much of the experiment is run. ``config`` holds for every variant alike."""

    seeds: int
    phantom: str
    config: Mapping[str, Any]

    def settings(self) -> SutsSettings:
        """The config all variants share; nothing is held out for validation."""
        return SutsSettings(**{"validation_fraction": 0.0, **self.config})


SIZES = {
    # The card's smallest honest set-up: 96 x 96, 6 training and 3 test subjects per modality, 36 training pairs.
    "smoke": ClaimSize(
        3,
        "phantom:abdomen?n=9&size=96&seed={seed}",
        {
            "grid_spacing": (12, 8, 5),
            "iterations_per_scale": 80,
            "subintervals": 16,
            "feature_lr": 5e-3,
            "test_fraction": 1 / 3,
        },
    ),
    "demo": ClaimSize(
        5,
        "phantom:abdomen?n=10&size=160&seed={seed}",
        {"iterations_per_scale": 200, "subintervals": 40, "feature_lr": 2e-3, "test_fraction": 0.3},
    ),
    "paper": ClaimSize(10, "phantom:abdomen?n=10&size=320&seed={seed}", {"test_fraction": 0.3}),
}


def claim_size(preset: str) -> ClaimSize:
    """Look a size up.

    Raises:
        UserError: the claim is not run at this preset.
    """
    try:
        return SIZES[preset]
    except KeyError:
        raise UserError(f"the claim runs on the phantom with --preset {', '.join(SIZES)}, not {preset}") from None


def run_claim(work: Workbench, preset: str) -> ClaimResult:
    """Train and score every variant for every seed; seeds run side by side.

    Args:
        work: where to run; its seed is the first of the seeds.
        preset: a key of `SIZES`.
    """
    size = claim_size(preset)
    common, monomodal = size.settings(), size.phantom + "&monomodal=true"
    arms = variant_arms(Suts, ("cnn", "mind", "intensity"), common, size.phantom)
    arms.append(Arm(name="monomodal", config=replace(common, features="intensity"), data=monomodal))
    rows = score_arms(work, Suts, arms, seeds=range(work.seed, work.seed + size.seeds)).rows
    rows = [{**row, "dice_gain": float(row["dice_mean"]) - float(row["initial_dice_mean"])} for row in rows]
    return ClaimResult(checks=judge(rows), rows=rows)


def judge(rows: Sequence[Row]) -> list[ClaimCheck]:
    """The inequalities of both claims, each on differences paired by seed and image pair."""
    learned = "learned features beat MIND by 0.03 Dice"
    alone = "within one modality the layer alone gains 0.2 Dice"
    return [
        difference(rows, "dice_mean", "cnn", "mind", at_least=MIN_GAIN_OVER_MIND, statement=learned),
        bound(rows, "dice_gain", "cnn", at_least=0.0, statement="learned features beat no registration"),
        bound(rows, "dice_gain", "mind", at_least=0.0, statement="MIND beats no registration"),
        bound(rows, "dice_gain", "intensity", at_most=0.0, statement="raw intensities do not beat no registration"),
        bound(rows, "dice_gain", "monomodal", at_least=MIN_MONOMODAL_GAIN, statement=alone),
    ]
