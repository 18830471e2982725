"""M-VAAL's claim: at small budgets its picks are no worse than VAAL's, and VAAL's no worse than random ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from medray.errors import UserError
from medray.system import ClaimResult, System, Workbench
from medray.systems.active_learning.mvaal_config import PRESETS, MvaalConfig
from medray.systems.claims import difference, score_arms, variant_arms

_PAPER_ARMS = ("mvaal", "vaal", "random")


def setting(preset: str) -> tuple[MvaalConfig, str]:
    """Config and data; campaigns of one seed each, since the claim runs its own seeds.

    Raises:
        UserError: the preset has no phantom.
    """
    chosen = PRESETS[preset]
    if not chosen.data:
        raise UserError(f"the claim runs on the phantom with --preset smoke or demo, not {preset}")
    return replace(MvaalConfig(**chosen.config), repeats=1), chosen.data


def run(system: type[System[Any]], work: Workbench, preset: str) -> ClaimResult:
    """Campaigns of all samplers over seeds, compared by the area under their label curves and by their early picks."""
    config, data = setting(preset)
    arms = variant_arms(system, _PAPER_ARMS, config, f"{data}&seed={{seed}}")
    scores = score_arms(work, system, arms, seeds=range(work.seed, work.seed + PRESETS[preset].seeds))
    means, area = scores.summaries, f"area_{_METRICS[config.task]}"
    checks = [
        difference(means, area, "mvaal", "vaal", statement="M-VAAL's curve is above VAAL's"),
        difference(means, area, "vaal", "random", statement="VAAL's curve is above that of random picks"),
        difference(means, area, "mvaal", "random", statement="M-VAAL's curve is above that of random picks"),
        difference(
            means, "enrichment", "mvaal", "random", statement="M-VAAL asks for more of the rare kinds than chance does"
        ),
        difference(means, "enrichment", "mvaal", "vaal", statement="M-VAAL asks for more of them than VAAL does"),
    ]
    return ClaimResult(checks, [{**row, "case": "all"} for row in means])


_METRICS: Mapping[str, str] = {"segmentation": "dice", "multi_label": "mean_ap", "multi_class": "accuracy"}
