"""A task of a campaign that trains one network: what segmentation and classification share.

Shape letters: B images, H rows, W columns, F features, L classes.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medray.active.task import Seen, Task, TaskScores
from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.data.modalities import ModalReader
from medray.errors import UserError
from medray.learner import SumCount, seed_of
from medray.nn.weights import load_network
from medray.system import FitResult, Workbench
from medray.systems.active_learning.task_learner import NETWORK, TaskLearner, in_portions
from medray.systems.active_learning.task_networks import TaskNetwork
from medray.systems.active_learning.task_settings import TaskSettings

OutcomeT = TypeVar("OutcomeT")
_IMAGES_AT_ONCE = 16
_CASES_PER_TASK = 128
_SMALLEST_SD = 1e-6


class NetworkTask(Task, Generic[OutcomeT]):
    """Trains one network from scratch at every call, from the same random weights for the same seed of the run.

    An outcome is what one case contributes to the scores: counts of pixels, or probabilities beside the truth.

    Args:
        settings: of the network.
        classes: see `Task.classes`.

    Raises:
        ValueError: settings that the network cannot have.
    """

    paper_epochs: ClassVar[int]
    paper_optimizer: ClassVar[Literal["rmsprop", "adam"]]
    intensities: ClassVar[tuple[float, float] | None] = None
    """Mean and standard deviation that images are standardized by; those of the training images where None."""
    ranks: ClassVar[bool] = False
    """Whether the metric is about the ranks of cases and needs all of them at once."""

    def __init__(self, settings: TaskSettings, classes: Sequence[str]) -> None:
        self.settings, self.classes = settings, tuple(classes)
        if settings.task_size is not None and settings.task_size < self.smallest_px:
            raise ValueError(f"task_size must be at least {self.smallest_px} px, got {settings.task_size}")

    @property
    def num_epochs(self) -> int:
        """The settings', else the paper's."""
        return self.settings.task_epochs or self.paper_epochs

    @property
    def optimizer(self) -> Literal["rmsprop", "adam"]:
        """The settings', else the paper's."""
        return self.settings.task_optimizer or self.paper_optimizer

    @property
    @abstractmethod
    def smallest_px(self) -> int:
        """Rows and columns below which normalization has nothing to average over."""

    @abstractmethod
    def build(self, mean: float, sd: float, *, start: bool = True) -> TaskNetwork:
        """The network with its weights before training, or any weights where they are not what it will ``start`` from.

        Raises:
            UserError: a file of weights cannot be used.
        """

    @abstractmethod
    def target(self, reader: ModalReader, case: Case) -> Tensor:
        """What the network should give for a case.

        Raises:
            UserError: the case has no such label.
        """

    @abstractmethod
    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """One loss per image, (B,); the batch's is their mean."""

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, L) or (B, L, H, W), as `Seen.probabilities` of each image."""

    @abstractmethod
    def outcome(self, logits: Tensor, target: Tensor) -> OutcomeT:
        """What one image contributes to the scores; both without the batch's axis."""

    @abstractmethod
    def validated(self, outcomes: Sequence[OutcomeT]) -> SumCount:
        """`Task.metric` of some cases, of all together where `ranks` says so; nothing counted where it is undefined."""

    @abstractmethod
    def scores(self, cases: Sequence[Case], outcomes: Sequence[OutcomeT]) -> TaskScores:
        """Rows and summary.

        Raises:
            UserError: the metric is undefined on these cases.
        """

    def reader(self, cache: SampleCache | None = None) -> ModalReader:
        """Reads what the network sees."""
        return ModalReader(self.settings.task_size, cache=cache)

    def images(self, reader: ModalReader, cases: Sequence[Case]) -> Tensor:
        """(B, 1, H, W) in [0, 1].

        Raises:
            UserError: an image cannot be read, or they are not of one size.
        """
        return self.stacked([reader.image(case) for case in cases], [case.id for case in cases])

    def stacked(self, images: Sequence[NDArray[np.float32]], names: Sequence[str]) -> Tensor:
        """Images (1, H, W) as a batch.

        Raises:
            UserError: they are not of one size, or too small for the network.
        """
        shapes: dict[tuple[int, ...], str] = {}
        for image, name in zip(images, names, strict=True):
            shapes.setdefault(image.shape, f"{name} {image.shape[1]} x {image.shape[2]}")
        told = ", ".join(list(shapes.values())[:2])
        if len(shapes) > 1:
            raise UserError(f"a network without a task_size takes images of one size, and these differ: {told}")
        if min(images[0].shape[1:]) < self.smallest_px:
            raise UserError(f"a network without a task_size takes images from {self.smallest_px} px on, got {told}")
        return torch.from_numpy(np.stack(images))

    def train(self, work: Workbench, cases: Sequence[Case], validation: Sequence[Case], *, name: str) -> FitResult:
        """See `Task.train`."""
        mean, sd = self.intensities or self._training_intensities(work, cases, name)
        make = functools.partial(TaskLearner, self, cases, validation, mean=mean, sd=sd, cache=work.cache)
        return work.fit(make, name=name)

    def score(self, work: Workbench, weights: Path | None, cases: Sequence[Case]) -> TaskScores:
        """See `Task.score`."""
        infer = functools.partial(_outcomes, self, weights, work.seed, work.cache)
        found = work.map(infer, in_portions(cases, _CASES_PER_TASK), name="score")
        return self.scores(cases, [outcome for part in found for outcome in part])

    def look(self, work: Workbench, weights: Path | None, cases: Sequence[Case]) -> Iterator[Seen]:
        """See `Task.look`; holds a few images at a time."""
        network, reader = self.load(weights, work.seed), self.reader(work.cache)
        for part in in_portions(cases, _IMAGES_AT_ONCE):
            with torch.inference_mode():
                features = network.features(self.images(reader, part).to(network.mean.device))
                probabilities = self.probabilities(network.head(features).float()).cpu()
                pooled = features.float().flatten(2).mean(2) if features.ndim > 2 else features.float()
            yield from map(Seen, probabilities, pooled.cpu())

    def load(self, weights: Path | None, seed: int = 0) -> TaskNetwork:
        """A trained network, ready to be used, on the GPU where there is one.

        Args:
            weights: what `train` gave; random ones where None.
            seed: of those.

        Raises:
            UserError: the file is not of this task's network.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "untrained"))
            network = self.build(*(self.intensities or (0.0, 1.0)), start=weights is None)
        if weights is not None:
            load_network(network, weights, prefix=f"{NETWORK}.")
        return network.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    def _training_intensities(self, work: Workbench, cases: Sequence[Case], name: str) -> tuple[float, float]:
        """Mean and standard deviation over all pixels of all images."""
        moments = functools.partial(_moments, self, work.cache)
        found = work.map(moments, in_portions(cases, _CASES_PER_TASK), name=f"{name}-intensities")
        count, total, squares = (sum(column) for column in zip(*found, strict=True))
        mean = total / count
        return mean, max(math.sqrt(max(squares / count - mean**2, 0.0)), _SMALLEST_SD)


def _moments(task: NetworkTask[OutcomeT], cache: SampleCache, cases: Sequence[Case]) -> tuple[float, float, float]:
    """Number of pixels, their sum and the sum of their squares. Runs as a Ray task."""
    reader = task.reader(cache)
    images = [reader.image(case).astype(np.float64) for case in cases]
    return (
        float(sum(image.size for image in images)),
        float(sum(image.sum() for image in images)),
        float(sum(np.square(image).sum() for image in images)),
    )


def _outcomes(
    task: NetworkTask[OutcomeT], weights: Path | None, seed: int, cache: SampleCache, cases: Sequence[Case]
) -> list[OutcomeT]:
    """What each case contributes to the scores. Runs as a Ray task."""
    network, reader, found = task.load(weights, seed), task.reader(cache), []
    for part in in_portions(cases, _IMAGES_AT_ONCE):
        with torch.inference_mode():
            logits = network(task.images(reader, part).to(network.mean.device)).float().cpu()
        found += [task.outcome(own, task.target(reader, case)) for own, case in zip(logits, part, strict=True)]
    return found
