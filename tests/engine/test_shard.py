"""Networks sharded over workers (FSDP2, here on the CPU with gloo) train as whole ones do."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.tensor import DTensor
from torch.testing import assert_close
from toy_learners import Regression, Rivals, Segmenter

from medray.engine.checkpoint import CheckpointStore
from medray.engine.loop import LoopSettings, run_loop
from medray.engine.options import LoopOptions
from medray.engine.world import World
from medray.learner import Step


class Witness(Regression):
    """Notes how much of its weights a worker holds."""

    def __init__(self, note: Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.note = note

    def shard_units(self) -> list[Any]:
        return [self.networks["net"][0]]

    def training_step(self, batch: Any, step: Step) -> Any:
        held = [p.to_local().numel() if isinstance(p, DTensor) else -1 for p in self.networks.parameters()]
        self.note.write_text(str(held))
        return super().training_step(batch, step)


MAKES = {
    "regression": functools.partial(Regression, dropout=0.0),
    "rivals": Rivals,
    "segmentation": functools.partial(Segmenter, num_samples=6),
}


def settings(run: Path, **options: Any) -> LoopSettings:
    return LoopSettings(name="train", run=run, options=LoopOptions(**options), tensorboard=False)


def worker(rank: int, size: int, root: str, port: int) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    torch.set_num_threads(1)
    for name, make in MAKES.items():
        run_loop(make, World(rank, size), settings(Path(root) / name, shard=True))
    witness = functools.partial(Witness, Path(root) / f"held{rank}", num_epochs=1)
    run_loop(witness, World(rank, size), settings(Path(root) / "witness", shard=True))
    more = functools.partial(Witness, Path(root) / f"held{rank}", num_epochs=3)
    run_loop(more, World(rank, size), settings(Path(root) / "witness", shard=True))
    dist.barrier()
    os._exit(0)


def newest(run: Path) -> dict[str, torch.Tensor]:
    found = CheckpointStore(run / "checkpoints" / "train").latest()
    assert found is not None
    return found[0]


def test_sharded_training_equals_whole_and_its_checkpoints_are_ordinary(tmp_path: Path, free_port: int) -> None:
    mp.spawn(worker, args=(2, str(tmp_path / "sharded"), free_port), nprocs=2)
    for name, make in MAKES.items():
        run_loop(make, World(), settings(tmp_path / "whole" / name))
        sharded, whole = newest(tmp_path / "sharded" / name), newest(tmp_path / "whole" / name)
        assert sharded.keys() == whole.keys()
        for key, value in whole.items():
            assert_close(sharded[key], value, rtol=1e-3, atol=1e-4, msg=f"{name} {key}")
    # The first layer is 8 x 4: each of the two workers holds half of it.
    assert [eval((tmp_path / "sharded" / f"held{rank}").read_text())[0] for rank in (0, 1)] == [16, 16]
    # Stopped after one epoch and gone on with, sharded both times, is what a whole network gives.
    run_loop(Regression, World(), settings(tmp_path / "whole" / "witness"))
    for key, value in newest(tmp_path / "whole" / "witness").items():
        assert_close(newest(tmp_path / "sharded" / "witness")[key], value, rtol=1e-3, atol=1e-4)
    # And a whole network takes a sharded run's checkpoint.
    result = run_loop(functools.partial(Regression, num_epochs=4), World(), settings(tmp_path / "sharded" / "witness"))
    assert result.step == 12


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
