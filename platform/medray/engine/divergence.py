"""Which samples of a batch make the loss or a gradient infinite or NaN, and the sentence that says so."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from medray.engine.nested import to_device
from medray.engine.seeding import seed_everything
from medray.engine.snapshot import copied
from medray.engine.step import EngineStep, gradient_norm
from medray.errors import UserError
from medray.learner import Learner, Step

_MOST_NAMED = 5


class Diverged(UserError):
    """A loss or gradient that is not finite ended the run."""


@dataclass(frozen=True)
class Culprit:
    """A sample that alone, too, gives something that is not finite.

    Attributes:
        name: as a person knows it.
        terms: what the training step reports for it.
    """

    name: str
    terms: Mapping[str, float]

    def __str__(self) -> str:
        terms = ", ".join(f"{name} {value:.4g}" for name, value in self.terms.items())
        return f"{self.name} ({terms})" if terms else self.name


class _Probe(Step):
    """Runs a training step for its losses and gradients; no optimizer moves."""

    def __init__(self, step: EngineStep) -> None:
        super().__init__(step.optimizers, seed=step.seed, epoch=step.epoch, index=step.index)
        self.finite = True
        self._step = step

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        return self._step.autocast()

    def backward(self, loss: torch.Tensor) -> None:
        self.finite &= bool(torch.isfinite(loss))
        loss.backward()

    def update(self, name: str, *, max_norm: float | None = None) -> None:
        parameters = [p for group in self.optimizers[name].param_groups for p in group["params"]]
        self.finite &= bool(torch.isfinite(gradient_norm(parameters)))
        self.optimizers[name].zero_grad(set_to_none=True)


def find_culprits(learner: Learner, step: EngineStep, indices: Sequence[int]) -> list[Culprit]:
    """Take each sample through the training step alone, and put weights and state back afterwards."""
    weights, extra = copied(learner.networks.state_dict()), copied(learner.extra_state())
    found = []
    for index in indices:
        for batch in ((index,), (index, index)):  # batch normalization wants more than one, and may have it twice
            try:
                culprit = _ask(learner, step, batch)
            except (ValueError, RuntimeError):
                continue
            finally:
                learner.sample_state.undo()
                learner.networks.load_state_dict(weights)
                learner.load_extra_state(extra)
                for optimizer in step.optimizers.values():  # no gradient of a probe may reach the next step
                    optimizer.zero_grad(set_to_none=True)
            if culprit is not None:
                found.append(culprit)
            break
    return found


def _ask(learner: Learner, step: EngineStep, indices: tuple[int, ...]) -> Culprit | None:
    probe = _Probe(step)
    seed_everything(step.seed, step.epoch, step.index, "probe")
    metrics = learner.training_step(to_device(learner.collate(indices, step.epoch), step.world.device), probe)
    terms = {name: value.mean for name, value in metrics.items()}
    if probe.finite and all(math.isfinite(value) for value in terms.values()):
        return None
    return Culprit(learner.sample_name(indices[0]), terms)


def sentence(what: str, step: int, epoch: int, culprits: Sequence[Culprit], batch: Sequence[str]) -> str:
    """What happened, when, and because of which samples.

    Args:
        what: is not finite.
        step: number of the update, from 0.
        epoch: likewise.
        culprits: samples that are at fault alone.
        batch: names of all samples of the batch, for when none is.
    """
    if culprits:
        who = "in " + ", ".join(map(str, culprits[:_MOST_NAMED]))
        left = len(culprits) - _MOST_NAMED
    else:
        who = "in none of its samples alone, but in the batch of " + ", ".join(batch[:_MOST_NAMED])
        left = len(batch) - _MOST_NAMED
    more = f" and {left} more" if left > 0 else ""
    return f"{what} is not finite at step {step} (epoch {epoch}), {who}{more}"
