"""BliMSR as a system: frozen degradations, what a summary says, pictures, and the judgement of the claim."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from medray.data.case import Case
from medray.data.phantoms import thorax_ct
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.system import Row, Trained
from medray.systems.super_resolution import blimsr_claim
from medray.systems.super_resolution.blimsr_config import VARIANTS, BlimsrConfig
from medray.systems.super_resolution.blimsr_evaluation import (
    METRICS,
    Scored,
    fit_niqe,
    frozen_degradation,
    niqe_file,
    reader_of,
    summarize,
)
from medray.systems.super_resolution.blimsr_system import Blimsr
from medray.systems.super_resolution.high_res import HighResReader
from medray.systems.super_resolution.pictures import bicubic, most_detailed

CONFIG = BlimsrConfig(generator="bicubic", crop_px=64, perceptual="random")


def test_test_images_are_degraded_alike_whatever_was_trained_on() -> None:
    cases = thorax_ct.cases(n=2, slices=1, size=64)
    read = reader_of(CONFIG)
    other = dataclasses.replace(CONFIG, **{**VARIANTS["bicubic_degradation"].config, "generator": "blimsr"})
    low = [frozen_degradation(CONFIG, case, read.image(case)) for case in cases]
    assert torch.equal(low[0], frozen_degradation(other, cases[0], read.image(cases[0])))
    renamed = dataclasses.replace(cases[0], id="another")
    assert torch.equal(low[0], frozen_degradation(CONFIG, renamed, read.image(cases[0])))
    swapped = frozen_degradation(CONFIG, cases[1], read.image(cases[0]))
    assert not torch.allclose(low[0], swapped)  # the draws come from the content


def test_bicubic_interpolation_equals_its_own_reference(tmp_path: Path) -> None:
    cases = thorax_ct.cases(n=2, slices=1, size=64)
    work = InProcessWorkbench(tmp_path, quiet=True, tensorboard=False)
    found = Blimsr(CONFIG).evaluate(work, Trained(weights=None), cases)
    assert [row["case"] for row in found.rows] == [case.id for case in cases]
    for row in found.rows:
        for name in METRICS:
            assert row[name] == row[f"{name}_bicubic"]
        assert float(row["psnr_db_clean"]) > float(row["psnr_db"])
    assert found.summary["ssim"] == pytest.approx(sum(float(row["ssim"]) for row in found.rows) / 2)
    assert not [name for name in found.summary if name.startswith("welch")]  # nothing to test
    assert [figure.png[:4] for figure in found.figures] == [b"\x89PNG"] * 2


def test_the_summary_has_spread_and_welchs_test_against_bicubic() -> None:
    rows: list[Row] = [
        {"case": str(i), "ssim": 0.8 + i / 100, "ssim_bicubic": 0.7 + i / 50, "niqe": float("nan")} for i in range(4)
    ]
    found = summarize([Scored(row, None) for row in rows]).summary
    assert found["ssim"] == pytest.approx(0.815)
    assert found["std_ssim"] == pytest.approx(np.std([0.80, 0.81, 0.82, 0.83], ddof=1))
    from scipy.stats import ttest_ind

    expected = ttest_ind([0.80, 0.81, 0.82, 0.83], [0.70, 0.72, 0.74, 0.76], equal_var=False).pvalue
    assert found["welch_p_ssim"] == pytest.approx(expected)
    assert "niqe" not in found


class Blank(HighResReader):
    """Reads images without any texture."""

    def image(self, case: Case) -> torch.Tensor:
        return torch.zeros(1, 64, 64)


def test_niqe_is_left_out_where_there_is_nothing_to_learn_it_from(tmp_path: Path) -> None:
    cases = thorax_ct.cases(n=3, slices=1)
    for name, read in (("blank", Blank((0.0, 1.0))), ("textured", reader_of(CONFIG))):
        (tmp_path / name).mkdir()
        fit_niqe(read, cases, tmp_path / name)
    assert not niqe_file(tmp_path / "blank").exists()
    assert niqe_file(tmp_path / "textured").is_file()


def test_the_zoom_goes_where_the_detail_is() -> None:
    image = np.zeros((40, 80), np.float32)
    image[22:30:2, 50:66] = 1.0
    rows, columns = most_detailed(image)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (10, 20)
    assert rows.start <= 24 <= rows.stop
    assert columns.start <= 58 <= columns.stop
    assert bicubic(np.full((3, 5), 0.5, np.float32)) == pytest.approx(np.full((12, 20), 0.5), abs=1e-6)


def _rows(**ssim: float) -> list[Row]:
    return [
        {"variant": arm, "seed": seed, "case": str(case), "ssim": value, "psnr_db": 10 * value, "ssim_clean": value,
         "psnr_db_clean": 10 * value}
        for arm, value in ssim.items() for seed in range(3) for case in range(2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arms", "failing"),
    [
        ({"blimsr": 0.9, "bicubic_degradation": 0.7, "medsrgan": 0.8, "bicubic": 0.65}, []),
        ({"blimsr": 0.9, "bicubic_degradation": 0.85, "medsrgan": 0.95, "bicubic": 0.75},
         ["psnr_db_blimsr_minus_bicubic_degradation", "ssim_blimsr_minus_medsrgan"]),
        ({"blimsr": 0.9, "bicubic_degradation": 0.6, "medsrgan": 0.8, "bicubic": 0.75},
         ["psnr_db_bicubic_degradation_minus_bicubic", "ssim_bicubic_degradation_minus_bicubic"]),
    ],
)  # fmt: skip
def test_the_claim_needs_one_decibel_and_the_better_ssim(arms: dict[str, float], failing: list[str]) -> None:
    rows = _rows(**arms)
    assert [check.name for check in blimsr_claim.judge(rows) if not check.held] == failing
    told = f"bicubic {10 * arms['bicubic']:.2f} dB, SSIM {arms['bicubic']:.3f}"
    assert told in blimsr_claim.means_note(rows, "_clean")


def test_the_claim_is_run_on_the_phantom_only() -> None:
    with pytest.raises(UserError, match="--preset smoke or demo, not paper"):
        Blimsr.claim_setting("paper")
