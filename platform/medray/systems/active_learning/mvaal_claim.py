"""M-VAAL's claim: at small budgets its picks are no worse than VAAL's, and VAAL's no worse than random ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medray.errors import UserError
from medray.system import ClaimResult, System, Workbench
from medray.systems.active_learning.mvaal_config import PRESETS, MvaalConfig
from medray.systems.claims import difference, score_arms, variant_arms

_PAPER_ARMS = ("mvaal", "vaal", "random")


@dataclass(frozen=True, kw_only=True)
class _Size:
    """How much a claim runs: cases of the pool, seeds, and the campaign's settings."""

    pool: int
    seeds: int
    config: Mapping[str, Any]


_SIZES = {
    "smoke": _Size(pool=200, seeds=3, config={"initial": 20, "budget": 15, "rounds": 2, "sampler_epochs": 15,
                                              "task_epochs": 20}),
    "demo": _Size(pool=600, seeds=8, config={"initial": 30, "budget": 20, "rounds": 4, "sampler_epochs": 10,
                                             "task_epochs": 30}),
}  # fmt: skip


def setting(preset: str) -> tuple[MvaalConfig, str]:
    """Config and data: 32 x 32, and a first set of the common kind alone, as where annotation began before the rare
    kinds were known. Campaigns of one seed each, since the claim runs its own seeds.

    Raises:
        UserError: the preset has no brain phantom.
    """
    if preset not in _SIZES:
        raise UserError(f"the claim runs with --preset {' or '.join(_SIZES)}, not {preset}")
    size = _SIZES[preset]
    config = MvaalConfig(**{**PRESETS["smoke"].config, **size.config})
    return config, f"phantom:brain_multimodal?n={size.pool}&validation=30&test=240&size=32&start=A"


def run(system: type[System[Any]], work: Workbench, preset: str) -> ClaimResult:
    """Campaigns of all samplers over seeds, compared by the area under their label curves and by their early picks."""
    config, data = setting(preset)
    arms = variant_arms(system, _PAPER_ARMS, config, f"{data}&seed={{seed}}")
    scores = score_arms(work, system, arms, seeds=range(work.seed, work.seed + _SIZES[preset].seeds))
    means = scores.summaries
    checks = [
        difference(means, "area_dice", "mvaal", "vaal", statement="M-VAAL's curve is above VAAL's"),
        difference(means, "area_dice", "vaal", "random", statement="VAAL's curve is above that of random picks"),
        difference(means, "area_dice", "mvaal", "random", statement="M-VAAL's curve is above that of random picks"),
        difference(
            means, "enrichment", "mvaal", "random", statement="M-VAAL asks for more of the rare kinds than chance does"
        ),
        difference(means, "enrichment", "mvaal", "vaal", statement="M-VAAL asks for more of them than VAAL does"),
    ]
    return ClaimResult(checks, [{**row, "case": "all"} for row in means])
