"""A campaign small enough to run in a second: points on a line, two classes, networks of one layer."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

from medray.active.campaign import Campaign
from medray.active.oracle import Oracle, SimulatedOracle
from medray.active.sampler import Ranking, Sampler, SamplingRound, smallest
from medray.active.task import Seen, Task, TaskScores
from medray.data.case import Case, Volume
from medray.learner import Learner, Schedule, Step, SumCount
from medray.nn.weights import load_network
from medray.system import FitResult, Workbench


@dataclass(frozen=True)
class PointRef:
    """An image of 2 x 2 equal pixels."""

    value: float

    def load(self) -> Volume:
        return Volume(np.full((1, 2, 2), self.value, np.float32), np.eye(4))

    def fingerprint(self) -> str:
        return f"point {self.value}"


def points(number: int, *, seed: int = 0, name: str = "case") -> tuple[Case, ...]:
    """Cases whose class is the sign of their value."""
    values = np.random.default_rng(seed).normal(size=number).round(4)
    return tuple(
        Case(f"{name}{i:03d}", f"{name}{i:03d}", {"image": PointRef(v)}, {"class": "above" if v > 0 else "below"})
        for i, v in enumerate(values.tolist())
    )


class PointLearner(Learner):
    """Separates two sets of values by a layer with noise from the step's generator."""

    def __init__(self, values: Sequence[float], targets: Sequence[float], epochs: int, pause_s: float) -> None:
        super().__init__()
        self.values, self.targets = torch.tensor(values)[:, None], torch.tensor(targets)[:, None]
        self.networks = nn.ModuleDict({"net": nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))})
        self.schedule = Schedule(num_epochs=epochs, batch_size=8)
        self.pause_s = pause_s

    def configure_optimizers(self) -> dict[str, Optimizer]:
        return {"net": torch.optim.Adam(self.networks.parameters(), lr=0.05)}

    def num_samples(self) -> int:
        return len(self.values)

    def collate(self, indices: Sequence[int], epoch: int) -> Any:
        noise = torch.stack([torch.randn(1, generator=self.sample_generator(i, epoch)) for i in indices])
        return self.values[list(indices)] + 0.1 * noise, self.targets[list(indices)]

    def training_step(self, batch: Any, step: Step) -> Mapping[str, SumCount]:
        values, targets = batch
        time.sleep(self.pause_s)
        loss = F.binary_cross_entropy_with_logits(self.networks["net"](values), targets, reduction="sum")
        step.backward(step.mean(loss, len(values)))
        step.update("net")
        return {"loss": SumCount(loss.detach(), len(values))}


def meet(folder: str, me: str, other: str) -> None:
    """Wait for the other one, who waits for me; fails where we are not there at the same time."""
    if folder:
        (Path(folder) / me).touch()
        deadline = time.monotonic() + 60
        while not (Path(folder) / other).exists():
            assert time.monotonic() < deadline, f"{other} did not come while {me} was there"
            time.sleep(0.02)


def _values(cases: Sequence[Case]) -> list[float]:
    return [float(case.volume("image").array.flat[0]) for case in cases]


def _logits(weights: Path | None, cases: Sequence[Case]) -> torch.Tensor:
    network = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    if weights is not None:
        load_network(network, weights, prefix="net.")
    with torch.inference_mode():
        return network(torch.tensor(_values(cases))[:, None])[:, 0]


@dataclass(frozen=True)
class PointTask(Task):
    epochs: int = 6
    pause_s: float = 0.0
    meeting: str = ""
    kind: Any = "class"
    classes: tuple[str, ...] = ("below", "above")
    metric: str = "accuracy"

    def train(self, work: Workbench, cases: Sequence[Case], validation: Sequence[Case], *, name: str) -> FitResult:
        meet(self.meeting, "learner", "sampler")
        targets = [float(case.attributes["class"] == "above") for case in cases]
        return work.fit(functools.partial(PointLearner, _values(cases), targets, self.epochs, self.pause_s), name=name)

    def score(self, work: Workbench, weights: Path | None, cases: Sequence[Case]) -> TaskScores:
        said = _logits(weights, cases) > 0
        right = [bool(a) == (case.attributes["class"] == "above") for a, case in zip(said, cases, strict=True)]
        rows = [{"case": case.id, "correct": float(good)} for case, good in zip(cases, right, strict=True)]
        return TaskScores(rows, {"accuracy": float(np.mean(right))})

    def look(self, work: Workbench, weights: Path | None, cases: Sequence[Case]) -> Iterator[Seen]:
        for case in cases:
            p = torch.sigmoid(_logits(weights, [case]))
            yield Seen(torch.cat([1 - p, p]), p)


@dataclass(frozen=True)
class CriticSampler(Sampler):
    """Learns to tell labelled from unlabelled."""

    epochs: int = 6
    pause_s: float = 0.0
    meeting: str = ""

    def train(self, work: Workbench, view: SamplingRound) -> FitResult | None:
        meet(self.meeting, "sampler", "learner")
        values = _values([*view.labelled, *view.unlabelled])
        targets = [1.0] * len(view.labelled) + [0.0] * len(view.unlabelled)
        make = functools.partial(PointLearner, values, targets, self.epochs, self.pause_s)
        return work.fit(make, name=f"sampler-{view.number:03d}")

    def rank(
        self, work: Workbench, view: SamplingRound, *, weights: Path | None, task: Task, task_weights: Path | None
    ) -> Ranking:
        assert not any("class" in case.attributes for case in (*view.labelled, *view.unlabelled))
        picks, scores = smallest(view.unlabelled, _logits(weights, view.unlabelled).tolist(), view.budget)
        return Ranking(picks, scores, _logits(weights, view.labelled).numpy(), {"mean_score": float(scores.mean())})


class UncertainSampler(Sampler):
    """Asks the task network."""

    asks_learner = True

    def rank(
        self, work: Workbench, view: SamplingRound, *, weights: Path | None, task: Task, task_weights: Path | None
    ) -> Ranking:
        assert task_weights is not None
        seen = (float((one.probabilities[0] - 0.5).abs()) for one in task.look(work, task_weights, view.unlabelled))
        return Ranking(*smallest(view.unlabelled, seen, view.budget))


def simulated(cases: Sequence[Case], unlabellable: Sequence[str] = ()) -> Oracle:
    """Answers with the cases' own classes."""
    return SimulatedOracle({case.id: case for case in cases}, "class", unlabellable)


def toy_campaign(
    *,
    sampler: Sampler | None = None,
    make_oracle: Callable[[], Oracle] | None = None,
    pause_s: float = 0.0,
    meeting: str = "",
    **changes: Any,
) -> Campaign:
    """60 points, 6 labelled, 3 rounds of 5; with a ``meeting`` folder, learner and sampler wait for each other."""
    pool = points(60)
    settings: dict[str, Any] = {"budget": 5, "rounds": 3, **changes}
    return Campaign(
        task=PointTask(pause_s=pause_s, meeting=meeting),
        sampler=sampler or CriticSampler(pause_s=pause_s, meeting=meeting),
        make_oracle=make_oracle or functools.partial(simulated, pool),
        pool=pool,
        initial=tuple(case.id for case in pool[:6]),
        validation=points(10, seed=1, name="validation"),
        test=points(40, seed=2, name="test"),
        **settings,
    )
