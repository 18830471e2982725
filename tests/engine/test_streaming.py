"""Training from shards in object storage sees the same samples in the same order as from local files."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from object_store import environment
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from medray.data import packing
from medray.data.case import Case
from medray.data.sources import open_source
from medray.engine.checkpoint import CheckpointStore
from medray.engine.loop import LoopSettings, run_loop
from medray.engine.world import World
from medray.learner import Learner, Schedule, Step, SumCount

VISITED: list[str] = []


class Mean(Learner):
    """Learns one number from images that it loads whenever it needs them."""

    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__()
        self.cases = cases
        self.networks = nn.ModuleDict({"net": nn.Linear(1, 1)})
        self.schedule = Schedule(num_epochs=3, batch_size=4, validate_every_epochs=0)

    def configure_optimizers(self) -> dict[str, Optimizer]:
        return {"net": SGD(self.networks.parameters(), lr=0.1)}

    def num_samples(self) -> int:
        return len(self.cases)

    def collate(self, indices: Sequence[int], epoch: int) -> Tensor:
        VISITED.extend(self.cases[index].id for index in indices)
        values = [self.cases[index].volume("image").array.mean() for index in indices]
        return torch.tensor(np.array(values), dtype=torch.float32)[:, None]

    def training_step(self, batch: Tensor, step: Step) -> Mapping[str, SumCount]:
        error = (self.networks["net"](batch) - 1).square()
        step.backward(step.mean(error.sum(), error.numel()))
        step.update("net")
        return {"loss": SumCount(error.detach().sum(), error.numel())}


def _trained(spec: str, run: Path) -> tuple[list[str], dict[str, Any]]:
    VISITED.clear()
    assert run_loop(
        functools.partial(Mean, open_source(spec).cases),
        World(),
        LoopSettings(name="train", run=run, tensorboard=False),
    ).finished
    found = CheckpointStore(run / "checkpoints" / "train").latest()
    assert found is not None
    return list(VISITED), found[0]


def test_streamed_training_is_bit_identical_and_shuffled_over_all_shards(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for number in range(10):
        np.save(tmp_path / "data" / f"{number}.npy", rng.random((4, 4), np.float32))
    with environment(MEDRAY_CACHE=str(tmp_path / "cache")):
        done = packing.pack(open_source(str(tmp_path / "data")), f"{bucket}/p", shard_bytes=200)
        assert done.shards == 3
        order, weights = _trained(str(tmp_path / "data"), tmp_path / "local")
        streamed_order, streamed = _trained(f"{bucket}/p", tmp_path / "streamed")
    assert not (tmp_path / "cache").exists()
    assert streamed_order == order
    for name, value in weights.items():
        assert torch.equal(streamed[name], value)
    epochs = [order[start : start + 10] for start in (0, 10, 20)]
    assert [sorted(epoch) for epoch in epochs] == [[str(n) for n in range(10)]] * 3
    assert epochs[0] != epochs[1]
    for epoch in epochs:  # shards hold 4, 4 and 2 cases; a shuffle of shards, or inside them, would change shard twice
        shards = [int(name) // 4 for name in epoch]
        assert sum(one != other for one, other in pairwise(shards)) > 3
