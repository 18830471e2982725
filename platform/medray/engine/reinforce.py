"""The loop of reinforcement learning: rounds of sampling and learning, evaluation, checkpoints, resume.

What a round needs is the weights, the optimizer's state and the number of the round: episodes begin anew in each, from
seeds of their own. So a run that was killed ends with the weights of an undisturbed one.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from medray.engine.checkpoint import CheckpointStore, disk_error, improves
from medray.engine.divergence import Diverged
from medray.engine.host import Host
from medray.engine.loop import LoopResult, LoopSettings
from medray.engine.metrics_log import MetricsLog
from medray.engine.options import LoopOptions
from medray.engine.prepare import arithmetic
from medray.engine.seeding import seed_everything
from medray.engine.snapshot import copied
from medray.engine.writer import CheckpointWriter
from medray.errors import UserError
from medray.learner import seed_of
from medray.nn.weights import load_network
from medray.policy import PolicyProblem

if TYPE_CHECKING:  # importing RLlib takes seconds
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    from medray.rl.crew import Crew


def usable_precision(options: LoopOptions) -> Literal["fp32", "bf16"]:
    """The arithmetic that the options ask for.

    Raises:
        UserError: an option is set that means nothing here; fp16 is one, whose range is too narrow for these losses.
    """
    for name in ("compile", "channels_last", "shard", "skip_nonfinite"):
        if getattr(options, name):
            raise UserError(f"--{name.replace('_', '-')} is not for reinforcement learning; leave it out")
    if options.precision == "fp16":
        raise UserError("--precision fp16 is not for reinforcement learning; take bf16 or fp32")
    return options.precision


@dataclass
class _Position:
    """Where a run is; saved in every checkpoint.

    Attributes:
        iteration: rounds behind us.
        env_steps: sampled in all of them.
        episodes: likewise.
        best: monitored number of the best evaluation so far.
        best_iteration: rounds behind us then.
    """

    iteration: int = 0
    env_steps: int = 0
    episodes: int = 0
    best: float | None = None
    best_iteration: int | None = None


def run_reinforce(
    problem: PolicyProblem, make_crew: Callable[[], Crew], settings: LoopSettings, host: Host | None = None
) -> LoopResult:
    """Learn the policy to the end of its settings, from the newest whole checkpoint if there is one.

    Args:
        problem: what to learn.
        make_crew: whoever samples and learns; closed at the end.
        settings: of the run. Of its options, the seed, ``deterministic`` and those about checkpoints count.
        host: the process around it.

    Raises:
        Diverged: a loss, gradient, value or reward is not finite.
        UserError: the initial weights cannot be read, the disk is full.
    """
    started = time.perf_counter()
    with (
        arithmetic(settings.options),
        _threads(problem.settings.threads),
        contextlib.closing(make_crew()) as crew,
    ):
        try:
            loop = _Reinforcement(problem, crew, settings, host or Host())
            finished, env_steps, busy_s = loop.run()
        except OSError as error:
            raise disk_error(error, settings.run) from error
    best = loop.store.best()
    return LoopResult(
        finished=finished,
        step=loop.position.iteration,
        metrics=loop.last_metrics,
        weights=str(best) if best else None,
        seconds=time.perf_counter() - started,
        samples_per_second=env_steps / busy_s if busy_s > 0 else 0.0,
    )


class _Reinforcement:
    def __init__(self, problem: PolicyProblem, crew: Crew, settings: LoopSettings, host: Host) -> None:
        self.problem, self.crew, self.settings, self.host = problem, crew, settings, host
        self.options = settings.options
        self.store = CheckpointStore(settings.run / "checkpoints" / settings.name, keep=self.options.keep_checkpoints)
        self.log = MetricsLog(settings.run, tensorboard=settings.tensorboard)
        self.position = _Position()
        self.last_metrics: dict[str, float] = {}
        seed_everything(self.options.seed, "init")
        self.networks = problem.make_networks()
        host.fetch_checkpoints(self.store.folder)
        self.store.take_over()
        saved = self.store.latest()
        self.resumed = saved is not None
        if saved is None:
            self._begin()
        else:
            self._resume(*saved)
        self.log.rewind(settings.name, self.position.iteration)
        self.writer = CheckpointWriter(self.store, host.saved)
        self._saved_at = time.monotonic()

    def _begin(self) -> None:
        if self.problem.initial_weights is not None:
            load_network(self.networks, self.problem.initial_weights)
        self.crew.restore(self.networks.state_dict())

    def _resume(self, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        self.crew.restore(weights, state["optimizer"])
        self.position = _Position(**state["position"])
        self.last_metrics = dict(state["metrics"])
        if self.position.best_iteration is not None:
            self.store.mark_best(self.position.best_iteration)  # it may have been killed between saving and marking

    def run(self) -> tuple[bool, int, float]:
        """All remaining rounds. Returns whether it got to the end, the steps sampled and the seconds they took."""
        total, position = self.problem.settings.num_iterations, self.position
        steps_before, began = position.env_steps, time.perf_counter()
        try:
            if not self.resumed:
                self._checkpoint()  # whatever happens to the first round, there is something from before it
            while position.iteration < total and not self.host.stop_requested():
                self._round()
                self._end_round(last=position.iteration == total)
            if position.iteration < total:
                self._checkpoint()
            self.writer.wait()
        except Exception:
            with contextlib.suppress(Exception):  # what there is must last, and the first error is the one to tell
                self.writer.wait()
            self._close(quietly=True)
            raise
        self._close()
        return position.iteration >= total, position.env_steps - steps_before, time.perf_counter() - began

    def _close(self, *, quietly: bool = False) -> None:
        self.log.close()
        with contextlib.suppress(Exception) if quietly else contextlib.nullcontext():
            self.host.finish()

    def _round(self) -> None:
        position, number = self.position, self.position.iteration
        began = time.perf_counter()
        episodes = self.crew.sample(number)
        sampled = time.perf_counter()
        try:
            learnt = self.crew.learn(episodes, number, seed_of(self.options.seed, "update", number))
        except FloatingPointError as error:
            raise self._diverged(error) from None
        over = time.perf_counter()
        steps = sum(map(len, episodes))
        position.iteration += 1
        position.env_steps += steps
        position.episodes += len(episodes)
        so_far = {"env_steps": position.env_steps, "episodes": position.episodes}
        pace = {"sample_s": round(sampled - began, 3), "update_s": round(over - sampled, 3)}
        self._log(
            "train",
            {**_summary(episodes), **learnt, **so_far, **pace},
            total_steps=self.problem.settings.num_iterations,
            samples_per_second=round(steps / (over - began), 1),
        )

    def _diverged(self, error: FloatingPointError) -> Diverged:
        self.writer.wait()
        return Diverged(
            f"{error} is not finite in iteration {self.position.iteration}; the newest checkpoint, "
            f"{self.store.newest()}, is from before it. Lower the learning rate or set a max_grad_norm"
        )

    def _end_round(self, *, last: bool) -> None:
        every, options = self.problem.settings.evaluate_every_iterations, self.options
        self.writer.check()
        if last or (every and self.position.iteration % every == 0):
            self._checkpoint(best=self._evaluate())
            return
        minutes, steps = options.checkpoint_every_minutes, options.checkpoint_every_steps
        late = bool(minutes) and time.monotonic() - self._saved_at > 60 * minutes and not self.writer.busy
        if late or (steps and self.position.iteration % steps == 0):
            self._checkpoint()

    def _evaluate(self) -> bool:
        """Score the policy; whether it is the best so far."""
        problem, position = self.problem, self.position
        seed_everything(self.options.seed, "validation", position.iteration)
        self.networks.load_state_dict(self.crew.snapshot()["weights"])
        scores = dict(problem.evaluate(self.networks.eval()))
        if scores:
            self._log("validation", scores)
        if problem.monitor is None or problem.monitor not in scores:
            return False
        if not improves(scores[problem.monitor], position.best, problem.mode):
            return False
        position.best, position.best_iteration = scores[problem.monitor], position.iteration
        return True

    def _log(self, name: str, metrics: Mapping[str, float], **more: Any) -> None:
        number = self.position.iteration
        finite = {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
        prefix = "" if name == "train" else f"{name}_"
        self.last_metrics.update({prefix + key: value for key, value in finite.items()})
        self.log.write(name, loop=self.settings.name, step=number, epoch=number, metrics=finite, **more)
        self.host.observe(name, {**finite, **more, "step": number})

    def _checkpoint(self, *, best: bool = False) -> None:
        """Copy the state and let it be written; training goes on at once."""
        snapshot = self.crew.snapshot()
        state = {
            "optimizer": copied(snapshot["optimizer"]),
            "position": dict(vars(self.position)),
            "metrics": dict(self.last_metrics),
        }
        self.writer.save(self.position.iteration, copied(snapshot["weights"]), state, best=best)
        self._saved_at = time.monotonic()


def _summary(episodes: list[SingleAgentEpisode]) -> dict[str, float]:
    """What a round's episodes were like; the length of an action is in the unit of the action box."""
    lengths = np.array([len(episode) for episode in episodes])
    steps = np.concatenate([np.linalg.norm(episode.actions.data, axis=-1) for episode in episodes])
    return {
        "return_mean": float(np.mean([episode.get_return() for episode in episodes])),
        "episode_length_mean": float(lengths.mean()),
        "terminated_share": float(np.mean([episode.is_terminated for episode in episodes])),
        "action_norm_mean": float(steps.mean()),
    }


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """PyTorch with that many threads inside; 0 leaves it."""
    before = torch.get_num_threads()
    if number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
