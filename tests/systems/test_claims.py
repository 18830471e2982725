"""Claims pair what belongs together, and a seed reaches the data, the split and the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from toy_learners import Regression

from medray.data.case import Case, Source, Splits
from medray.engine.options import LoopOptions
from medray.engine.workbench import InProcessWorkbench
from medray.system import (
    ClaimResult,
    Evaluation,
    Prediction,
    PredictRequest,
    Preset,
    Row,
    System,
    Trained,
    Variant,
    Workbench,
)
from medray.systems.claims import Arm, bound, difference, score_arms

ROWS: list[Row] = [
    {"variant": "ours", "seed": 0, "case": "a", "dice": 0.9, "hd95_mm": 1.0},
    {"variant": "ours", "seed": 1, "case": "a", "dice": 0.7, "hd95_mm": 3.0},
    {"variant": "theirs", "seed": 1, "case": "a", "dice": 0.6, "hd95_mm": 5.0},
    {"variant": "theirs", "seed": 0, "case": "a", "dice": 0.6, "hd95_mm": 2.0},
    {"variant": "theirs", "seed": 0, "case": "b", "dice": 0.0, "hd95_mm": 9.0},  # without a partner
]


def test_a_difference_is_paired_by_seed_and_case() -> None:
    check = difference(ROWS, "dice", "ours", "theirs", statement="")
    assert check.value == pytest.approx(0.2)  # (0.3 + 0.1) / 2
    assert check.interval[0] <= check.value <= check.interval[1]
    assert check.held


def test_of_a_distance_less_is_better() -> None:
    check = difference(ROWS, "hd95_mm", "ours", "theirs", lower_is_better=True, statement="")
    assert (check.name, check.value, check.held) == ("hd95_mm_theirs_minus_ours", pytest.approx(1.5), True)


@pytest.mark.parametrize(("at_least", "held"), [(0.19, True), (0.21, False)])
def test_a_threshold_is_kept(at_least: float, held: bool) -> None:
    assert difference(ROWS, "dice", "ours", "theirs", at_least=at_least, statement="").held is held


def test_equal_is_not_better() -> None:
    assert not difference(ROWS, "dice", "ours", "ours", statement="").held


def test_what_cannot_be_paired_does_not_hold() -> None:
    assert not difference(ROWS, "dice", "ours", "nobody", statement="").held
    assert not difference([{**row, "dice": float("nan")} for row in ROWS], "dice", "ours", "theirs", statement="").held


def test_a_bound_holds_on_its_side_only() -> None:
    assert bound(ROWS, "dice", "ours", at_least=0.8, statement="").held
    assert not bound(ROWS, "dice", "ours", at_most=0.79, statement="").held
    with pytest.raises(ValueError, match="either"):
        bound(ROWS, "dice", "ours", statement="")


@dataclass(frozen=True, kw_only=True)
class _Config:
    rate: float = 0.1


class _Told(System[_Config]):
    """Reports the seed it was trained with and a weight that depends on it."""

    slug = "told"
    config_class = _Config
    predict_inputs = ("image",)
    presets: ClassVar[Mapping[str, Preset]] = {}
    variants: ClassVar[Mapping[str, Variant]] = {}

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        return ()

    def split(self, source: Source, seed: int) -> Splits:
        return Splits(source.cases[1:], (), source.cases[:1])

    def train(self, work: Workbench, splits: Splits) -> Trained:
        fit = work.fit(Regression)
        return Trained(weights=fit.weights, metrics=fit.metrics)

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        from safetensors.torch import load_file

        assert trained.weights is not None
        total = float(sum(t.double().sum() for t in load_file(trained.weights).values()))
        return Evaluation([{"case": cases[0].id, "weight": total}], {"told_seed": work.seed, "weight": total})

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        raise NotImplementedError

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        raise NotImplementedError


def test_every_seed_trains_anew(tmp_path: Path) -> None:
    arms = [Arm(name=name, config=_Config(), data="phantom:abdomen?n=3&size=32&seed={seed}") for name in ("a", "b")]
    work = InProcessWorkbench(tmp_path, LoopOptions(), quiet=True)
    scores = score_arms(work, _Told, arms, seeds=[3, 4])
    by_arm: dict[tuple[Any, Any], Any] = {(r["variant"], r["seed"]): r["weight"] for r in scores.summaries}
    assert [r["told_seed"] for r in scores.summaries] == [3, 3, 4, 4]
    assert by_arm["a", 3] == by_arm["b", 3]
    assert by_arm["a", 3] != by_arm["a", 4]
    assert torch.isfinite(torch.tensor(list(by_arm.values()))).all()
