"""What a system says about a policy to be learnt by reinforcement: environment, networks, settings. No Ray in here.

The engine learns it with PPO (`Workbench.reinforce`); a prediction needs nothing but the actor and `act`.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from medray.nn.bounded import POLICIES, BoundedPolicy, Box, Kind

Observations = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class PPOSettings:
    """Proximal policy optimization (Schulman et al., 2017). Defaults are those of Dai et al., MIDL 2019, or silent."""

    num_iterations: int = 1000
    """Rounds of sampling episodes and learning from them."""
    episodes_per_iteration: int = 32
    """Complete episodes sampled in each round."""
    num_envs: int = 32
    """Environments stepped together, in all sampling processes, not more than there are episodes. With fewer, those
    that end early make room for the next episode; with as many, they idle until the longest has ended."""
    gamma: float = 0.99
    """Discount per step."""
    lambda_: float = 0.95
    """Decay of generalized advantage estimation, per step."""
    clip: float = 0.2
    """How far from 1 the ratio of new to old probability is rewarded."""
    entropy_coeff: float = 0.0
    """Weight of the policy's entropy in the loss."""
    value_coeff: float = 1.0
    """Weight of the critic's squared error in the loss."""
    normalize_advantages: bool = True
    """Whether a round's advantages are shifted and scaled to mean 0 and standard deviation 1."""
    lr: float = 5e-4
    """Learning rate of Adam."""
    lr_end: float | None = None
    """Learning rate at the end of the run, reached in a straight line; none keeps it."""
    weight_decay: float = 3e-4
    """L2 penalty in Adam's gradient, both networks."""
    num_epochs: int = 10
    """Passes over a round's steps."""
    minibatch_size: int = 0
    """Steps per update; 0 takes all steps of a round at once."""
    kl_stop: float = 0.0
    """Ends a round's passes once the policy has moved this far from the one that sampled, nats; 0 never does."""
    max_grad_norm: float = 0.0
    """Gradients are scaled down to this norm, over both networks; 0 leaves them."""
    evaluate_every_iterations: int = 20
    """How often the policy is evaluated and saved; also after the last round. 0 does so only then."""
    threads: int = 0
    """CPU threads of PyTorch in the learning process; 0 leaves PyTorch's own choice."""

    def __post_init__(self) -> None:
        least = {"num_iterations": 1, "episodes_per_iteration": 1, "num_envs": 1, "num_epochs": 1, "minibatch_size": 0,
                 "evaluate_every_iterations": 0, "threads": 0, "weight_decay": 0, "entropy_coeff": 0,
                 "value_coeff": 0, "kl_stop": 0, "max_grad_norm": 0}  # fmt: skip
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} is {bound} or more, got {getattr(self, name)}")
        for name in ("gamma", "lambda_"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is between 0 and 1, got {getattr(self, name)}")
        for name in ("lr", "clip"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is above 0, got {getattr(self, name)}")

    def lr_at(self, iteration: int) -> float:
        """Learning rate of a round, counted from 0."""
        if self.lr_end is None:
            return self.lr
        return self.lr + (self.lr_end - self.lr) * iteration / max(self.num_iterations - 1, 1)


class PolicyProblem(ABC):
    """A policy to be learnt. Picklable: it travels to every process that samples or learns.

    Attributes:
        settings: how it is learnt.
        observation_space: of one environment, a Dict of float32 boxes.
        action_space: of one environment, a float32 Box with finite bounds and one axis.
        distribution: what the actor's logits mean; see `medray.nn.bounded`.
        monitor: the number of `evaluate` that decides which checkpoint is best; None keeps the last.
        mode: whether more or less of it is better.
        initial_weights: safetensors file of networks to start from (fine-tuning), as a fit leaves it.
    """

    settings: PPOSettings
    observation_space: gymnasium.spaces.Dict
    action_space: gymnasium.spaces.Box
    distribution: Kind = "beta"
    monitor: str | None = None
    mode: Literal["max", "min"] = "max"
    initial_weights: Path | None = None

    @abstractmethod
    def make_env(self, num_envs: int, seed: int) -> VectorEnv[Any, Any, Any]:
        """Environments stepped together, with NEXT_STEP autoreset.

        Everything random in their episodes must follow from ``seed`` here and the seed of `reset`, so that a resumed
        run samples what an undisturbed one does.
        """

    @abstractmethod
    def make_actor(self) -> nn.Module:
        """Network from observations (name -> (B, ...)) to logits (B, 2 A); never looks at what only the critic may."""

    @abstractmethod
    def make_critic(self) -> nn.Module:
        """Network from observations to values (B,). Only built where there is learning."""

    def evaluate(self, networks: nn.ModuleDict) -> Mapping[str, float]:
        """Scores of the deterministic policy on validation scenes.

        Args:
            networks: "actor" and "critic" on the CPU, in evaluation mode.
        """
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> PolicyProblem:
        """Itself: RLlib copies its configuration again and again, and a problem (with its images) does not change."""
        return self

    def make_networks(self) -> nn.ModuleDict:
        """Both networks, freshly initialized; the names are the prefixes in a file of weights."""
        return nn.ModuleDict({"actor": self.make_actor(), "critic": self.make_critic()})

    def box(self) -> Box:
        """The bounds of the actions."""
        return _box(tuple(self.action_space.low.tolist()), tuple(self.action_space.high.tolist()))

    def policy(self, logits: Tensor) -> BoundedPolicy:
        """The distribution that an actor's logits (B, 2 A) stand for."""
        return POLICIES[self.distribution].from_logits(logits, self.box())


_box = functools.lru_cache(Box)
"""One for all policies with the same bounds: they are made at every step."""


def act(problem: PolicyProblem, actor: nn.Module, obs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Deterministic actions and how sure the policy is of them.

    Args:
        problem: the actor's.
        actor: in evaluation mode.
        obs: name -> (B, ...) float32.

    Returns:
        actions (B, A) in the box, and entropies (B,) on the unit box, nats (see `medray.nn.bounded`).
    """
    device = next(actor.parameters()).device
    with torch.no_grad():
        policy = problem.policy(actor({name: torch.as_tensor(value, device=device) for name, value in obs.items()}))
        return policy.deterministic.cpu().numpy(), policy.entropy().cpu().numpy()
