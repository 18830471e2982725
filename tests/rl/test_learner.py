"""The update against a page of plain PyTorch, and its settings."""

from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from torch import Tensor
from torch.distributions import AffineTransform, Beta, Independent, TransformedDistribution
from torch.nn.functional import softplus
from torch.testing import assert_close
from toy_policies import ChaseProblem

from medray.rl.advantages import advantages
from medray.rl.batch import make_batch
from medray.rl.config import ppo_config
from medray.rl.learner import EpisodeLearner
from medray.rl.runner import RoundRunner


def built(**settings: Any) -> tuple[EpisodeLearner, list[SingleAgentEpisode]]:
    torch.manual_seed(0)
    config = ppo_config(ChaseProblem(**settings), seed=0)
    learner: EpisodeLearner = config.build_learner()
    runner = RoundRunner(config=config, worker_index=0)
    return learner, runner.play(0, 0, 6, learner.actor_weights())


def reference(networks: torch.nn.ModuleDict, episodes: list[SingleAgentEpisode], settings: Any) -> None:
    """PPO (Schulman et al., 2017) with one Adam, the whole batch at once."""

    def density(logits: Tensor) -> Independent:
        alpha, beta = (softplus(logits) + 1).chunk(2, -1)
        return Independent(TransformedDistribution(Beta(alpha, beta), AffineTransform(-4, 8)), 1)

    obs: dict[str, list[Tensor]] = {"views": [], "centreline": []}
    gains, targets, actions = [], [], []
    for episode in episodes:
        seen = {name: torch.from_numpy(episode.observations.data[name]) for name in obs}
        values = networks["critic"](seen).detach().numpy()
        gain = advantages(episode.rewards.data, values, terminated=episode.is_terminated, gamma=0.99, lambda_=0.95)
        gains.append(torch.from_numpy(gain))
        targets.append(torch.from_numpy(gain + values[:-1]))
        actions.append(torch.from_numpy(episode.actions.data))
        for name, parts in obs.items():
            parts.append(seen[name][:-1])
    inputs = {name: torch.cat(parts) for name, parts in obs.items()}
    gain, target, action = torch.cat(gains), torch.cat(targets), torch.cat(actions)
    gain = (gain - gain.mean()) / gain.std(correction=0)
    old = density(networks["actor"](inputs)).log_prob(action).detach()
    adam = torch.optim.Adam(networks.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    for _ in range(settings.num_epochs):
        ratio = (density(networks["actor"](inputs)).log_prob(action) - old).exp()
        surrogate = torch.min(gain * ratio, gain * ratio.clamp(1 - settings.clip, 1 + settings.clip)).mean()
        error = (networks["critic"](inputs) - target).square().mean()
        adam.zero_grad()
        (settings.value_coeff * error - surrogate).backward()
        if settings.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(networks.parameters(), settings.max_grad_norm)
        adam.step()


@pytest.mark.parametrize("settings", [{"num_epochs": 5}, {"weight_decay": 0.3, "lr": 0.02}, {"max_grad_norm": 0.1}])
def test_moves_the_weights_as_plain_pytorch_does(settings: dict[str, Any]):
    learner, episodes = built(**settings)
    networks = learner.problem.make_networks()
    networks.load_state_dict(learner.snapshot()["weights"])
    learner.learn(episodes, iteration=0, seed=0)
    reference(networks, episodes, learner.settings)
    assert_close(dict(learner.snapshot()["weights"]), dict(networks.state_dict()), rtol=1e-3, atol=1e-5)


def test_an_entropy_bonus_widens_the_policy():
    entropies = []
    for coefficient in (0.0, 1.0):
        learner, episodes = built(entropy_coeff=coefficient, num_epochs=20)
        learner.learn(episodes, iteration=0, seed=0)
        logits = learner.networks.actor({"views": torch.from_numpy(episodes[0].observations.data["views"])})
        entropies.append(learner.problem.policy(logits).entropy().mean().item())
    assert entropies[1] > entropies[0]


@pytest.mark.parametrize(
    ("settings", "updates"),
    [
        ({"num_epochs": 4}, 4),
        ({"num_epochs": 4, "kl_stop": 1e-9}, 2),  # the first pass starts from no divergence, the second sees some
        ({"num_epochs": 4, "kl_stop": 1e9}, 4),
        ({"num_epochs": 2, "minibatch_size": 10, "endless": True}, 8),  # 36 steps: four parts of 9
    ],
)
def test_number_of_updates(settings: dict[str, Any], updates: int):
    learner, episodes = built(**settings)
    assert learner.learn(episodes, iteration=0, seed=0)["num_updates"] == updates


def test_every_step_is_in_one_minibatch_of_a_pass():
    learner, episodes = built()
    batch = make_batch(episodes, learner.networks, learner.settings, torch.device("cpu"))
    parts = [part["actions"] for part in batch.minibatches(7)]
    assert sorted(torch.cat(parts)[:, 0].tolist()) == sorted(batch.columns["actions"][:, 0].tolist())
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_learning_rate_falls_in_a_straight_line():
    learner, episodes = built(lr=0.1, lr_end=0.02, num_iterations=5)
    rates = [learner.learn(episodes, iteration=number, seed=0)["learning_rate"] for number in range(5)]
    assert_allclose(rates, [0.1, 0.08, 0.06, 0.04, 0.02])


def test_advantages_bootstrap_only_where_an_episode_was_cut_off(monkeypatch: pytest.MonkeyPatch):
    """A critic that says 10 everywhere: gamma 1 and lambda 1 make a target the sum of rewards, plus 10 if cut off."""
    learner, episodes = built(gamma=1.0, lambda_=1.0, normalize_advantages=False)
    ten = torch.tensor(10.0)
    monkeypatch.setattr(learner.networks, "compute_values", lambda batch: ten.expand(len(batch["obs"]["views"])))
    batch = make_batch(episodes, learner.networks, learner.settings, torch.device("cpu"))
    first = torch.tensor([0, *[len(e) for e in episodes]])[:-1].cumsum(0)
    expected = [episode.get_return() + (0 if episode.is_terminated else 10) for episode in episodes]
    assert {episode.is_terminated for episode in episodes} == {True, False}
    assert_allclose(batch.columns["value_targets"][first].numpy(), expected, rtol=1e-5)


def test_what_is_not_finite_is_named_and_leaves_the_weights():
    learner, episodes = built()
    before = {name: value.clone() for name, value in learner.snapshot()["weights"].items()}
    episodes[0].extra_model_outputs["action_logp"].data[0] = float("nan")
    with pytest.raises(FloatingPointError, match="loss or its gradient"):
        learner.learn(episodes, iteration=0, seed=0)
    assert_close(dict(learner.snapshot()["weights"]), before, rtol=0, atol=0)
    episodes[0].rewards.data[0] = float("inf")
    with pytest.raises(FloatingPointError, match="reward"):
        learner.learn(episodes, iteration=0, seed=0)


def test_bfloat16_rounds_alike_when_sampling_and_learning():
    """Weights that have not moved are a policy that has not, though its logits are rounded."""
    torch.manual_seed(0)
    config = ppo_config(ChaseProblem(lr=1e-30, weight_decay=0.0, num_epochs=1), seed=0, precision="bf16")
    learner, sampler = config.build_learner(), RoundRunner(config=config, worker_index=0)
    rounded = learner.learn(sampler.play(0, 0, 6, learner.actor_weights()), iteration=0, seed=0)
    assert rounded["kl"] == pytest.approx(0, abs=1e-9)
    exact = RoundRunner(config=ppo_config(ChaseProblem(), seed=0), worker_index=0)
    assert learner.learn(exact.play(0, 0, 6, learner.actor_weights()), iteration=0, seed=0)["kl"] > 1e-9
