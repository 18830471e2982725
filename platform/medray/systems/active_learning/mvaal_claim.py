"""M-VAAL's claim: at small budgets its picks are no worse than VAAL's, and VAAL's no worse than random ones."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medray.active.answers import without_label
from medray.active.sampler import SamplingRound
from medray.data.sources import open_source
from medray.errors import UserError
from medray.metrics.classification import auc_per_label
from medray.system import ClaimResult, Row, System, Workbench
from medray.systems.active_learning.campaign_summary import enrichment
from medray.systems.active_learning.mvaal_config import PRESETS, MvaalConfig
from medray.systems.active_learning.pools import group_of, initial_cases
from medray.systems.active_learning.samplers import make_sampler
from medray.systems.active_learning.tasks import make_task
from medray.systems.claims import Arm, bound, difference, score_arms, variant_arms

COMMON = "A"
"""The kind that most of the phantom's pool is."""
_PAPER_ARMS = ("mvaal", "vaal", "random")


@dataclass(frozen=True, kw_only=True)
class _Size:
    """How much a claim runs: cases of the pool, seeds of campaigns and of first rankings, and the settings."""

    pool: int
    seeds: int
    rankings: int
    config: Mapping[str, Any]


_SIZES = {
    "smoke": _Size(
        pool=200,
        seeds=8,
        rankings=8,
        config={"initial": 20, "budget": 15, "rounds": 2, "sampler_epochs": 15, "task_epochs": 15},
    ),
    "demo": _Size(
        pool=600,
        seeds=6,
        rankings=10,
        config={"initial": 30, "budget": 20, "rounds": 4, "sampler_epochs": 10, "task_epochs": 30},
    ),
}


def setting(preset: str) -> tuple[MvaalConfig, str]:
    """Config and data: networks that see 32 x 32, and a first set of the common kind alone, as where annotation began
    before the rare kinds were known. Campaigns of one seed each, since the claim runs its own seeds.

    Raises:
        UserError: the preset has no brain phantom.
    """
    if preset not in _SIZES:
        raise UserError(f"the claim runs with --preset {' or '.join(_SIZES)}, not {preset}")
    size = _SIZES[preset]
    config = MvaalConfig(**{**PRESETS["smoke"].config, **size.config})
    return config, f"phantom:brain_multimodal?n={size.pool}&validation=30&test=240&size=64&start=A"


def run(system: type[System[Any]], work: Workbench, preset: str) -> ClaimResult:
    """Campaigns over seeds, compared by the area under their label curves; and what the first ranking says of rare
    kinds, which needs no task network and so can be asked on more seeds.
    """
    config, data = setting(preset)
    size = _SIZES[preset]
    arms = variant_arms(system, _PAPER_ARMS, config, f"{data}&seed={{seed}}")
    scores = score_arms(work, system, arms, seeds=range(work.seed, work.seed + size.seeds))
    seeds = range(work.seed + size.seeds, work.seed + size.seeds + size.rankings)
    work.say(f"first rankings over seeds {list(seeds)}")
    rank = functools.partial(_rank, system, data)
    ranked: list[Row] = work.map_runs(rank, [(seed, arm) for seed in seeds for arm in arms[:2]], name="ranking")
    means = scores.summaries
    checks = [
        difference(means, "area_dice", "mvaal", "vaal", statement="M-VAAL's curve is above VAAL's"),
        difference(means, "area_dice", "vaal", "random", statement="VAAL's curve is above that of random picks"),
        difference(means, "area_dice", "mvaal", "random", statement="M-VAAL's curve is above that of random picks"),
        bound(ranked, "rare_auc", "mvaal", at_least=0.5, statement="M-VAAL ranks rare kinds before the common one"),
        difference(ranked, "rare_auc", "mvaal", "vaal", statement="M-VAAL ranks them before it more than VAAL does"),
        bound(
            ranked,
            "enrichment",
            "mvaal",
            at_least=1.0,
            statement="M-VAAL's first picks have more of them than the pool",
        ),
        difference(
            ranked, "enrichment", "mvaal", "vaal", statement="M-VAAL's first picks have more of them than VAAL's"
        ),
    ]
    return ClaimResult(checks, [*({**row, "case": "campaign"} for row in means), *ranked])


def _rank(system: type[System[Any]], data: str, work: Workbench, pair: tuple[int, Arm]) -> Row:
    """The sampler's first ranking: the area under the ROC curve of rare against common kinds, and the picks' mix."""
    work.seed, arm = pair
    source = open_source(f"{data}&seed={work.seed}")
    pool = system(arm.config).split(source, work.seed).train
    known = set(initial_cases(pool, arm.config, work.seed))
    labelled, unlabelled = (
        tuple(without_label(case) for case in pool if (case.id in known) is first) for first in (True, False)
    )
    view = SamplingRound(0, labelled, unlabelled, arm.config.budget)
    sampler = make_sampler(arm.config.sampler, arm.config)
    fit = sampler.train(work, view)
    task = make_task(arm.config.task, arm.config, ("lesion",))
    found = sampler.rank(work, view, weights=fit.weights if fit else None, task=task, task_weights=None)
    assert found.scores is not None
    groups = {case.id: group_of(case) for case in pool}
    rare = [float(groups[case.id] != COMMON) for case in unlabelled]
    area = float(auc_per_label(np.array(rare)[:, None], -found.scores[:, None])[0])
    mix = enrichment(found.picks, groups, [case.id for case in unlabelled])
    return {"variant": arm.name, "seed": work.seed, "case": "ranking", "rare_auc": area, "enrichment": mix}
