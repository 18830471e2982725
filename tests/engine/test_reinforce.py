"""The loop of reinforcement learning: it learns, and however it is interrupted it ends with the same weights."""

import functools
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toy_policies import ChaseProblem

from medray.engine.checkpoint import CheckpointStore
from medray.engine.divergence import Diverged
from medray.engine.host import Host
from medray.engine.loop import LoopResult, LoopSettings
from medray.engine.mirror import Mirror
from medray.engine.options import LoopOptions
from medray.engine.reinforce import run_reinforce
from medray.engine.rundir import read_json_lines
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.policy import PolicyProblem
from medray.rl.crew import CrewHere
from medray.storage import Folder

TIMES = {"wall_s", "samples_per_second", "sample_s", "update_s"}


class StopsAt(Host):
    """Asks to stop after so many rounds."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.left = rounds

    def stop_requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def settings(run: Path, **more: Any) -> LoopSettings:
    return LoopSettings(name="train", run=run, options=LoopOptions(**more), tensorboard=False)


def learn(problem: PolicyProblem, run: Path, host: Host | None = None, **more: Any) -> LoopResult:
    return run_reinforce(problem, functools.partial(CrewHere, problem, 0), settings(run, **more), host)


def outcome(run: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[dict[str, Any]]]:
    found = CheckpointStore(run / "checkpoints" / "train").latest()
    assert found is not None
    records = [{k: v for k, v in r.items() if k not in TIMES} for r in read_json_lines(run / "metrics.jsonl")]
    for key in TIMES:
        found[1]["metrics"].pop(key, None)
    return found[0], found[1], records


def assert_same(got: Path, expected: Path) -> None:
    mine, theirs = outcome(got), outcome(expected)
    for name, value in theirs[0].items():
        assert torch.equal(mine[0][name], value), name
    for number, moments in theirs[1]["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(mine[1]["optimizer"]["state"][number][name], value), (number, name)
    assert mine[1]["position"] == theirs[1]["position"]
    assert mine[1]["metrics"] == theirs[1]["metrics"]
    assert mine[2] == theirs[2]


minibatches = functools.partial(ChaseProblem, minibatch_size=10, lr_end=1e-3, num_iterations=5)


@pytest.mark.parametrize("distribution", ["beta", "gaussian"])
def test_the_return_rises(distribution: Any, tmp_path: Path):
    problem = ChaseProblem(distribution, num_iterations=25, episodes_per_iteration=32, num_envs=32, num_epochs=8,
                           evaluate_every_iterations=5, lr=1e-2)  # fmt: skip
    result = InProcessWorkbench(tmp_path, quiet=True, tensorboard=False).reinforce(problem)
    scores = [r["return"] for r in read_json_lines(tmp_path / "metrics.jsonl") if r["name"] == "validation"]
    assert max(scores) > 1.8  # 3.06 px is as near as targets are on average, and 1 px of it is not paid for
    networks = problem.make_networks()
    assert result.weights is not None
    networks.load_state_dict(load_file(result.weights))  # prefixes actor. and critic., the best of them
    assert problem.evaluate(networks)["return"] == pytest.approx(max(scores), abs=1e-5)
    assert result.num_steps == 25
    assert result.samples_per_second > 0


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_stopped_and_resumed_is_as_if_never_stopped(rounds: int, tmp_path: Path):
    learn(minibatches(), tmp_path / "whole")
    first = learn(minibatches(), tmp_path / "parts", StopsAt(rounds))
    assert (first.finished, first.step) == (False, rounds)
    assert learn(minibatches(), tmp_path / "parts").finished
    assert_same(tmp_path / "parts", tmp_path / "whole")


def test_killed_and_resumed_is_as_if_never_killed(tmp_path: Path):
    class Doomed(CrewHere):
        def learn(self, episodes: Any, number: int, seed: int) -> dict[str, float]:
            if number == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().learn(episodes, number, seed)

    problem = minibatches()
    learn(problem, tmp_path / "whole")
    pid = os.fork()
    if pid == 0:
        try:
            run_reinforce(problem, lambda: Doomed(problem, 0), settings(tmp_path / "killed"))
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert outcome(tmp_path / "killed")[1]["position"]["iteration"] == 2  # the evaluation after two rounds saved it
    learn(problem, tmp_path / "killed")
    assert_same(tmp_path / "killed", tmp_path / "whole")


def test_a_finished_run_is_not_run_again(tmp_path: Path):
    first = learn(ChaseProblem(), tmp_path)
    again = learn(ChaseProblem(), tmp_path)
    assert (again.finished, again.step, again.weights) == (True, first.step, first.weights)


def test_the_best_checkpoint_stays_and_the_last_is_kept_without_a_monitor(tmp_path: Path):
    class Falls(ChaseProblem):
        def __init__(self) -> None:
            super().__init__(num_iterations=6, evaluate_every_iterations=1)
            self.scores = iter([1.0, 5.0, 4.0, 3.0, 2.0, 1.0] * 2)

        def evaluate(self, networks: Any) -> dict[str, float]:
            return {"return": next(self.scores)}

    assert Path(learn(Falls(), tmp_path / "best").weights or "").parent.name == "step-00000002"
    unmonitored = Falls()
    unmonitored.monitor = None
    assert Path(learn(unmonitored, tmp_path / "last").weights or "").parent.name == "step-00000006"


def test_records_say_where_the_run_is(tmp_path: Path):
    result = learn(ChaseProblem(), tmp_path)
    records = [r for r in read_json_lines(tmp_path / "metrics.jsonl") if r["name"] == "train"]
    assert [r["step"] for r in records] == [1, 2, 3, 4]
    assert [r["episodes"] for r in records] == [8, 16, 24, 32]
    assert {"return_mean", "episode_length_mean", "action_norm_mean", "entropy", "kl", "clip_fraction",
            "value_loss", "explained_variance", "sample_s", "update_s", "total_steps"} <= set(records[0])  # fmt: skip
    assert result.metrics["env_steps"] == records[-1]["env_steps"]
    assert "validation_return" in result.metrics


def test_starts_from_given_weights(tmp_path: Path):
    first = learn(ChaseProblem(), tmp_path / "first")
    problem = ChaseProblem(num_iterations=1, lr=1e-12, weight_decay=0)
    problem.initial_weights = Path(first.weights or "")
    learn(problem, tmp_path / "second")
    for name, value in load_file(first.weights or "").items():
        torch.testing.assert_close(outcome(tmp_path / "second")[0][name], value)
    problem.initial_weights = tmp_path / "nowhere.safetensors"
    with pytest.raises(UserError, match="no weights at"):
        learn(problem, tmp_path / "third")


def test_divergence_is_told_in_a_sentence_and_leaves_a_checkpoint(tmp_path: Path):
    problem = ChaseProblem(lr=1e30, num_iterations=9)
    with pytest.raises(Diverged, match=r"not finite in iteration \d; the newest checkpoint, step-0000000\d, is from"):
        learn(problem, tmp_path)
    assert all(
        torch.isfinite(value).all() for value in CheckpointStore(tmp_path / "checkpoints/train").latest()[0].values()
    )


def test_a_run_in_object_storage_goes_on_on_another_machine(tmp_path: Path, bucket: str):
    learn(minibatches(), tmp_path / "whole")
    url = f"{bucket}/run"
    for machine, host in (("one", StopsAt(3)), ("two", Host())):
        (tmp_path / machine).mkdir()
        host._mirror = Mirror(tmp_path / machine, Folder(url))
        learn(minibatches(), tmp_path / machine, host)
    assert_same(tmp_path / "two", tmp_path / "whole")


@pytest.mark.parametrize("option", [{"precision": "fp16"}, {"shard": True}, {"compile": True}, {"skip_nonfinite": 2}])
def test_an_option_that_means_nothing_here_is_refused(option: dict[str, Any], tmp_path: Path):
    with pytest.raises(UserError, match="is not for reinforcement learning"):
        InProcessWorkbench(tmp_path, LoopOptions(**option)).reinforce(ChaseProblem())
