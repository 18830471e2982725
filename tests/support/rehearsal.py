"""Training cut short: every loop of a system, a few steps long, kept so that it can be run in other ways."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from medray.data.case import Splits
from medray.engine.checkpoint import CheckpointStore
from medray.engine.host import Host
from medray.engine.loop import LoopSettings, run_loop
from medray.engine.options import LoopOptions
from medray.engine.reinforce import run_reinforce
from medray.engine.workbench import InProcessWorkbench
from medray.engine.world import World
from medray.learner import Learner
from medray.policy import PolicyProblem
from medray.system import FitResult, System

STEPS = 4
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Short:
    """Makes a learner that takes a few steps, validates twice and keeps the statistics of batch norm as they are.

    Batch statistics depend on which samples share a worker, so no system could promise the same with several; all else
    must be equal.
    """

    def __init__(self, make: Callable[[], Learner], steps: int = STEPS) -> None:
        self.make, self.steps = make, steps

    def __call__(self) -> Learner:
        learner = self.make()
        order, validate = learner.order, learner.num_validation_samples
        wanted = self.steps * learner.schedule.batch_size

        def shorter(epoch: int, seed: int) -> Sequence[int]:
            whole = list(order(epoch, seed))
            return (whole * -(-wanted // len(whole)))[:wanted]

        learner.order = shorter  # type: ignore[method-assign]
        learner.num_validation_samples = lambda: min(2, validate())  # type: ignore[method-assign]
        changes = {"num_epochs": min(1, learner.schedule.num_epochs)}
        learner.schedule = type(learner.schedule)(**{**vars(learner.schedule), **changes})
        for module in learner.networks.modules():
            if isinstance(module, _NORMS):
                module.eval()
                module.train = lambda mode=True, module=module: module  # type: ignore[method-assign,misc,assignment]
        return learner


class SumsGradients(Optimizer):
    """Moves nothing and adds up the gradients, in its state under "sum".

    Real optimizers divide by the gradient's size, and so turn the rounding errors of a gradient that should be zero
    into steps as large as any.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__([{"params": group["params"]} for group in optimizer.param_groups], {"lr": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    state["sum"] = state["sum"] + parameter.grad if "sum" in state else parameter.grad.clone()


class GradientsOnly:
    """Makes a learner whose optimizers are `SumsGradients`."""

    def __init__(self, make: Callable[[], Learner]) -> None:
        self.make = make

    def __call__(self) -> Learner:
        learner = self.make()
        configure = learner.configure_optimizers
        learner.configure_optimizers = lambda: {  # type: ignore[method-assign]
            name: SumsGradients(optimizer) for name, optimizer in configure().items()
        }
        learner.configure_schedulers = lambda optimizers: {}  # type: ignore[method-assign]
        return learner


def shorter(problem: PolicyProblem, rounds: int) -> PolicyProblem:
    """The same policy learnt in a few rounds of a few episodes, evaluated after each."""
    short, settings = copy.copy(problem), problem.settings
    short.settings = replace(
        settings, num_iterations=rounds, episodes_per_iteration=4, num_envs=3, num_epochs=min(2, settings.num_epochs),
        evaluate_every_iterations=1,
    )  # fmt: skip
    return short


class Rehearsal(InProcessWorkbench):
    """A workbench whose loops are short. Of each kind it runs the first only, and hands its result out again.

    Attributes:
        loops: name -> what makes its learner.
        policies: name -> what is learnt by reinforcement.
    """

    def __init__(self, out: Path, *, steps: int = STEPS, first: Rehearsal | None = None) -> None:
        super().__init__(out, quiet=True, tensorboard=False)
        self.steps = steps
        self.loops: dict[str, Short] = first.loops if first else {}
        self.policies: dict[str, PolicyProblem] = first.policies if first else {}
        self._results: dict[str, FitResult] = first._results if first else {}

    def fit(self, make_learner: Callable[[], Learner], *, name: str = "train") -> FitResult:
        short = Short(make_learner, self.steps)
        learner = short()
        if learner.schedule.num_epochs == 0:
            return super().fit(short, name=name)
        kind = f"{type(learner).__name__} {' '.join(learner.networks)}"
        if kind not in self.loops:
            self.loops[kind] = short
            self._results[kind] = super().fit(short, name=name)
        return self._results[kind]

    def reinforce(self, problem: PolicyProblem, *, name: str = "train") -> FitResult:
        kind = type(problem).__name__
        if kind not in self.policies:
            self.policies[kind] = shorter(problem, self.steps)
            self._results[kind] = super().reinforce(self.policies[kind], name=name)
        return self._results[kind]

    def nested(self, name: str) -> Rehearsal:
        return Rehearsal(self.out / name, steps=self.steps, first=self)

    def forget(self, name: str) -> None:
        """Results are handed out again, so they stay."""


@dataclass(frozen=True)
class Rehearsed:
    """A system trained in a few steps per loop.

    Attributes:
        made: the system.
        splits: of its smoke data.
        loops: what makes the learners of its gradient loops, by name.
        policies: what it learns by reinforcement, by name.
    """

    made: System[Any]
    splits: Splits
    loops: dict[str, Short]
    policies: dict[str, PolicyProblem]


class StopsAfter(Host):
    """Asks to stop after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def stop_requested(self) -> bool:
        self.left -= 1
        return self.left <= 0


def run(make: Callable[[], Learner], folder: Path, host: Host | None = None, **options: Any) -> bool:
    """Run a loop in this process; whether it came to its end."""
    settings = LoopSettings(name="train", run=folder, options=LoopOptions(**options), tensorboard=False)
    return run_loop(make, World(), settings, host).finished


def learn(problem: PolicyProblem, folder: Path, host: Host | None = None) -> bool:
    """Learn a policy in this process; whether it came to its end."""
    from medray.rl.crew import CrewHere

    settings = LoopSettings(name="train", run=folder, options=LoopOptions(), tensorboard=False)
    return run_reinforce(problem, lambda: CrewHere(problem, settings.options.seed), settings, host).finished


def state_in(folder: Path) -> dict[str, Any]:
    """Weights and everything else the newest checkpoint holds, flat, by name."""
    found = CheckpointStore(folder / "checkpoints" / "train").latest()
    assert found is not None
    weights, state = found
    kept = {
        key: state[key] for key in ("optimizers", "optimizer", "schedulers", "sample_state", "extra") if key in state
    }
    return {**{f"weights {key}": value for key, value in weights.items()}, **_flat("state", kept)}


def gradients_in(folder: Path) -> dict[str, torch.Tensor]:
    """What `SumsGradients` left, by optimizer and number of the parameter."""
    return {key: value for key, value in state_in(folder).items() if key.endswith(".sum")}


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _flat(f"{name}.{key}", item).items()}
    if isinstance(value, list | tuple):
        return {k: v for key, item in enumerate(value) for k, v in _flat(f"{name}.{key}", item).items()}
    return {name: value}


def same(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Names under which two states differ in any bit."""
    assert first.keys() == second.keys()
    return [
        name
        for name, value in first.items()
        if not (torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name])
    ]
