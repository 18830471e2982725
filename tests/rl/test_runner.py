from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from numpy.testing import assert_allclose, assert_array_equal
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from toy_policies import Chase, ChaseProblem

from medray.rl.config import ppo_config
from medray.rl.runner import RoundRunner


def runner(**changes: Any) -> RoundRunner:
    return RoundRunner(config=ppo_config(ChaseProblem(**changes), seed=0), worker_index=0)


def assert_same(one: list[SingleAgentEpisode], other: list[SingleAgentEpisode]) -> None:
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert_array_equal(mine.actions.data, theirs.actions.data)
        assert_array_equal(mine.observations.data["views"], theirs.observations.data["views"])


def test_a_round_depends_on_nothing_but_its_number_and_share():
    first, second = runner(), runner()
    second.module.set_state(first.module.get_state())
    second.play(0, 0, 3)
    assert_same(first.play(5, 1, 6), second.play(5, 1, 6))
    assert first.play(5, 0, 1)[0].actions.data[0, 0] != first.play(6, 0, 1)[0].actions.data[0, 0]


def test_plays_what_rllibs_own_runner_plays():
    """Without exploration and with as many episodes as environments, all of one length, both do the same."""
    config = ppo_config(ChaseProblem(endless=True), seed=0)
    mine, stock = RoundRunner(config=config, worker_index=0), SingleAgentEnvRunner(config=config, worker_index=0)
    stock.module.set_state(mine.module.get_state())
    stock._seed = 7
    ours = mine._play(7, 4, explore=False)
    theirs = stock.sample(num_episodes=4, explore=False)
    for a, b in zip(ours, theirs, strict=True):
        assert_allclose(a.get_observations()["views"], b.get_observations()["views"], atol=1e-6)
        assert_allclose(a.get_actions(), b.get_actions(), atol=1e-6)
        assert_allclose(a.get_rewards(), b.get_rewards(), atol=1e-6)
        assert (a.is_terminated, a.is_truncated) == (b.is_terminated, b.is_truncated)


def test_recorded_probability_is_that_of_the_recorded_action():
    sampler = runner()
    for episode in sampler.play(0, 0, 4):
        views = torch.from_numpy(episode.observations.data["views"][:-1])
        policy = sampler.problem.policy(sampler.module.actor({"views": views}))
        again = policy.log_prob(torch.from_numpy(episode.actions.data)).detach().numpy()
        assert_allclose(episode.extra_model_outputs["action_logp"].data, again, atol=1e-4)


def test_sample_of_rllib_gives_whole_episodes_and_metrics():
    sampler = runner()
    episodes = sampler.sample()
    assert len(episodes) == sampler.num_envs
    assert all(episode.is_done and episode.is_numpy for episode in episodes)
    found = sampler.get_metrics()
    assert found["episode_return_mean"].peek() == pytest.approx(np.mean([e.get_return() for e in episodes]), rel=1e-5)


def test_an_environment_that_resets_at_once_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Chase, "metadata", {"autoreset_mode": AutoresetMode.SAME_STEP})
    with pytest.raises(ValueError, match="Chase must have NEXT_STEP autoreset"):
        runner()
