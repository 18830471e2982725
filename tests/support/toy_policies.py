"""Small problems for reinforcement learning: chase a point seen in a window, with a critic that is told where it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor, nn

from medray.nn.bounded import Kind
from medray.policy import PolicyProblem, PPOSettings, act

REACH = 4.0


def spaces(channels: int, secret: int, size: int) -> tuple[Dict, Box]:
    """Observations and actions of one environment: windows of ``size`` px, the secret ones for the critic alone."""
    views = Box(0, 1, (channels, size, size), np.float32)
    hidden = Box(0, 1, (secret, size, size), np.float32)
    return Dict({"views": views, "centreline": hidden}), Box(-REACH, REACH, (2,), np.float32)


class Chase(VectorEnv):
    """A blob at an unknown offset; an action moves the window, the reward is the distance gained, px.

    Reaching it (1 px) terminates, the last of ``limit`` steps truncates. Targets are within 4 px in x and y.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int, *, channels: int = 1, secret: int = 1, size: int = 5, limit: int = 6,
                 endless: bool = False) -> None:  # fmt: skip
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = spaces(channels, secret, size)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.limit = limit
        self.endless = endless
        self.offset = np.zeros((num_envs, 2))
        self.age = np.zeros(num_envs, int)
        self.over = np.zeros(num_envs, bool)
        half = size // 2
        rows, columns = np.mgrid[-half : half + 1, -half : half + 1]
        self._grid = np.stack([columns, rows], -1)[None] * (REACH / half)
        self._channels, self._secret = channels, secret
        self._draws = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        if seed is not None:
            self._draws = np.random.default_rng(seed)
        self._begin(np.ones(self.num_envs, bool))
        self.over[:] = False
        return self._look(), {}

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        again, going = self.over.copy(), ~self.over
        before = np.linalg.norm(self.offset, axis=1)
        self.offset[going] -= actions[going]
        self.age[going] += 1
        self._begin(again)
        after = np.linalg.norm(self.offset, axis=1)
        reward = np.where(going, before - after, 0.0)
        terminated = going & (after < 1) & (not self.endless)
        truncated = going & ~terminated & (self.age >= self.limit)
        self.over = terminated | truncated
        return self._look(), reward, terminated, truncated, {}

    def _begin(self, who: np.ndarray) -> None:
        self.offset[who] = self._draws.uniform(-REACH, REACH, (int(who.sum()), 2))
        self.age[who] = 0

    def _look(self) -> dict[str, np.ndarray]:
        square = ((self._grid - self.offset[:, None, None]) ** 2).sum(-1)[:, None]
        blob = np.exp(-square / 8).astype(np.float32)
        return {"views": np.repeat(blob, self._channels, 1), "centreline": np.repeat(blob**2, self._secret, 1)}


class Actor(nn.Module):
    """Sees the views."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, 32), nn.Tanh(), nn.Linear(32, 4))

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        return self.body(obs["views"])


class Critic(nn.Module):
    """Sees the views and what is kept from the actor."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, 32), nn.Tanh(), nn.Linear(32, 1))

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        return self.body(torch.cat([obs["views"], obs["centreline"]], 1)).squeeze(-1)


class ChaseProblem(PolicyProblem):
    """Learnt within seconds: a return of about 3 px instead of -4."""

    monitor = "return"

    def __init__(self, distribution: Kind = "beta", *, limit: int = 6, endless: bool = False, **settings: Any) -> None:
        defaults = {"num_iterations": 4, "episodes_per_iteration": 8, "num_envs": 4, "num_epochs": 2,
                    "evaluate_every_iterations": 2, "lr": 3e-3, "threads": 1}  # fmt: skip
        self.settings = PPOSettings(**(defaults | settings))
        self.distribution = distribution
        self.observation_space, self.action_space = spaces(1, 1, 5)
        self.limit, self.endless = limit, endless

    def make_env(self, num_envs: int, seed: int) -> VectorEnv:
        return Chase(num_envs, limit=self.limit, endless=self.endless)

    def make_actor(self) -> nn.Module:
        return Actor(1, 5)

    def make_critic(self) -> nn.Module:
        return Critic(2, 5)

    def evaluate(self, networks: nn.ModuleDict) -> dict[str, float]:
        env = Chase(64, limit=self.limit, endless=self.endless)
        obs, _ = env.reset(seed=1)
        total, going = np.zeros(64), np.ones(64, bool)
        for _ in range(self.limit):
            obs, reward, terminated, truncated, _ = env.step(act(self, networks["actor"], obs)[0])
            total += reward * going
            going &= ~(terminated | truncated)
        return {"return": float(total.mean())}


class TrackerSized(PolicyProblem):
    """Windows and networks of the size of Dai et al. (MIDL 2019), tables 3 and 4, on the toy environment."""

    def __init__(self, **settings: Any) -> None:
        self.settings = PPOSettings(**settings)
        self.observation_space, self.action_space = spaces(12, 4, 11)

    def make_env(self, num_envs: int, seed: int) -> VectorEnv:
        return Chase(num_envs, channels=12, secret=4, size=11, limit=100, endless=True)

    def make_actor(self) -> nn.Module:
        return _TrackerNet(("views",), 12, 4)

    def make_critic(self) -> nn.Module:
        return nn.Sequential(_TrackerNet(("views", "centreline"), 16, 1), nn.Flatten(0))


class _TrackerNet(nn.Sequential):
    def __init__(self, names: tuple[str, ...], channels: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 32, 5, padding=2), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(5408, 512), nn.ReLU(), nn.Linear(512, outputs),
        )  # fmt: skip
        self.names = names

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        return super().forward(torch.cat([obs[name] for name in self.names], 1))
