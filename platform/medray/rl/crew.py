"""Who samples and who learns: both in this process, or Ray actors that sample and a learner here or on a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from torch import Tensor

from medray.policy import PolicyProblem
from medray.rl.config import ppo_config
from medray.rl.learner import EpisodeLearner
from medray.rl.precision import Precision
from medray.rl.runner import RoundRunner


class Crew(Protocol):
    """What the engine's loop drives. A round is a function of its number, the seed and the weights."""

    def sample(self, number: int) -> list[SingleAgentEpisode]:
        """The episodes of a round, with the weights there are."""

    def learn(self, episodes: list[SingleAgentEpisode], number: int, seed: int) -> dict[str, float]:
        """See `EpisodeLearner.learn`."""

    def snapshot(self) -> dict[str, Any]:
        """See `EpisodeLearner.snapshot`."""

    def restore(self, weights: Mapping[str, Tensor], optimizer: Mapping[str, Any] | None = None) -> None:
        """See `EpisodeLearner.restore`."""

    def close(self) -> None:
        """Nobody works any more."""


class _Learning:
    """The part of a crew that learns, by a learner in this process or elsewhere."""

    _learner: Any

    def learn(self, episodes: list[SingleAgentEpisode], number: int, seed: int) -> dict[str, float]:
        """See `Crew.learn`."""
        return self._learner.learn(episodes, iteration=number, seed=seed)

    def snapshot(self) -> dict[str, Any]:
        """See `Crew.snapshot`."""
        return self._learner.snapshot()

    def restore(self, weights: Mapping[str, Tensor], optimizer: Mapping[str, Any] | None = None) -> None:
        """See `Crew.restore`."""
        self._learner.restore(weights, optimizer)


class CrewHere(_Learning):
    """One env runner and the learner, in this process. Needs no Ray cluster."""

    def __init__(self, problem: PolicyProblem, seed: int, *, precision: Precision = "fp32") -> None:
        config = ppo_config(problem, seed=seed, precision=precision)
        self._num_episodes = problem.settings.episodes_per_iteration
        self._runner = RoundRunner(config=config, worker_index=0)
        self._learner = config.build_learner()

    def sample(self, number: int) -> list[SingleAgentEpisode]:
        """See `Crew.sample`."""
        return self._runner.play(number, 0, self._num_episodes, self._learner.actor_weights())

    def close(self) -> None:
        """See `Crew.close`."""
        self._runner.stop()


class CrewOnRay(_Learning):
    """Env runners as actors, each with a share of the episodes. One that is lost starts again and plays its share.

    Args:
        problem: what to learn.
        seed: decides every draw; so does the number of runners.
        num_runners: actors that sample, with a core each.
        max_restarts: how often a lost runner is replaced; -1 always.
        use_gpu: learn in an actor with a GPU, else in this process.
        precision: of the networks' forward passes.
    """

    def __init__(
        self,
        problem: PolicyProblem,
        seed: int,
        *,
        num_runners: int,
        max_restarts: int = 3,
        use_gpu: bool = False,
        precision: Precision = "fp32",
    ) -> None:
        import ray

        config = ppo_config(problem, seed=seed, num_runners=num_runners, use_gpu=use_gpu, precision=precision)
        # "DEFAULT", not left out: in a trial of a sweep, runners would else have to fit into what the trial holds
        actor = ray.remote(num_cpus=1, max_restarts=max_restarts, max_task_retries=-1, scheduling_strategy="DEFAULT")(
            RoundRunner
        )
        self._runners = [actor.remote(config=config, worker_index=1 + index) for index in range(num_runners)]
        even, more = divmod(problem.settings.episodes_per_iteration, num_runners)
        self._shares = [even + (index < more) for index in range(num_runners)]
        self._learner = LearnerActor(config) if use_gpu else config.build_learner()

    def sample(self, number: int) -> list[SingleAgentEpisode]:
        """See `Crew.sample`."""
        import ray

        weights = ray.put(self._learner.actor_weights())
        calls = [
            runner.play.remote(number, index, share, weights)
            for index, (runner, share) in enumerate(zip(self._runners, self._shares, strict=True))
            if share
        ]
        with _cause():
            return [episode for episodes in ray.get(calls) for episode in episodes]

    def close(self) -> None:
        """See `Crew.close`."""
        import ray

        for runner in self._runners:
            ray.kill(runner)
        if isinstance(self._learner, LearnerActor):
            self._learner.close()


class LearnerActor:
    """An `EpisodeLearner` in a process of its own, with a GPU where its config asks for one."""

    def __init__(self, config: Any) -> None:
        import ray

        gpus = config.num_gpus_per_learner
        actor = ray.remote(num_cpus=0 if gpus else 1, num_gpus=gpus, scheduling_strategy="DEFAULT")(EpisodeLearner)
        self._actor = actor.remote(config=config, module_spec=config.get_multi_rl_module_spec())
        self._call("build")

    def learn(self, episodes: list[SingleAgentEpisode], *, iteration: int, seed: int) -> dict[str, float]:
        """See `EpisodeLearner.learn`."""
        return self._call("learn", episodes, iteration=iteration, seed=seed)

    def snapshot(self) -> dict[str, Any]:
        """See `EpisodeLearner.snapshot`."""
        return self._call("snapshot")

    def restore(self, weights: Mapping[str, Tensor], optimizer: Mapping[str, Any] | None = None) -> None:
        """See `EpisodeLearner.restore`."""
        self._call("restore", dict(weights), optimizer)

    def actor_weights(self) -> dict[str, Any]:
        """See `EpisodeLearner.actor_weights`."""
        return self._call("actor_weights")

    def close(self) -> None:
        """End the process."""
        import ray

        ray.kill(self._actor)

    def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        import ray

        with _cause():
            return ray.get(getattr(self._actor, method).remote(*arguments, **named))


@contextmanager
def _cause() -> Iterator[None]:
    """What an actor raised, as if it were raised here."""
    import ray

    try:
        yield
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
