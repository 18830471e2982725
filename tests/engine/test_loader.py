"""Batches prepared ahead are the batches prepared in line, and a sample that cannot be read stops nobody else."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toy_learners import Regression, disc_learner

from medray.engine import loader as loader_module
from medray.engine.checkpoint import CheckpointStore
from medray.engine.loader import Loader
from medray.engine.loop import LoopSettings, run_loop
from medray.engine.options import LoopOptions
from medray.engine.rundir import read_json_lines
from medray.engine.world import World
from medray.errors import UserError
from medray.storage import StorageError


class Augmented(Regression):
    """Noise from the sample's own generator, and from the global one as some libraries do; epochs differ."""

    def begin_epoch(self, epoch: int) -> None:
        self.shift = torch.rand(()) + epoch

    def collate(self, indices: Sequence[int], epoch: int) -> dict[str, Any]:
        batch = super().collate(indices, epoch)
        noise = torch.stack([torch.randn(4, generator=self.sample_generator(i, epoch)) for i in indices])
        batch["x"] = batch["x"] + 0.1 * noise + 0.1 * torch.rand(()) + self.shift
        batch["pid"] = os.getpid()
        return batch


class Unreadable(Augmented):
    """Samples 2 and 3 are damaged."""

    def collate(self, indices: Sequence[int], epoch: int) -> dict[str, Any]:
        bad = [index for index in indices if index in (2, 3)]
        if bad:
            raise UserError(f"/scans/{bad[0]}.nii.gz is truncated")
        return super().collate(indices, epoch)


class AllBad(Regression):
    def collate(self, indices: Sequence[int], epoch: int) -> dict[str, Any]:
        raise UserError("nothing here")


def train(make: Any, run: Path, **options: Any) -> dict[str, torch.Tensor]:
    run_loop(make, World(), LoopSettings(name="train", run=run, options=LoopOptions(**options), tensorboard=False))
    found = CheckpointStore(run / "checkpoints" / "train").latest()
    assert found is not None
    return found[0]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("make", [functools.partial(Augmented, dropout=0.3), disc_learner])
def test_preparing_ahead_changes_nothing(tmp_path: Path, make: Any, processes: int) -> None:
    in_line = train(make, tmp_path / "0", loader_workers=0)
    ahead = train(make, tmp_path / "n", loader_workers=processes)
    assert all(torch.equal(in_line[name], ahead[name]) for name in in_line)


def test_batches_come_from_other_processes_in_order() -> None:
    learner = Augmented()
    loader = Loader(learner, World(), LoopOptions(loader_workers=2))
    loader.start(1, 2, 5)  # in the middle of an epoch
    learner.begin_epoch(1)
    shares = [loader.next() for _ in range(4)]
    assert [share.place for share in shares] == [(1, 2, 5), (2, 0, 6), (2, 1, 7), (2, 2, 8)]
    order = [*learner.order(1, 0)[8:], *learner.order(2, 0)]
    assert [index for share in shares for index in share.indices] == order
    assert os.getpid() not in {share.batch["pid"] for share in shares}


class Clocked(Augmented):
    """Preparing a batch takes as long as it is told to, on a clock of the test's own."""

    def __init__(self, prepare_s: float) -> None:
        super().__init__(num_epochs=10)
        self.prepare_s = prepare_s
        self.now = 0.0

    def collate(self, indices: Sequence[int], epoch: int) -> dict[str, Any]:
        self.now += self.prepare_s
        return super().collate(indices, epoch)


@pytest.mark.parametrize(("prepare_s", "expected"), [(0.001, False), (0.5, True)])
def test_processes_start_by_themselves_only_where_steps_wait(
    monkeypatch: pytest.MonkeyPatch, prepare_s: float, expected: bool
) -> None:
    learner = Clocked(prepare_s)
    monkeypatch.setattr(loader_module, "time", SimpleNamespace(perf_counter=lambda: learner.now))
    learner.begin_epoch(0)
    loader = Loader(learner, World(), LoopOptions(loader_workers=-1))
    loader.start(0, 0, 0)
    places = []
    for _ in range(30):
        places.append(loader.next().place)
        learner.now += 0.5  # the step
    assert (loader.processes > 0) == expected
    assert places == [(epoch, batch, 3 * epoch + batch) for epoch in range(10) for batch in range(3)]


@pytest.mark.parametrize("processes", [0, 1])
def test_a_damaged_sample_fails_with_its_own_sentence(tmp_path: Path, processes: int) -> None:
    with pytest.raises(UserError, match=r"^/scans/[23].nii.gz is truncated$"):
        train(Unreadable, tmp_path, loader_workers=processes)


@pytest.mark.parametrize("processes", [0, 1])
def test_damaged_samples_are_left_out_and_listed_once(tmp_path: Path, processes: int) -> None:
    train(Unreadable, tmp_path, loader_workers=processes, bad_samples="quarantine")
    records = list(read_json_lines(tmp_path / "quarantine.jsonl"))
    assert sorted(record["case"] for record in records) == ["sample 2", "sample 3"]
    assert all("is truncated" in record["reason"] for record in records)


def test_quarantine_on_one_worker_or_three_takes_the_same_samples() -> None:
    for size in (1, 3):
        seen: list[int] = []
        for rank in range(size):
            learner = Unreadable(batch_size=3)
            learner.begin_epoch(0)
            world = World()
            world.rank, world.size = rank, size
            loader = Loader(learner, world, LoopOptions(loader_workers=0, bad_samples="quarantine"))
            loader.start(0, 0, 0)
            shares = [loader.next() for _ in range(4)]
            seen += [index for share in shares for index in share.indices]
            assert all(share.batch is not None for share in shares)  # an idle worker has something to go through
        assert sorted(seen) == [0, 1, 4, 5, 6, 7, 8, 9, 10]


def test_when_nothing_can_be_read_the_sentence_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the 11 training samples can be read: nothing here"):
        train(AllBad, tmp_path, loader_workers=0, bad_samples="quarantine")


class Unreachable(Augmented):
    """Storage is away from sample 2 on."""

    def collate(self, indices: Sequence[int], epoch: int) -> dict[str, Any]:
        if 2 in indices:
            raise StorageError("s3://scans did not answer for 120 s")
        return super().collate(indices, epoch)


def test_storage_that_does_not_answer_is_no_reason_to_set_samples_aside(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did not answer"):
        train(Unreachable, tmp_path, loader_workers=0, bad_samples="quarantine")
    assert not (tmp_path / "quarantine.jsonl").exists()
