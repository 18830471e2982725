"""The paper's two claims on the phantom, over seeds: what `python jobs/blimsr.py claim` runs.

All arms are scored on the same blindly degraded test images (`blimsr_evaluation`).

1. A generator trained on blind degradations beats the same one trained on blurred bicubic reduction by 1 dB PSNR, and
   in SSIM (sec. 4.4, there without a reference), and both beat bicubic interpolation.
2. The losses of structure, the attention heads and the discriminator beat MedSRGAN's in SSIM (table 1). At these sizes
   neither has the perceptual loss, see `blimsr_presets.SMALL`.

Scores from clean bicubic low resolution, where the order may turn round, are told and not judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medray.errors import UserError
from medray.system import ClaimCheck, ClaimResult, Row, Workbench
from medray.systems.claims import difference, score_arms, variant_arms
from medray.systems.super_resolution.blimsr_config import BlimsrConfig
from medray.systems.super_resolution.blimsr_presets import SMALL
from medray.systems.super_resolution.blimsr_system import Blimsr

MIN_GAIN_DB = 1.0
ARMS = ("blimsr", "bicubic_degradation", "medsrgan", "bicubic")


@dataclass(frozen=True)
class ClaimSize:
    """How much of the experiment is run. ``config`` holds for every variant alike."""

    seeds: int
    data: str
    config: Mapping[str, Any]

    def settings(self) -> BlimsrConfig:
        """The config all variants share."""
        return BlimsrConfig(**self.config)


SIZES = {
    "smoke": ClaimSize(
        3,
        "phantom:thorax_ct?n=40&slices=1&size=128&seed={seed}",
        {**SMALL, "num_epochs": 24, "warmup_epochs": 16},
    ),
    "demo": ClaimSize(
        3,
        "phantom:thorax_ct?n=60&slices=2&size=128&seed={seed}",
        Blimsr.presets["demo"].config,
    ),
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
    """Train and score every arm for every seed, side by side where there are workers."""
    size = claim_size(preset)
    arms = variant_arms(Blimsr, ARMS, size.settings(), size.data)
    rows = score_arms(work, Blimsr, arms, seeds=range(work.seed, work.seed + size.seeds)).rows
    notes = [means_note(rows, ""), means_note(rows, "_clean")]
    return ClaimResult(checks=judge(rows), rows=rows, notes=notes)


def judge(rows: Sequence[Row]) -> list[ClaimCheck]:
    """Every inequality on differences paired by seed and test image."""
    blind = "on blindly degraded images, blind training beats training on blurred bicubic reduction by 1 dB PSNR"
    structure = "it beats it in SSIM too"
    better = "{} training beats bicubic interpolation in {}"
    full = "the generator, its losses and the discriminator beat MedSRGAN's in SSIM, both without the perceptual loss"
    return [
        difference(rows, "psnr_db", "blimsr", "bicubic_degradation", at_least=MIN_GAIN_DB, statement=blind),
        difference(rows, "ssim", "blimsr", "bicubic_degradation", statement=structure),
        *(
            difference(rows, metric, arm, "bicubic", statement=better.format(told, spelled))
            for arm, told in (("blimsr", "blind"), ("bicubic_degradation", "blurred bicubic"))
            for metric, spelled in (("psnr_db", "PSNR"), ("ssim", "SSIM"))
        ),
        difference(rows, "ssim", "blimsr", "medsrgan", statement=full),
    ]


def means_note(rows: Sequence[Row], suffix: str) -> str:
    """Mean PSNR and SSIM of every arm from degraded or (``_clean``) from bicubic low resolution."""
    told = []
    for arm in ARMS:
        mine = [row for row in rows if row["variant"] == arm]
        psnr, ssim = (sum(float(row[name + suffix]) for row in mine) / len(mine) for name in ("psnr_db", "ssim"))
        told.append(f"{arm} {psnr:.2f} dB, SSIM {ssim:.3f}")
    return f"mean from {'clean bicubic' if suffix else 'blindly degraded'} low resolution: " + "; ".join(told)
