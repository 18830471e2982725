"""The toy learners, slowed down so that kills hit every part of a run, and counting what they do where it is saved."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import get_worker_info
from toy_learners import Autoencoder, Diary, Rivals

from medray.learner import Learner, Step, SumCount
from tests.chaos.notes import BETWEEN, LOADER, PREPARING, TRAINER, TRAINING, VALIDATING, Note

NUM_SAMPLES = 83
BATCH_SIZE = 2
"""42 updates an epoch: enough that metrics are logged over several of them; the last batch leaves one worker idle."""
NUM_EPOCHS = 3
_NUM_VALIDATION_SAMPLES = 5


class Ballast(nn.Module):
    """A few MB to save, all of which change in every step: a checkpoint torn between two steps shows."""

    def __init__(self, megabytes: float) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(int(megabytes * 250_000)))


class Exposed(Learner):
    """A toy learner with `Subject`'s wishes fulfilled."""

    notes: Path
    pace_s: float
    _note: Note | None = None

    def note(self) -> Note:
        """This process's note; a loader process is forked and needs its own."""
        if self._note is None or self._note.pid != os.getpid():
            self._note = Note(self.notes, TRAINER if get_worker_info() is None else LOADER)
            self._batches_begun = 0
        return self._note

    def collate(self, indices: Sequence[int], epoch: int) -> dict[str, Any]:
        note = self.note()
        self._batches_begun += 1
        note.at(PREPARING, self._batches_begun if get_worker_info() is not None else None)
        time.sleep(self.pace_s)
        batch = super().collate(indices, epoch)
        note.at(BETWEEN)
        return {"indices": torch.tensor(indices), "batch": batch}

    def training_step(self, batch: dict[str, Any], step: Step) -> Mapping[str, SumCount]:
        self.note().at(TRAINING, step.index)
        time.sleep(self.pace_s)
        indices = batch["indices"].tolist()
        before = {index: self.sample_state.get(index, {}).get("counted", torch.zeros(1)) for index in indices}
        metrics = super().training_step(batch["batch"], step)
        for index in indices:
            self.sample_state[index] = {**self.sample_state.get(index, {}), "counted": before[index] + 1}
        ballast: Tensor = self.networks["ballast"].weight
        ballast += 1
        self.note().at(BETWEEN)
        return metrics

    def num_validation_samples(self) -> int:
        return _NUM_VALIDATION_SAMPLES

    def validation_step(self, index: int) -> dict[str, SumCount]:
        self.note().at(VALIDATING)
        time.sleep(5 * self.pace_s)
        drift = sum(parameter.double().sum() for parameter in self.networks.parameters())
        scores = {**super().validation_step(index), "drift": SumCount(drift * (index + 1), 1.0)}
        self.note().at(BETWEEN)
        return scores


class Gan(Exposed, Rivals):
    """Two networks that compete."""


class StatePerSample(Exposed, Diary):
    """Tensors that belong to samples; dropout, so random draws count."""

    def __init__(self) -> None:
        super().__init__(num_samples=NUM_SAMPLES, dropout=0.3)


class Vae(Exposed, Autoencoder):
    """A variational autoencoder with a discriminator, accumulated gradients and averaged weights."""


LEARNERS: Mapping[str, type[Exposed]] = {"gan": Gan, "samples": StatePerSample, "vae": Vae}


@dataclass(frozen=True)
class Subject:
    """Makes a learner to be killed, in whatever process.

    Attributes:
        kind: a name in `LEARNERS`.
        notes: folder where each process says what it does.
        pace_s: how long a batch and a step take at least; validating a sample takes five times as long.
        megabytes: size of a checkpoint.
    """

    kind: str
    notes: Path
    pace_s: float = 0.003
    megabytes: float = 6.0

    def __call__(self) -> Learner:
        learner = LEARNERS[self.kind]()
        learner.notes, learner.pace_s = self.notes, self.pace_s
        if isinstance(learner, Gan | Vae):
            learner.x = torch.randn(NUM_SAMPLES, 4, generator=torch.Generator().manual_seed(5))
        learner.networks["ballast"] = Ballast(self.megabytes)
        learner.schedule = replace(
            learner.schedule, num_epochs=NUM_EPOCHS, batch_size=BATCH_SIZE, validate_every_epochs=1,
            monitor="drift", mode="min",
        )  # fmt: skip
        learner.note()  # starting
        return learner

    def undisturbed(self) -> Subject:
        """The same, as fast as it goes."""
        return replace(self, pace_s=0.0)
