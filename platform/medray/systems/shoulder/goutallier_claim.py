"""The paper's claims on the phantom, over five folds: what `python jobs/goutallier.py claim` runs.

All arms share the folds, the U-Nets and their crops; differences are paired by fold, with Student's intervals.

1. The U-Net outlines the muscle with a Dice of .90, and its crops cost at most .02 AUROC against those of the true
   masks (table 4).
2. Crops beat the full image in AUROC (the paper's hypothesis).
3. Copies of risky cases raise the sensitivity at a probability of .5 over none, and cost at most .05 specificity.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medray.data.sources import open_source
from medray.errors import UserError
from medray.metrics.delong import delong_test
from medray.metrics.intervals import t_interval
from medray.system import ClaimCheck, ClaimResult, Row, Workbench
from medray.systems.shoulder.goutallier_config import VARIANTS, GoutallierConfig
from medray.systems.shoulder.goutallier_folds import Fold, make_folds
from medray.systems.shoulder.goutallier_presets import PRESETS, SMALL
from medray.systems.shoulder.goutallier_scores import fold_scores, joined
from medray.systems.shoulder.goutallier_training import FoldResult, classify_folds, segment_folds

LEAST_DICE = 0.90
MOST_AUROC_COST = 0.02
MOST_SPECIFICITY_COST = 0.05
ARMS = ("goutallier", "manual_roi", "full_image", "no_balance")


@dataclass(frozen=True)
class ClaimSize:
    """How much of the experiment is run. ``config`` holds for every arm alike."""

    data: str
    config: Mapping[str, Any]

    def settings(self) -> GoutallierConfig:
        """The config all arms share."""
        return GoutallierConfig(**self.config)


SIZES = {
    "smoke": ClaimSize(
        "phantom:shoulder_y?n=606&size=64&seed={seed}", {**SMALL, "seg_epochs": 4, "epochs": 6, "test_fraction": 0.0}
    ),
    "demo": ClaimSize("phantom:shoulder_y?n=606&size=96&seed={seed}", {**PRESETS["demo"].config, "test_fraction": 0.0}),
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
    """Train the U-Nets once and every arm's classifiers on their crops, side by side where there are workers."""
    size = claim_size(preset)
    config = size.settings()
    cases = open_source(size.data.replace("{seed}", str(work.seed)), fields={"fat": "label"}).cases
    folds = make_folds(config, cases, work.seed)
    work.say(f"claim over {len(folds)} folds of {len(cases)} images: {', '.join(ARMS)}")
    segmented = segment_folds(work, config, folds)
    found = {arm: _graded(work, config, folds, segmented, arm) for arm in ARMS}
    summaries: list[Row] = [
        {"variant": arm, "seed": work.seed, **fold} for arm, rows in found.items() for fold in fold_scores(rows)
    ]
    cases_rows: list[Row] = [{"variant": arm, "seed": work.seed, **row} for arm, rows in found.items() for row in rows]
    notes = [_means(summaries, arm) for arm in ARMS] + [_delong(found, arm) for arm in ARMS[1:]]
    return ClaimResult(checks=judge(summaries), rows=[*summaries, *cases_rows], notes=notes)


def _graded(
    work: Workbench, config: GoutallierConfig, folds: Sequence[Fold], segmented: Sequence[FoldResult], arm: str
) -> list[Row]:
    made = replace(config, **VARIANTS[arm].config)
    steps = classify_folds(work, made, folds, segmented, name=arm)
    outlined = [step.rows for step in segmented] if made.segments else []
    return joined(*outlined, *(step.rows for step in steps))


def judge(folds: Sequence[Row]) -> list[ClaimCheck]:
    """Every inequality, on scores of folds paired by fold."""
    dice = t_interval([float(fold["dice"]) for fold in folds if fold["variant"] == "goutallier"])
    ours = functools.partial(paired, folds, better="goutallier")
    cost = f"automatic crops cost at most {MOST_AUROC_COST} AUROC against crops by the true masks"
    spared = f"they cost at most {MOST_SPECIFICITY_COST} specificity"
    return [
        ClaimCheck("dice", "the U-Net outlines the muscle", dice[0], LEAST_DICE, dice[1:], dice[0] >= LEAST_DICE),
        ours("auroc", worse="manual_roi", at_least=-MOST_AUROC_COST, statement=cost),
        ours("auroc", worse="full_image", statement="crops beat the full image"),
        ours("sensitivity", worse="no_balance", statement="copies of risky cases raise the sensitivity"),
        ours("specificity", worse="no_balance", at_least=-MOST_SPECIFICITY_COST, statement=spared),
    ]


def paired(
    folds: Sequence[Row], metric: str, *, better: str, worse: str, statement: str, at_least: float = 0.0
) -> ClaimCheck:
    """Whether one arm's mean over folds is above another's.

    Args:
        folds: scores with ``variant`` and ``fold``.
        metric: which score.
        better: arm that should win.
        worse: arm that should lose.
        statement: the inequality in words.
        at_least: by how much; with 0 the mean difference must be above 0.
    """
    by_fold = [
        {fold["fold"]: float(fold[metric]) for fold in folds if fold["variant"] == arm} for arm in (better, worse)
    ]
    mean, low, high = t_interval([value - by_fold[1][number] for number, value in by_fold[0].items()])
    held = mean >= at_least if at_least else mean > 0
    return ClaimCheck(f"{metric}_{better}_minus_{worse}", statement, mean, at_least, (low, high), held)


def _means(folds: Sequence[Row], arm: str) -> str:
    names = ("auroc", "average_precision", "sensitivity", "specificity", "accuracy")
    told = []
    for name in names:
        mean, low, high = t_interval([float(fold[name]) for fold in folds if fold["variant"] == arm])
        told.append(f"{name} {mean:.4f} ({low:.4f} to {high:.4f})")
    return f"{arm}: " + ", ".join(told)


def _delong(found: Mapping[str, Sequence[Row]], arm: str) -> str:
    """All held-out cases pooled: comparisons over cases, where those over folds have five numbers."""
    ours, theirs = ({row["case"]: row for row in found[name] if "risky" in row} for name in ("goutallier", arm))
    risky = [float(row["risky"]) for row in ours.values()]
    score, other = ([float(rows[case]["probability_risky"]) for case in ours] for rows in (ours, theirs))
    test = delong_test(risky, score, other)
    return f"pooled AUROC goutallier {test.first:.4f}, {arm} {test.second:.4f}, DeLong p = {test.p_value:.3g}"
