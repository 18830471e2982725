"""Every loop of every system: the same weights however it is interrupted, fed, or spread over workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rehearsal import (
    STEPS,
    GradientsOnly,
    Rehearsal,
    Rehearsed,
    Short,
    StopsAfter,
    gradients_in,
    learn,
    run,
    same,
    state_in,
)

from medray.engine.loop import LoopSettings, run_loop
from medray.engine.options import LoopOptions
from medray.engine.world import World
from medray.system import System

Loops = dict[str, GradientsOnly]


def test_what_learns_has_loops(rehearsed: Rehearsed) -> None:
    assert bool(rehearsed.loops or rehearsed.policies) == (rehearsed.made.learning_signal is not None)


def test_stopped_and_resumed_is_bit_identical(rehearsed: Rehearsed, tmp_path: Path) -> None:
    for name, make in rehearsed.loops.items():
        assert run(make, tmp_path / name / "whole")
        assert not run(make, tmp_path / name / "parts", StopsAfter(STEPS // 2))
        assert run(make, tmp_path / name / "parts")
        assert same(state_in(tmp_path / name / "whole"), state_in(tmp_path / name / "parts")) == [], name


def test_a_policy_stopped_and_resumed_is_bit_identical(rehearsed: Rehearsed, tmp_path: Path) -> None:
    for name, problem in rehearsed.policies.items():
        assert learn(problem, tmp_path / name / "whole")
        assert not learn(problem, tmp_path / name / "parts", StopsAfter(STEPS // 2))
        assert learn(problem, tmp_path / name / "parts")
        assert same(state_in(tmp_path / name / "whole"), state_in(tmp_path / name / "parts")) == [], name


def test_batches_prepared_ahead_are_the_same(rehearsed: Rehearsed, tmp_path: Path) -> None:
    for name, make in rehearsed.loops.items():
        run(make, tmp_path / name / "between", loader_workers=0)
        run(make, tmp_path / name / "ahead", loader_workers=1)
        assert same(state_in(tmp_path / name / "between"), state_in(tmp_path / name / "ahead")) == [], name


def test_half_precision_stays_finite(rehearsed: Rehearsed, tmp_path: Path) -> None:
    for name, make in rehearsed.loops.items():
        assert run(Short(make.make, 2), tmp_path / name, precision="bf16")
        values = [v for v in state_in(tmp_path / name).values() if isinstance(v, torch.Tensor)]
        assert all(bool(torch.isfinite(v).all()) for v in values if v.is_floating_point()), name


def test_every_variant_trains(slug: str, system: type[System[Any]], rehearsed: Rehearsed, tmp_path: Path) -> None:
    smoke = system.presets["smoke"].config
    for name, variant in list(system.variants.items())[1:]:
        made = system(system.config_class(**{**smoke, **variant.config}))
        work = Rehearsal(tmp_path / name, steps=1)
        trained = made.train(work, rehearsed.splits)
        learned = [path for path in (trained.weights, *trained.files.values()) if path is not None]
        assert all(path.stat().st_size > 0 for path in learned), name
        assert learned or not (work.loops or work.policies), f"{name} trained and left no model"


@pytest.fixture(scope="session")
def on_two_workers(
    request: pytest.FixtureRequest,
    rehearse: Callable[[str], Rehearsed],
    tmp_path_factory: pytest.TempPathFactory,
    session_port: int,
) -> Path:
    """The loops of all systems that are being tested, on two workers: starting them once costs far more than a loop."""
    root = tmp_path_factory.mktemp("two-workers")
    items = [item for item in request.session.items if "on_two_workers" in getattr(item, "fixturenames", ())]
    slugs = sorted({item.callspec.params["slug"] for item in items})  # type: ignore[attr-defined]
    loops = {f"{slug}/{name}": GradientsOnly(make) for slug in slugs for name, make in rehearse(slug).loops.items()}
    if loops:
        mp.spawn(_worker, args=(str(root), loops, session_port), nprocs=2)
    return root


@pytest.fixture(scope="session")
def session_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _worker(rank: int, root: str, loops: Loops, port: int) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    for name, make in loops.items():
        settings = LoopSettings(name="train", run=Path(root) / name, options=LoopOptions(), tensorboard=False)
        run_loop(make, World(rank, 2), settings)
    dist.barrier()
    os._exit(0)  # gloo's threads may abort an ordinary interpreter exit, and everything is on disk by now


def test_two_workers_do_what_one_does(slug: str, rehearsed: Rehearsed, on_two_workers: Path, tmp_path: Path) -> None:
    """Every optimizer gets the same gradients."""
    for name, make in rehearsed.loops.items():
        run(GradientsOnly(make), tmp_path / name)
        one, two = gradients_in(tmp_path / name), gradients_in(on_two_workers / slug / name)
        assert one.keys() == two.keys(), name
        largest = max(float(value.norm()) for value in one.values())
        assert largest > 0, name
        for key, value in one.items():
            error = float((two[key] - value).norm())
            assert error <= 1e-3 * float(value.norm()) + 1e-5 * largest, f"{name}: {key}"
