"""Samplers beside M-VAAL's, and all of them by name. A further one is a class and a line in `SAMPLERS`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from medray.active.answers import LabelKind
from medray.active.sampler import Ranking, Sampler, SamplingRound, smallest
from medray.active.task import Seen, Task
from medray.data.case import Case
from medray.errors import UserError
from medray.learner import seed_of
from medray.system import Workbench
from medray.systems.active_learning.mvaal import MvaalSampler, latent_means
from medray.systems.active_learning.mvaal_settings import MvaalSettings

_CHUNK = 1024
"""Rows of a matrix of distances that are there at a time."""


class RandomSampler(Sampler):
    """Every unlabelled case is as likely as any other."""

    def rank(
        self, work: Workbench, view: SamplingRound, *, weights: Path | None, task: Task, task_weights: Path | None
    ) -> Ranking:
        """The first of a permutation that the run's seed and the round decide."""
        generator = torch.Generator().manual_seed(seed_of(work.seed, "random", view.number))
        order = torch.randperm(len(view.unlabelled), generator=generator)[: view.budget].tolist()
        return Ranking(tuple(view.unlabelled[index].id for index in order))


class UncertaintySampler(Sampler):
    """Asks for what the task network is least sure of. A mask's certainty is the mean over its pixels."""

    asks_learner: ClassVar[bool] = True

    def rank(
        self, work: Workbench, view: SamplingRound, *, weights: Path | None, task: Task, task_weights: Path | None
    ) -> Ranking:
        """The lowest certainties; the probabilities of a few cases are in memory at a time, see `Task.look`."""
        seen = task.look(work, task_weights, view.unlabelled)
        scores = (float(self.certainty(distributions(one, task.kind)).mean()) for one in seen)
        return Ranking(*smallest(view.unlabelled, scores, view.budget))

    @abstractmethod
    def certainty(self, probabilities: Tensor) -> Tensor:
        """(L, *anything), which sums to 1 over L, to (*anything)."""


class EntropySampler(UncertaintySampler):
    """Asks for the largest entropy of the predicted classes."""

    def certainty(self, probabilities: Tensor) -> Tensor:
        """Minus the entropy, nats."""
        return -torch.special.entr(probabilities).sum(0)


class MarginSampler(UncertaintySampler):
    """Asks for the smallest difference between the two likeliest classes."""

    def certainty(self, probabilities: Tensor) -> Tensor:
        """The difference, in [0, 1]."""
        first, second = probabilities.topk(2, dim=0).values
        return first - second


def distributions(seen: Seen, kind: LabelKind) -> Tensor:
    """What a network thinks of a case, as probabilities that sum to 1 over the first axis.

    Independent classes (L,) become yes and no of each, (2, L).
    """
    probabilities = seen.probabilities.float()
    return torch.stack([probabilities, 1 - probabilities]) if kind == "classes" else probabilities


class CoreSetSampler(Sampler):
    """Greedy k-center: each pick is farthest from all labelled and picked ones. Sener & Savarese, ICLR 2018, alg. 1.

    Distances are Euclidean, between features of the task network's last layer. Features of the whole pool are in
    memory, images are not.
    """

    asks_learner: ClassVar[bool] = True

    def rank(
        self, work: Workbench, view: SamplingRound, *, weights: Path | None, task: Task, task_weights: Path | None
    ) -> Ranking:
        """The picks in their order. Scores are minus the distances to the nearest labelled case."""
        if not view.unlabelled:
            return Ranking(())

        def features(cases: Sequence[Case]) -> Tensor:
            return _rows(seen.features[None] for seen in task.look(work, task_weights, cases))

        return _by_distance(view, features)


class LatentCoreSetSampler(MvaalSampler):
    """Greedy k-center on M-VAAL's latent means, for which the sampler's networks are trained and no task network."""

    def rank(
        self, work: Workbench, view: SamplingRound, *, weights: Path | None, task: Task, task_weights: Path | None
    ) -> Ranking:
        """As `CoreSetSampler.rank`."""
        if not view.unlabelled:
            return Ranking(())
        networks, read = self.trained(work, weights)
        return _by_distance(view, lambda cases: _rows(latent_means(networks, read, cases)))


def _rows(parts: Iterable[Tensor]) -> Tensor:
    return torch.cat([part.detach().float().cpu() for part in parts])


def _by_distance(view: SamplingRound, features: Callable[[Sequence[Case]], Tensor]) -> Ranking:
    unlabelled = features(view.unlabelled)
    nearest = distance_to_nearest(unlabelled, features(view.labelled))
    picks = k_center(unlabelled, nearest, view.budget)
    return Ranking(tuple(view.unlabelled[index].id for index in picks), (-nearest).numpy())


def distance_to_nearest(points: Tensor, centers: Tensor) -> Tensor:
    """From each point (N, F) to the closest of the centers (M, F), (N,), a part of the distances at a time."""
    return torch.cat([torch.cdist(part, centers).amin(1) for part in points.split(_CHUNK)])


def k_center(points: Tensor, nearest: Tensor, number: int) -> list[int]:
    """Indices of points, each the farthest from all centers so far; of equal ones the first.

    Args:
        points: (N, F).
        nearest: distance of each to the centers there are already, (N,).
        number: of points to choose, if there are as many.
    """
    picks: list[int] = []
    nearest = nearest.clone()
    for _ in range(min(number, len(points))):
        pick = int(nearest.argmax())
        picks.append(pick)
        nearest = torch.minimum(nearest, (points - points[pick]).norm(dim=1))
        nearest[picks] = -1.0  # not even where all others lie on a center
    return picks


SAMPLERS: Mapping[str, Callable[[MvaalSettings], Sampler]] = {
    "mvaal": MvaalSampler,
    "vaal": lambda settings: MvaalSampler(replace(settings, gamma_3=0.0)),
    "random": lambda settings: RandomSampler(),
    "entropy": lambda settings: EntropySampler(),
    "margin": lambda settings: MarginSampler(),
    "coreset": lambda settings: CoreSetSampler(),
    "coreset_latent": LatentCoreSetSampler,
}
"""What makes a sampler from M-VAAL's settings, by the sampler's name."""


def make_sampler(name: str, settings: MvaalSettings) -> Sampler:
    """The sampler of that name.

    Raises:
        UserError: there is none.
    """
    if name not in SAMPLERS:
        raise UserError(f"there is no sampler {name!r}; there are {', '.join(SAMPLERS)}")
    return SAMPLERS[name](settings)
