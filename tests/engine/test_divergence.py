"""A loss that is not finite never reaches a weight, and the case it comes from is named."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_learners import Diary, Normed, Regression, Rivals

from medray.engine.checkpoint import CheckpointStore
from medray.engine.divergence import Diverged, find_culprits
from medray.engine.loop import LoopSettings, run_loop
from medray.engine.options import LoopOptions
from medray.engine.rundir import read_json_lines
from medray.engine.step import EngineStep
from medray.engine.world import World
from medray.learner import Learner


class Poisoned:
    """Mixed into a learner: sample 7 holds a NaN."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.x[7, 0] = float("nan")  # type: ignore[attr-defined]

    def sample_name(self, index: int) -> str:
        return f"case_{index:03}"


class PoisonedRegression(Poisoned, Regression):
    pass


class PoisonedNormed(Poisoned, Normed):
    pass


class PoisonedDiary(Poisoned, Diary):
    pass


class PoisonedRivals(Poisoned, Rivals):
    pass


def settings(run: Path, **options: Any) -> LoopSettings:
    return LoopSettings(name="train", run=run, options=LoopOptions(**options), tensorboard=False)


def newest(run: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    found = CheckpointStore(run / "checkpoints" / "train").latest()
    assert found is not None
    return found


def poisoned_step(make: Any) -> int:
    """Update number that meets sample 7 first."""
    learner: Learner = make()
    order = list(learner.order(0, 0))
    return order.index(7) // learner.schedule.batch_size


@pytest.mark.parametrize("make", [PoisonedRegression, PoisonedNormed, PoisonedDiary])
def test_the_run_stops_before_the_step_and_names_case_and_terms(tmp_path: Path, make: Any) -> None:
    step = poisoned_step(make)
    with pytest.raises(Diverged, match=rf"not finite at step {step} \(epoch 0\), in case_007 \(loss nan\)") as raised:
        run_loop(make, World(), settings(tmp_path))
    assert f"step-{step:08d}" in str(raised.value)
    weights, state = newest(tmp_path)
    assert state["position"]["step"] == step
    assert all(torch.isfinite(value).all() for value in weights.values())
    clean = functools.partial(make.__mro__[2], num_epochs=1)
    run_loop(clean, World(), settings(tmp_path / "clean", checkpoint_every_steps=step or 1, keep_checkpoints=99))
    if step:
        path = tmp_path / "clean" / "checkpoints" / "train" / f"step-{step:08d}"
        expected = CheckpointStore(path.parent)._read(path)[0]
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_two_networks_stop_too(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"gradient of critic .*case_007 \(gap nan\)"):
        run_loop(PoisonedRivals, World(), settings(tmp_path))


@pytest.mark.parametrize("make", [PoisonedRegression, PoisonedNormed, PoisonedDiary, PoisonedRivals])
def test_skipping_leaves_no_trace_of_the_bad_case_and_is_recorded(tmp_path: Path, make: Any) -> None:
    result = run_loop(make, World(), settings(tmp_path, skip_nonfinite=10))
    assert result.finished
    weights, state = newest(tmp_path)
    assert all(torch.isfinite(value).all() for value in weights.values())
    epochs = make().schedule.num_epochs
    assert state["position"]["skipped"] == epochs
    records = list(read_json_lines(tmp_path / "skipped.jsonl"))
    assert len(records) == epochs
    assert all("case_007" in record["reason"] for record in records)
    assert all(value is not None for r in read_json_lines(tmp_path / "metrics.jsonl") for value in r.values())
    for kept in state["sample_state"].values():
        assert all(torch.isfinite(value).all() for value in kept.values())


def test_the_limit_of_skips_is_a_limit(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"epoch 2"):
        run_loop(PoisonedRegression, World(), settings(tmp_path, skip_nonfinite=2))
    assert json.loads((tmp_path / "skipped.jsonl").read_text().splitlines()[-1])["skipped"] == 2


def test_a_run_that_stopped_can_go_on_past_the_case(tmp_path: Path) -> None:
    with pytest.raises(Diverged):
        run_loop(PoisonedRegression, World(), settings(tmp_path / "run"))
    run_loop(PoisonedRegression, World(), settings(tmp_path / "run", skip_nonfinite=9))
    run_loop(PoisonedRegression, World(), settings(tmp_path / "whole", skip_nonfinite=9))
    went_on, whole = newest(tmp_path / "run")[0], newest(tmp_path / "whole")[0]
    assert all(torch.equal(went_on[name], whole[name]) for name in whole)


class Explodes(Regression):
    """Nothing is wrong with the data: the learning rate is."""

    def configure_optimizers(self) -> Any:
        return {"net": torch.optim.SGD(self.networks.parameters(), lr=1e30)}

    def training_step(self, batch: Any, step: Any) -> Any:
        error = (self.networks["net"](batch["x"]) - batch["y"]).square()
        step.backward(step.mean(error.sum(), error.numel()))
        step.update("net")
        return {}


def test_when_no_case_is_at_fault_the_batch_is_named(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"not finite at step \d+ .*sample \d+.*Lower the learning rate"):
        run_loop(Explodes, World(), settings(tmp_path))


def test_fp16_overflow_is_scaled_away_and_not_taken_for_divergence(tmp_path: Path) -> None:
    result = run_loop(Regression, World(), settings(tmp_path, precision="fp16"))
    assert result.finished
    assert newest(tmp_path)[1]["scaler"]["scale"] <= 65536


def test_looking_for_culprits_leaves_no_gradient_behind() -> None:
    """Also of a network that is not updated by the part of the step that the probe got to."""

    class Breaks(PoisonedRegression):
        def training_step(self, batch: Any, step: Any) -> Any:
            self.networks["net"](batch["x"]).sum().backward()
            raise RuntimeError("half way")

    breaks = Breaks()
    step = EngineStep(breaks.configure_optimizers(), world=World())
    assert find_culprits(breaks, step, [0, 1]) == []
    assert all(parameter.grad is None for parameter in breaks.networks.parameters())
    learner = PoisonedRegression()
    step = EngineStep(learner.configure_optimizers(), world=World())
    assert [culprit.name for culprit in find_culprits(learner, step, [6, 7, 8])] == ["case_007"]
