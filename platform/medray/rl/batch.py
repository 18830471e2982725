"""What a round's episodes come down to for the update: flat tensors on the learner's device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from torch import Tensor

from medray.policy import PPOSettings
from medray.rl.advantages import advantages
from medray.rl.module import ActorCriticModule

Steps = dict[str, Tensor | dict[str, Tensor]]
"""Columns of steps, (N, ...) each; observations are a dict of them."""

_CHUNK = 1024
"""Observations the critic sees at once: more gain nothing and take memory."""


@dataclass(frozen=True)
class Batch:
    """The steps of all episodes, one after another.

    Attributes:
        columns: of RLlib's names, (N, ...) each; observations by name.
        explained_variance: share of the targets' variance that the critic's values had before the update.
    """

    columns: Steps
    explained_variance: float

    def __len__(self) -> int:
        return len(self.columns[Columns.ACTIONS])

    def minibatches(self, size: int) -> Iterator[Steps]:
        """One pass in random order, in parts of about ``size`` steps (0: all at once)."""
        if not 0 < size < len(self):
            yield self.columns
            return
        order = torch.randperm(len(self)).to(self.columns[Columns.ACTIONS].device)  # type: ignore[union-attr]
        for part in order.tensor_split(max(1, round(len(self) / size))):
            yield _rows(self.columns, part)


def in_parts(columns: Steps, size: int) -> Iterator[Steps]:
    """The steps in order, not more than ``size`` at once."""
    for start in range(0, len(columns[Columns.ACTIONS]), size):
        yield _rows(columns, slice(start, start + size))


def _rows(columns: Steps, index: Tensor | slice) -> Steps:
    return {
        name: {key: part[index] for key, part in column.items()} if isinstance(column, dict) else column[index]
        for name, column in columns.items()
    }


def make_batch(
    episodes: Sequence[SingleAgentEpisode], module: ActorCriticModule, settings: PPOSettings, device: torch.device
) -> Batch:
    """Values, advantages and targets of complete episodes.

    Raises:
        FloatingPointError: a reward or value is not finite.
    """
    obs = {
        name: _joined([episode.observations.data[name] for episode in episodes], device)
        for name in episodes[0].observations.data
    }
    lengths = [len(episode) for episode in episodes]
    values = _values(module, obs)
    rewards = [np.asarray(episode.rewards.data, np.float64) for episode in episodes]
    if not all(np.isfinite(r).all() for r in rewards):
        raise FloatingPointError("a reward of the environment")
    if not np.isfinite(values).all():
        raise FloatingPointError("a value of the critic")
    per_episode = np.split(values, np.cumsum([length + 1 for length in lengths])[:-1])
    gains = np.concatenate([
        advantages(r, v, terminated=e.is_terminated, gamma=settings.gamma, lambda_=settings.lambda_)
        for r, v, e in zip(rewards, per_episode, episodes, strict=True)
    ])  # fmt: skip
    before = np.concatenate([v[:-1] for v in per_episode])
    targets = before + gains
    if settings.normalize_advantages:
        gains = (gains - gains.mean()) / max(float(gains.std()), 1e-6)
    kept = _steps(lengths).to(device)
    columns: Steps = {
        Columns.OBS: {name: column[kept] for name, column in obs.items()},
        Columns.ADVANTAGES: torch.from_numpy(gains).to(device),
        Columns.VALUE_TARGETS: torch.from_numpy(targets).to(device),
        Columns.ACTIONS: _joined([e.actions.data for e in episodes], device),
    }
    for name in (Columns.ACTION_LOGP, Columns.ACTION_DIST_INPUTS):
        columns[name] = _joined([e.extra_model_outputs[name].data for e in episodes], device)
    spread = float(targets.var())
    return Batch(columns, 1 - float((targets - before).var()) / spread if spread > 0 else float("nan"))


def _joined(parts: Sequence[np.ndarray], device: torch.device) -> Tensor:
    return torch.from_numpy(np.concatenate(parts)).to(device)


def _values(module: ActorCriticModule, obs: dict[str, Tensor]) -> np.ndarray:
    total = len(next(iter(obs.values())))
    with torch.no_grad():
        parts = [
            module.compute_values({Columns.OBS: {name: column[start : start + _CHUNK] for name, column in obs.items()}})
            for start in range(0, total, _CHUNK)
        ]
    return torch.cat(parts).float().cpu().numpy()


def _steps(lengths: Sequence[int]) -> Tensor:
    """Indices of all observations but each episode's final one, from which no action was taken."""
    final = np.cumsum([length + 1 for length in lengths]) - 1
    keep = np.ones(final[-1] + 1, bool)
    keep[final] = False
    return torch.from_numpy(np.flatnonzero(keep))
