"""Precision, compilation, memory format and determinism: chosen by option, recorded, and right."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from toy_learners import Regression, Segmenter

from medray.engine.checkpoint import CheckpointStore
from medray.engine.loop import LoopSettings, run_loop
from medray.engine.options import LoopOptions
from medray.engine.world import World
from medray.learner import Step


def train(make: Any, run: Path, **options: Any) -> dict[str, torch.Tensor]:
    run_loop(make, World(), LoopSettings(name="train", run=run, options=LoopOptions(**options), tensorboard=False))
    found = CheckpointStore(run / "checkpoints" / "train").latest()
    assert found is not None
    return found[0]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_rounds_the_forward_pass_and_keeps_weights_in_fp32(tmp_path: Path, precision: str) -> None:
    seen: list[torch.dtype] = []

    class Watched(Regression):
        def training_step(self, batch: Any, step: Step) -> Any:
            with step.autocast():
                seen.append(self.networks["net"](batch["x"]).dtype)
            return super().training_step(batch, step)

    many = {"num_epochs": 40}  # fp16 leaves out the first updates until its loss scale fits
    exact = train(functools.partial(Regression, **many), tmp_path / "a")
    rounded = train(functools.partial(Watched, **many), tmp_path / "b", precision=precision)
    assert set(seen) == {{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]}
    assert all(value.dtype == torch.float32 for value in rounded.values())
    errors = [
        _mean_error(weights)
        for weights in (exact, rounded, train(functools.partial(Regression, num_epochs=1), tmp_path))
    ]
    assert abs(errors[1] - errors[0]) < 0.1 * errors[2]


def _mean_error(weights: dict[str, torch.Tensor]) -> float:
    learner = Regression()
    learner.networks.load_state_dict(weights)
    with torch.no_grad():
        return float((learner.networks["net"].eval()(learner.x) - learner.y).square().mean())


def test_channels_last_reaches_weights_and_images_and_changes_nothing_else(tmp_path: Path) -> None:
    formats: list[tuple[bool, bool]] = []

    class Watched(Segmenter):
        def training_step(self, batch: Any, step: Step) -> Any:
            weight = next(p for p in self.networks.parameters() if p.ndim == 4 and min(p.shape[1], p.shape[2]) > 1)
            image = batch[0].expand(-1, 2, -1, -1).contiguous(memory_format=torch.channels_last)
            assert image.is_contiguous(memory_format=torch.channels_last)
            formats.append((weight.is_contiguous(memory_format=torch.channels_last), not weight.is_contiguous()))
            return super().training_step(batch, step)

    plain, other = train(Segmenter, tmp_path / "a"), train(Watched, tmp_path / "b", channels_last=True)
    assert set(formats) == {(True, True)}
    for name in plain:
        assert_close(other[name], plain[name], rtol=1e-3, atol=1e-4, msg=name)
        assert other[name].is_contiguous()  # what is saved does not depend on it


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_compiled_networks_learn_the_same_and_are_saved_under_the_same_names(tmp_path: Path) -> None:
    make = functools.partial(Regression, num_epochs=2)
    plain, compiled = train(make, tmp_path / "a"), train(make, tmp_path / "b", compile=True)
    assert plain.keys() == compiled.keys()
    for name in plain:
        assert_close(compiled[name], plain[name], rtol=1e-3, atol=1e-4, msg=name)


def test_deterministic_holds_inside_the_run_and_no_longer(tmp_path: Path) -> None:
    inside: list[bool] = []

    class Watched(Regression):
        def training_step(self, batch: Any, step: Step) -> Any:
            inside.append(torch.are_deterministic_algorithms_enabled())
            return super().training_step(batch, step)

    train(Watched, tmp_path, deterministic=True)
    assert set(inside) == {True}
    assert not torch.are_deterministic_algorithms_enabled()
