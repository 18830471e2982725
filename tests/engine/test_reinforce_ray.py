"""Reinforcement learning on Ray: actors that sample and may be lost, a learner elsewhere, Tune, RLlib's Algorithm."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from clusters import local_ray
from numpy.testing import assert_array_equal
from ray import tune
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from toy_policies import ChaseProblem

from medray.engine.checkpoint import load_weights
from medray.engine.options import RunOptions
from medray.engine.ray_train import RayWorkbench
from medray.engine.rundir import read_json_lines
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.rl.config import ppo_config
from medray.rl.crew import CrewOnRay, LearnerActor

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with local_ray():
        yield


def workbench(out: Path, **options: Any) -> RayWorkbench:
    return RayWorkbench(out, RunOptions(data="", num_workers=2, **options))


def assert_same(one: list[SingleAgentEpisode], other: list[SingleAgentEpisode]) -> None:
    for mine, theirs in zip(one, other, strict=True):
        assert_array_equal(mine.rewards.data, theirs.rewards.data)


def test_a_lost_runner_is_replaced_and_plays_the_same():
    crew = CrewOnRay(ChaseProblem(episodes_per_iteration=9), 0, num_runners=2)
    before = crew.sample(3)
    process = ray.get(crew._runners[1].apply.remote(lambda runner: os.getpid()))
    os.kill(process, signal.SIGKILL)
    after = crew.sample(3)
    assert len(before) == 9
    assert_same(before, after)
    crew.close()


def test_a_lost_learner_starts_again_from_the_newest_checkpoint(tmp_path: Path):
    class Losing(CrewOnRay):
        marker = tmp_path / "lost"

        def learn(self, episodes: Any, number: int, seed: int) -> dict[str, float]:
            if number == 3 and not self.marker.exists():
                self.marker.touch()
                raise ray.exceptions.RayActorError
            return super().learn(episodes, number, seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medray.rl.crew.CrewOnRay", Losing)
        result = workbench(tmp_path).reinforce(ChaseProblem())
    assert Losing.marker.exists()
    assert result.num_steps == 4
    records = [r["step"] for r in read_json_lines(tmp_path / "metrics.jsonl") if r["name"] == "train"]
    assert records == [1, 2, 3, 4]


def test_a_learner_elsewhere_learns_what_one_here_does():
    problem = ChaseProblem(minibatch_size=10)
    crew = CrewOnRay(problem, 0, num_runners=1)
    episodes = crew.sample(0)
    elsewhere = LearnerActor(ppo_config(problem, seed=0))
    elsewhere.restore(**crew.snapshot())
    assert elsewhere.learn(episodes, iteration=0, seed=1) == crew.learn(episodes, 0, 1)
    there, here = elsewhere.snapshot()["weights"], crew.snapshot()["weights"]
    assert all(torch.equal(there[name], here[name]) for name in here)
    episodes[0].rewards.data = episodes[0].rewards.data * float("nan")
    with pytest.raises(FloatingPointError, match="a reward of the environment"):
        elsewhere.learn(episodes, iteration=0, seed=1)
    crew.close()
    elsewhere.close()


def test_without_a_gpu_the_run_says_so(tmp_path: Path):
    with pytest.raises(UserError, match="no GPU"):
        workbench(tmp_path, use_gpu=True).reinforce(ChaseProblem())


def test_tune_compares_learning_rates(tmp_path: Path):
    def trial(config: dict[str, Any]) -> None:
        problem = ChaseProblem(lr=config["lr"], num_iterations=8, episodes_per_iteration=16, num_epochs=8)
        work = InProcessWorkbench(Path(tune.get_context().get_trial_dir()), quiet=True)
        fit = work.reinforce(problem)
        tune.report({**fit.metrics, "weights": str(fit.weights)})

    found = tune.Tuner(
        trial,
        param_space={"lr": tune.grid_search([1e-6, 1e-2])},
        tune_config=tune.TuneConfig(metric="validation_return", mode="max"),
        run_config=tune.RunConfig(name="sweep", storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert not found.errors
    best = found.get_best_result()
    assert best.config is not None
    assert best.config["lr"] == 1e-2
    assert best.metrics is not None
    assert load_weights(Path(best.metrics["weights"]))


def test_rllibs_algorithm_runs_the_same_configuration():
    algorithm = ppo_config(ChaseProblem(), seed=0).build_algo()
    for _ in range(2):
        result = algorithm.train()
    assert result["env_runners"]["num_episodes"] == 4  # one in each environment
    assert result["learners"]["default_policy"]["num_updates"] == 2
    algorithm.stop()
