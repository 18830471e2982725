"""A system whose result is a formula of its settings, with rounds that can be watched, fail and be interrupted."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from toy_learners import Regression

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

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True, kw_only=True)
class DialConfig:
    x: float = 0.5
    """A setting whose best value is 0.3."""
    mode: Literal["plain", "other"] = "plain"
    """A setting that matters little."""
    sizes: tuple[int, ...] = (1, 2)
    """A setting of several numbers."""
    rounds: int = 3
    """How often it measures itself."""
    pause_s: float = 0.0
    """How long a round takes."""
    diary: str = ""
    """File that gets a line for each round worked."""
    trouble: Literal["", "once", "always", "user", "nan"] = ""
    """What goes wrong in the second round where x is above 0.5."""
    network: bool = False
    """Whether it also trains a small network, which learns worse the more x is above 0.5."""
    epochs: int = 3
    """How long."""

    def __post_init__(self) -> None:
        if not 0 <= self.x <= 1:
            raise ValueError(f"x is between 0 and 1, got {self.x}; try 0.5")


def height(config: DialConfig, seed: int) -> float:
    """What the system scores at its end."""
    return 1 - (config.x - 0.3) ** 2 - 0.01 * (config.mode == "other") + 0.001 * seed


class Toy(System[ConfigT]):
    """What toy systems share: small images, two cases that validate and two that test."""

    predict_inputs = ("image",)
    presets: ClassVar[Mapping[str, Preset]] = {"smoke": Preset(about="nothing", data="phantom:chest_xray?n=12&size=32")}
    variants: ClassVar[Mapping[str, Variant]] = {"toy": Variant(about="the one there is")}

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        return ("image",)

    def split(self, source: Source, seed: int) -> Splits:
        cases = tuple(source.cases)
        return Splits(cases[:-4], cases[-4:-2], cases[-2:])

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        raise NotImplementedError

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        raise NotImplementedError


class Dial(Toy[DialConfig]):
    """See the module."""

    slug = "dial"
    config_class = DialConfig

    def train(self, work: Workbench, splits: Splits) -> Trained:
        for number in range(1, self.config.rounds + 1):
            work.stage(f"round-{number}", lambda folder, number=number: self._round(folder, work, number))
            value = height(self.config, work.seed) * number / self.config.rounds
            work.log({"step": number, "score": value}, name="rounds")
        if self.config.network:
            dropout = max(0.0, self.config.x - 0.5)
            work.fit(functools.partial(Regression, num_epochs=self.config.epochs, dropout=dropout))
        return Trained(weights=None, metrics={"rounds": float(self.config.rounds)})

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        score = height(self.config, work.seed)
        if self.config.trouble == "nan" and self.config.x > 0.5:
            score = float("nan")
        names = work.map(_name, cases, name="cases")  # as systems score their cases: side by side where there is Ray
        rows = [{"case": name, "score": score} for name in names]
        return Evaluation(rows, {"score": score, "cost": self.config.x, "cases": float(len(cases))})

    def _round(self, folder: Path, work: Workbench, number: int) -> None:
        from medray.errors import UserError

        time.sleep(self.config.pause_s)
        if number == 2 and self.config.x > 0.5:
            if self.config.trouble == "user":
                raise UserError("x above 0.5 makes no sense to this system")
            marker = work.out / "failed"
            if self.config.trouble == "always" or (self.config.trouble == "once" and not marker.exists()):
                marker.touch()
                raise RuntimeError("the dial broke off")
        if self.config.diary:
            with open(self.config.diary, "a") as diary:
                diary.write(f"{work.out.parent.name} {work.out.name} {number} {os.getpid()}\n")
        (folder / "done").touch()


def _name(case: Case) -> str:
    return case.id


@contextmanager
def registered(system: type[System[Any]] = Dial) -> Iterator[None]:
    """A system under its slug, in this process."""
    entry: Any = registry.Entry(
        slug=system.slug,
        target=f"{system.__module__}:{system.__name__}",
        task="toy",
        title=f"A {system.slug}",
        paper="None",
        inputs="images",
    )
    registry.ENTRIES[system.slug] = entry
    try:
        yield
    finally:
        del registry.ENTRIES[system.slug]
