"""An RLlib env runner that plays whole rounds of episodes in arrays.

RLlib's own keeps Python lists and a connector pass per environment and step. This one records all environments of a
step as rows of one array and cuts episodes out of them at the end. Every round starts fresh from a seed of its own, so
that nothing has to be remembered between rounds, and plays each episode that it starts to its end: taking the first
that end would prefer short ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from medray.learner import seed_of
from medray.policy import PolicyProblem
from medray.rl.precision import bf16
from medray.rl.rounds import Recorder


class RoundRunner(SingleAgentEnvRunner):
    """``env_config`` of its config is ``{"problem": PolicyProblem, "seed": int}``; see `medray.rl.config`."""

    def make_env(self) -> None:
        """The problem's vector environment as it is, without wrappers that take its arrays apart.

        Raises:
            ValueError: it resets by itself in another way than NEXT_STEP, which would corrupt episodes.
        """
        self.problem: PolicyProblem = self.config.env_config["problem"]
        self.seed: int = self.config.env_config["seed"]
        self.env = self.problem.make_env(self.config.num_envs_per_env_runner, self.seed)
        self.num_envs = self.env.num_envs
        self.round = 0
        mode = self.env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.NEXT_STEP:
            raise ValueError(f"{type(self.env).__name__} must have NEXT_STEP autoreset, it has {mode}")

    def play(
        self, number: int, share: int, num_episodes: int, weights: Mapping[str, Any] | None = None
    ) -> list[SingleAgentEpisode]:
        """One share of a round. A function of its arguments alone: another runner would play the same.

        Args:
            number: of the round.
            share: which of the runners' shares.
            num_episodes: to start and end.
            weights: of the actor; those it has if None.
        """
        if weights is not None:
            self.module.set_state(weights)
        return self._play(seed_of("round", self.seed, number, share), num_episodes, explore=True)

    def _sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[SingleAgentEpisode]:
        """What `sample` of RLlib's `Algorithm` comes down to: whole episodes, one per environment unless told."""
        if num_timesteps is not None or random_actions:
            raise ValueError("RoundRunner samples whole episodes of its policy: batch_mode is complete_episodes")
        key = ("sample", self.seed, self.worker_index or 0, self.round)
        self.round += 1
        episodes = self._play(seed_of(*key), num_episodes or self.num_envs, explore=explore)
        self._done_episodes_for_metrics.extend(episodes)
        self._increase_sampled_metrics(sum(map(len, episodes)), len(episodes))
        return episodes

    def _play(self, seed: int, num_episodes: int, *, explore: bool) -> list[SingleAgentEpisode]:
        recorder = Recorder(self.num_envs, num_episodes)
        torch.default_generator.manual_seed(seed)
        obs, _ = self.env.reset(seed=seed % 2**31)
        actions = np.zeros(self.env.action_space.shape, self.env.single_action_space.dtype)
        while recorder.unfinished:
            rows = recorder.playing()
            chosen, columns = self._choose({name: value[rows] for name, value in obs.items()}, explore)
            actions[rows] = chosen
            recorder.add_observations(obs, rows)
            obs, rewards, terminated, truncated, _ = self.env.step(actions)
            recorder.add_step(rows, obs, chosen, rewards, terminated, truncated, columns)
        return [
            _episode(obs=part.obs, actions=part.actions, rewards=part.rewards, columns=part.columns,
                     terminated=part.terminated)
            for part in recorder.episodes()
        ]  # fmt: skip

    def _choose(self, obs: dict[str, np.ndarray], explore: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        tensors = {name: torch.from_numpy(value).to(self._device) for name, value in obs.items()}
        with bf16(self._device.type, self.config.env_config["precision"]):
            logits = self.module.forward_exploration({Columns.OBS: tensors})[Columns.ACTION_DIST_INPUTS].float()
        policy = self.problem.policy(logits)
        action = policy.sample() if explore else policy.deterministic
        columns = {Columns.ACTION_DIST_INPUTS: logits, Columns.ACTION_LOGP: policy.log_prob(action)}
        return action.cpu().numpy(), {name: value.cpu().numpy() for name, value in columns.items()}


def _episode(
    *,
    obs: Mapping[str, np.ndarray],
    actions: np.ndarray,
    rewards: np.ndarray,
    columns: Mapping[str, np.ndarray],
    terminated: bool,
) -> SingleAgentEpisode:
    return SingleAgentEpisode(
        observations=InfiniteLookbackBuffer(dict(obs)),
        infos=[{}] * (len(rewards) + 1),
        actions=InfiniteLookbackBuffer(actions),
        rewards=InfiniteLookbackBuffer(rewards),
        extra_model_outputs={name: InfiniteLookbackBuffer(column) for name, column in columns.items()},
        terminated=terminated,
        truncated=not terminated,
        len_lookback_buffer=0,
    )
