"""A `PolicyProblem` as RLlib's configuration of PPO on the new API stack."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import VectorEnv
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.registry import register_env

from medray.policy import PolicyProblem
from medray.rl.learner import EpisodeLearner
from medray.rl.module import module_spec
from medray.rl.precision import Precision
from medray.rl.runner import RoundRunner

_ENV = "medray-policy-problem"


def ppo_config(
    problem: PolicyProblem,
    *,
    seed: int,
    num_runners: int = 0,
    use_gpu: bool = False,
    precision: Precision = "fp32",
) -> PPOConfig:
    """Everything RLlib needs, whether its `Algorithm` drives it or the engine does.

    Args:
        problem: what to learn.
        seed: decides every draw.
        num_runners: processes that sample; 0 samples in this one.
        use_gpu: learn on a GPU.
        precision: arithmetic of the networks' forward passes; distributions and losses stay in float32.
    """
    settings = problem.settings
    share = -(-settings.episodes_per_iteration // max(num_runners, 1))
    register_env(_ENV, make_env)
    config = PPOConfig()
    config.environment(
        _ENV,
        env_config={"problem": problem, "seed": seed, "precision": precision},
        observation_space=problem.observation_space,
        action_space=problem.action_space,
        # A bounded policy gives actions in the box; RLlib would take them for [-1, 1] and stretch them.
        normalize_actions=False,
        clip_actions=False,
    )
    config.env_runners(
        env_runner_cls=RoundRunner,
        num_env_runners=num_runners,
        num_envs_per_env_runner=min(share, -(-settings.num_envs // max(num_runners, 1))),
        gym_env_vectorize_mode="vector_entry_point",
        batch_mode="complete_episodes",
    )
    config.learners(learner_class=EpisodeLearner, num_learners=0, num_gpus_per_learner=int(use_gpu))
    config.rl_module(rl_module_spec=module_spec(problem))
    # An `Algorithm` samples until it has this many steps: one call of `sample`. Parts and passes are the learner's own.
    config.training(gamma=settings.gamma, lr=settings.lr, train_batch_size_per_learner=1, minibatch_size=None)
    return config


def make_env(context: dict[str, Any]) -> VectorEnv[Any, Any, Any]:
    """The problem's environments, for RLlib's own env runners."""
    problem: PolicyProblem = context["problem"]
    return problem.make_env(context.get("num_envs", 1), context["seed"])
