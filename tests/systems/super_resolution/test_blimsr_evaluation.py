"""What test images are scored from and with: the same for every variant."""

from __future__ import annotations

import pytest
import torch

from medray.data.cache import SampleCache
from medray.data.phantoms import thorax_ct
from medray.system import Trained
from medray.systems.super_resolution import blimsr_evaluation as evaluation
from medray.systems.super_resolution.blimsr_config import VARIANTS, BlimsrConfig

CASE, OTHER = thorax_ct.cases(n=2, slices=1, size=64)


def _low(config: BlimsrConfig, case=CASE) -> torch.Tensor:
    return evaluation.frozen_degradation(config, case, evaluation.reader_of(config).image(case))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_given_the_same_blind_degradation(name: str) -> None:
    assert torch.equal(_low(BlimsrConfig(**VARIANTS[name].config)), _low(BlimsrConfig()))
    assert not torch.equal(_low(BlimsrConfig(), OTHER), _low(BlimsrConfig()))


def test_the_features_that_measure_are_fed_alike_whatever_the_loss_feeds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(evaluation, "open_features", asked.append)
    evaluation._features.cache_clear()
    evaluation._features(BlimsrConfig(**VARIANTS["released"].config))
    evaluation._features.cache_clear()
    assert asked[0].perceptual_weights == "mean"


def test_bicubic_interpolation_scores_as_the_bicubic_column_says() -> None:
    config = BlimsrConfig(generator="bicubic", perceptual="phantom")
    row = evaluation.score_case(config, Trained(weights=None), SampleCache(memory_gb=0.1), (7, CASE)).row
    for name in evaluation.METRICS:
        assert row[name] == row[f"{name}_bicubic"]
    assert row["psnr_db_clean"] > row["psnr_db"]


def test_scores_that_are_not_numbers_leave_the_means() -> None:
    rows = [
        {"case": str(n), "psnr_db": psnr, "psnr_db_bicubic": 20.0 + n}
        for n, psnr in enumerate((30.0, 32.0, float("inf")))
    ]
    found = evaluation.summarize([evaluation.Scored(row, None) for row in rows]).summary
    assert found["psnr_db"] == 31.0
    assert found["std_psnr_db"] == pytest.approx(2**0.5)
    assert found["welch_p_psnr_db"] == pytest.approx(0.0215, abs=1e-4)  # t = 10 / sqrt(4 / 3), 1.47 degrees of freedom
