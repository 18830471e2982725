"""What RLlib costs: sampling against a bare loop of policy and environment, the update against plain PyTorch.

    python tests/benchmarks/bench_rl.py [--rounds 5] [--episodes 32] [--minibatch-size 256] [--stock]

Networks and observations have the size of Dai et al. (MIDL 2019), tables 3 and 4. Sampling is measured on axons (images
ready in memory) and on a toy whose steps cost next to nothing. Both sides of a ratio run in this process, in turns, on
one core; what counts is CPU time, round by round, and useful steps: those of episodes that are learnt from.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from gymnasium.vector import VectorEnv
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from envs.axon.batched import AxonTrackingVectorEnv
from envs.axon.generator import SyntheticScenes
from medray.policy import PPOSettings
from medray.rl.batch import make_batch
from medray.rl.config import ppo_config
from medray.rl.learner import EpisodeLearner
from medray.rl.runner import RoundRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from toy_policies import TrackerSized


def bare_sampling(problem: TrackerSized, actor: torch.nn.Module, env: VectorEnv, num_steps: int) -> int:
    """Actor, draw, step; nothing is kept but what the update needs."""
    kept = []
    obs, _ = env.reset(seed=0)
    with torch.no_grad():
        for _ in range(num_steps):
            policy = problem.policy(actor({name: torch.from_numpy(value) for name, value in obs.items()}))
            actions = policy.sample()
            kept.append((obs, actions, policy.log_prob(actions)))
            obs, *_ = env.step(actions.numpy())
    return num_steps * env.num_envs


def bare_update(problem: TrackerSized, learner: EpisodeLearner, episodes: list[SingleAgentEpisode]) -> int:
    """PPO as a page of PyTorch. Advantages are part of the update on both sides."""
    settings, networks = problem.settings, torch.nn.ModuleDict(learner.networks.named_children())
    batch = make_batch(episodes, learner.networks, settings, torch.device("cpu"))
    columns = batch.columns
    adam = torch.optim.Adam(networks.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    for _ in range(settings.num_epochs):
        parts = torch.randperm(len(batch)).split(settings.minibatch_size or len(batch))
        for index in parts:
            obs = {name: column[index] for name, column in columns[Columns.OBS].items()}
            gain, old = columns[Columns.ADVANTAGES][index], columns[Columns.ACTION_LOGP][index]
            policy = problem.policy(networks["actor"](obs))
            ratio = (policy.log_prob(columns[Columns.ACTIONS][index]) - old).exp()
            surrogate = torch.min(gain * ratio, gain * ratio.clamp(1 - settings.clip, 1 + settings.clip)).mean()
            error = networks["critic"](obs) - columns[Columns.VALUE_TARGETS][index]
            adam.zero_grad()
            (error.square().mean() - surrogate).backward()
            adam.step()
    return len(batch)


def turns(jobs: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Steps per CPU second of every job in every round, in alternating order, after one round that does not count."""
    rates: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name in sorted(jobs, reverse=bool(number % 2)):
            began = time.process_time()
            steps = jobs[name]()
            if number:
                rates[name].append(steps / (time.process_time() - began))
    return rates


def main() -> None:
    """Print both ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--minibatch-size", type=int, default=256)
    parser.add_argument("--stock", action="store_true", help="also RLlib's own env runner")
    parser.add_argument("--only", choices=("sampling", "update"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    problem = TrackerSized()
    problem.settings = PPOSettings(
        episodes_per_iteration=options.episodes, num_envs=options.episodes, num_epochs=options.epochs,
        minibatch_size=options.minibatch_size,
    )  # fmt: skip
    config = ppo_config(problem, seed=0)
    runner = RoundRunner(config=config, worker_index=0)
    if options.only != "update":
        for each in (problem, OnAxons(problem.settings)):
            sampling(each, options)
    if options.only != "sampling":
        update(problem, runner, config.build_learner(), options)


class OnAxons(TrackerSized):
    """The tracker's own environment, with its images drawn beforehand."""

    def __init__(self, settings: PPOSettings) -> None:
        super().__init__()
        self.settings = settings
        self.scenes = SyntheticScenes(count=64)
        for index in range(64):
            self.scenes[index]

    def make_env(self, num_envs: int, seed: int) -> VectorEnv:
        return AxonTrackingVectorEnv(num_envs, scenes=self.scenes)


def sampling(problem: TrackerSized, options: argparse.Namespace) -> None:
    """One round of episodes against 100 steps of every environment."""
    runner = RoundRunner(config=ppo_config(problem, seed=0), worker_index=0)
    actor, env = problem.make_actor(), problem.make_env(options.episodes, 0)
    jobs = {
        "bare": lambda: bare_sampling(problem, actor, env, 100),
        "medray": lambda: sum(map(len, runner.play(0, 0, options.episodes))),
    }
    if options.stock:
        stock = SingleAgentEnvRunner(config=ppo_config(problem, seed=0), worker_index=0)
        jobs["stock"] = lambda: sum(map(len, stock.sample(num_episodes=options.episodes)))
    rates = turns(jobs, options.rounds)
    for name, found in rates.items():
        ratio = statistics.median(mine / bare for bare, mine in zip(rates["bare"], found, strict=True))
        print(f"sampling, {type(problem).__name__}, {name}: {statistics.median(found):.0f} steps per CPU second, "
              f"{ratio:.2f} of the bare rate (0.60 wanted)")  # fmt: skip


def update(problem: TrackerSized, runner: RoundRunner, learner: EpisodeLearner, options: argparse.Namespace) -> None:
    """The same passes over the same episodes."""
    episodes = runner.play(0, 0, options.episodes)
    num_steps = sum(map(len, episodes))

    def medray() -> int:
        learner.learn(episodes, iteration=0, seed=0)
        return num_steps

    rates = turns({"bare": lambda: bare_update(problem, learner, episodes), "medray": medray}, options.rounds)
    ratio = statistics.median(bare / mine for bare, mine in zip(rates["bare"], rates["medray"], strict=True))
    for name, found in rates.items():
        seconds = num_steps / statistics.median(found)
        print(f"update, {name}: {seconds:.2f} CPU s for {num_steps} steps, {options.epochs} epochs")
    print(f"update, medray / bare: {ratio:.3f} of its time (at most 1.10 wanted)")


if __name__ == "__main__":
    main()
