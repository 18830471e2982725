"""The paper's two claims on the phantom, over seeds: what `python jobs/suts.py claim` runs.

1. Across modalities, in the same optimizer, learned features align organs better than MIND by at least 0.03 Dice, both
   better than no registration, and raw intensities do not (table 1 and the phantom's permuted contrast).
2. Within one modality the descent layer alone, on raw intensities, lifts Dice by at least 0.2 (sec. 3: 0.44 to 0.69).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medray.data.sources import open_source
from medray.errors import UserError
from medray.metrics.statistics import paired_bootstrap
from medray.system import ClaimCheck, ClaimResult, Row, Workbench
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
    seeds = [work.seed + offset for offset in range(size.seeds)]
    work.say(f"claim with seeds {seeds}: cnn, mind and intensity across modalities, intensity within one")
    rows = [row for part in work.map_runs(functools.partial(_one_seed, size), seeds, name="seed") for row in part]
    return ClaimResult(checks=judge(rows), rows=rows)


def _one_seed(size: ClaimSize, work: Workbench, seed: int) -> list[Row]:
    """All variants on one seed's subjects and split."""
    rows: list[Row] = []
    common = size.settings()
    for variant in ("cnn", "mind", "intensity"):
        rows += _score(work, replace(common, **Suts.variants[variant].config), size.phantom, seed, variant)
    monomodal = size.phantom + "&monomodal=true"
    rows += _score(work, replace(common, features="intensity"), monomodal, seed, "monomodal")
    return rows


def _score(work: Workbench, config: SutsSettings, phantom: str, seed: int, name: str) -> list[Row]:
    work.seed = seed
    system = Suts(config)
    splits = system.split(open_source(phantom.format(seed=seed)), seed)
    evaluation = system.evaluate(work, system.train(work, splits), splits.test)
    return [{"variant": name, "seed": seed, **row} for row in evaluation.rows]


def judge(rows: Sequence[Row]) -> list[ClaimCheck]:
    """The inequalities of both claims, each on differences paired by seed and image pair."""
    return [
        _check(rows, "cnn", "mind", MIN_GAIN_OVER_MIND, "learned features beat MIND by 0.03 Dice"),
        _check(rows, "cnn", "initial", 0.0, "learned features beat no registration"),
        _check(rows, "mind", "initial", 0.0, "MIND beats no registration"),
        _check(rows, "intensity", "initial", 0.0, "raw intensities do not beat no registration", at_most=True),
        _check(rows, "monomodal", "initial", MIN_MONOMODAL_GAIN, "within one modality the layer alone gains 0.2 Dice"),
    ]


def _check(
    rows: Sequence[Row], variant: str, reference: str, threshold: float, statement: str, *, at_most: bool = False
) -> ClaimCheck:
    scores = {(row["seed"], row["case"]): row for row in rows if row["variant"] == variant}
    if reference == "initial":
        others = {key: float(row["initial_dice_mean"]) for key, row in scores.items()}
    else:
        others = {(row["seed"], row["case"]): float(row["dice_mean"]) for row in rows if row["variant"] == reference}
    differences = [float(row["dice_mean"]) - others[key] for key, row in scores.items()]
    mean, low, high = paired_bootstrap(differences, groups=[int(seed) for seed, _ in scores])
    held = mean <= threshold if at_most else mean >= threshold if threshold else mean > 0
    return ClaimCheck(
        name=f"dice_{variant}_minus_{reference}",
        statement=statement,
        value=mean,
        threshold=threshold,
        interval=(low, high),
        held=held,
    )
