"""A system that exists to have a command line: its engine is replaced where a test needs one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from medray import registry
from medray.data.case import Case, Source, Splits
from medray.system import (
    ClaimResult,
    Evaluation,
    Prediction,
    PredictRequest,
    Preset,
    System,
    Trained,
    Variant,
    Workbench,
)


@dataclass(frozen=True, kw_only=True)
class StandInConfig:
    features: Literal["cnn", "mind"] = "cnn"
    """What is compared (table 1)."""
    grid_spacing: tuple[int, ...] = (20, 10, 7)
    """Control-point distance of each scale, px,
    coarse to fine (paper 20 10 7)."""
    feature_lr: float = 1e-3
    """Learning rate (paper 1e-3)."""
    border_mask: bool = True
    """Only near borders (paper)."""
    crop: tuple[int, int] | None = None
    """Rows and columns kept, px; None keeps all."""

    def __post_init__(self) -> None:
        if list(self.grid_spacing) != sorted(self.grid_spacing, reverse=True):
            raise ValueError(f"grid_spacing runs coarse to fine, got {self.grid_spacing}; try 20 10 7")


class StandIn(System[StandInConfig]):
    slug = "standin"
    config_class = StandInConfig
    short_flags = ("feature_lr",)
    presets: ClassVar[Mapping[str, Preset]] = {
        "smoke": Preset(
            about="about a minute",
            data="phantom:abdomen?n=4",
            config={"grid_spacing": (12, 8), "feature_lr": 0.5},
            compare=("mind",),
        ),
        "paper": Preset(about="hours", data="phantom:abdomen?n=20"),
    }
    variants: ClassVar[Mapping[str, Variant]] = {
        "cnn": Variant(about="learned features"),
        "mind": Variant(about="MIND", config={"features": "mind", "feature_lr": 0.25}),
        "wrong": Variant(about="does not go with anything", config={"grid_spacing": (1, 2)}),
    }
    fields = ("image", "label")
    predict_inputs = ("moving", "fixed")

    def split(self, source: Source, seed: int) -> Splits:
        raise NotImplementedError

    def train(self, work: Workbench, splits: Splits) -> Trained:
        raise NotImplementedError

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        raise NotImplementedError

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        raise NotImplementedError

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        raise NotImplementedError


ENTRY = registry.Entry(
    slug="standin",
    target="medray_stand_in:StandIn",
    task="registration",
    title="stands in for a system",
    paper="Nobody, Nowhere 2019",
    inputs="two images",
)
