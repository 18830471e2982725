"""Networks as the paper prints them, and what its settings mean."""

from __future__ import annotations

import pickle
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.axon import Scene, TrackingOptions
from medray.policy import PPOSettings
from medray.systems.tracking.axon_presets import PRESETS
from medray.systems.tracking.axon_tracker import AxonProblem, AxonTrackerConfig

PAPER = AxonTrackerConfig()
SMALL = AxonTrackerConfig(channels=(4, 4), hidden=8)


def _observed(size: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "views": torch.rand(size, 12, 11, 11, generator=generator),
        "centreline": torch.rand(size, 4, 11, 11, generator=generator),
    }


def _num_parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_networks_have_the_parameters_of_tables_3_and_4() -> None:
    """Conv2 has padding 2: a 13 x 13 map of 32 channels goes into a layer of 512, 5408 x 512 + 512 of them."""
    problem = AxonProblem(PAPER, ())
    assert _num_parameters(problem.make_actor()) == 2_790_340
    assert _num_parameters(problem.make_critic()) == 2_792_001


def test_the_actor_answers_with_two_betas_and_the_critic_with_a_value() -> None:
    problem = AxonProblem(SMALL, ())
    assert problem.make_actor()(_observed()).shape == (3, 4)
    assert problem.make_critic()(_observed()).shape == (3,)
    with torch.no_grad():
        policy = problem.policy(problem.make_actor()(_observed()))
    assert (policy.unit.concentration1 > 1).all()  # type: ignore[attr-defined]
    assert (policy.deterministic.abs() < 4).all()


@pytest.mark.parametrize("asymmetric", [True, False])
def test_only_an_asymmetric_critic_sees_the_centreline(asymmetric: bool) -> None:
    torch.manual_seed(0)
    problem = AxonProblem(AxonTrackerConfig(channels=(4, 4), hidden=8, critic_sees_centreline=asymmetric), ())
    actor, critic = problem.make_actor(), problem.make_critic()
    seen, hidden = _observed(), _observed()
    hidden["centreline"] = torch.zeros(3, 4, 11, 11)
    with torch.no_grad():
        assert torch.equal(actor(seen), actor(hidden))
        assert torch.equal(critic(seen), critic(hidden)) != asymmetric


def test_bfloat16_answers_nearly_the_same_in_float32() -> None:
    actors = []
    for bf16 in (False, True):
        torch.manual_seed(0)
        actors.append(AxonProblem(AxonTrackerConfig(channels=(8, 8), hidden=32, bf16=bf16), ()).make_actor())
    with torch.no_grad():
        exact, rounded = (actor(_observed()) for actor in actors)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(exact, rounded, atol=0.02, rtol=0.02)
    assert not torch.equal(exact, rounded)


def test_defaults_are_the_papers() -> None:
    assert (PAPER.max_step_px, PAPER.max_steps, PAPER.scales, PAPER.reward) == (4, 200, (1, 2), "mean")
    assert (PAPER.gamma, PAPER.lambda_, PAPER.clip, PAPER.lr, PAPER.weight_decay) == (0.99, 0.95, 0.2, 5e-4, 3e-4)
    assert (PAPER.num_epochs, PAPER.episodes_per_iteration, PAPER.entropy_coeff) == (10, 32, 0)


def test_the_config_is_the_rules_and_the_learning_in_one() -> None:
    config = AxonTrackerConfig(**PRESETS["smoke"].config)
    for part in (config.options, config.ppo):
        assert all(getattr(part, field.name) == getattr(config, field.name) for field in fields(part))
    assert (type(config.options), type(config.ppo)) == (TrackingOptions, PPOSettings)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"channels": (0, 32)}, "at least 1"),
        ({"folds": 1}, "folds is 0 or at least 2"),
        ({"folds": 4, "fold": 4}, "fold one of them"),
        ({"lr": 0.0}, "lr is above 0"),
        ({"max_steps": 0}, "max_steps must be more than 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        AxonTrackerConfig(**wrong)


def test_a_problem_travels_and_judges_a_policy() -> None:
    line = np.stack([np.linspace(10.0, 50.0, 41), np.full(41, 20.0)], axis=1)
    scenes = [Scene(np.zeros((40, 60), np.float32), line)]
    problem = pickle.loads(pickle.dumps(AxonProblem(SMALL, scenes, scenes)))
    networks = problem.make_networks().eval()
    told = problem.evaluate(networks)
    assert set(told) == {"coverage_pct", "error_px", "raw_error_px", "reached_pct", "num_steps", "entropy"}
    assert 0 < told["coverage_pct"] <= 100
    assert told["entropy"] < 0
    assert AxonProblem(SMALL, scenes).evaluate(networks) == {}
    env = problem.make_env(3, seed=0)
    observed, _ = env.reset(seed=0)
    assert observed["views"].shape == (3, 12, 11, 11)
    assert problem.action_space == env.single_action_space
