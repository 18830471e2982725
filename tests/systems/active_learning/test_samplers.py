"""Samplers beside M-VAAL's: scores by hand, picks, and that they go through the pool case by case."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from toy_pool import toy_cases

from medray.active.answers import LabelKind
from medray.active.sampler import Ranking, SamplingRound
from medray.active.task import Seen, Task
from medray.data.case import Case
from medray.engine.options import LoopOptions
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.system import FitResult, Workbench
from medray.systems.active_learning.mvaal import MvaalSampler
from medray.systems.active_learning.mvaal_settings import MvaalSettings
from medray.systems.active_learning.samplers import SAMPLERS, distance_to_nearest, k_center, make_sampler

SMALL = MvaalSettings(
    sampler_size=16, channels=(4, 8), latent=3, critic_channels=(8,), sampler_batch_size=4, sampler_epochs=1
)


class Looks(Task):
    """A task network that says what it was given, by case."""

    classes = ("a", "b")
    metric = "accuracy"

    def __init__(self, kind: LabelKind, seen: dict[str, tuple[Any, Any]]) -> None:
        self.kind, self.seen = kind, seen
        self.looked: list[str] = []

    def train(self, work: Workbench, cases: Sequence[Case], validation: Sequence[Case], *, name: str) -> FitResult:
        raise NotImplementedError

    def score(self, work: Workbench, weights: Path | None, cases: Sequence[Case]) -> Any:
        raise NotImplementedError

    def look(self, work: Workbench, weights: Path | None, cases: Sequence[Case]) -> Iterator[Seen]:
        assert weights == Path("task.safetensors")
        for case in cases:
            self.looked.append(case.id)
            probabilities, features = self.seen[case.id]
            yield Seen(torch.tensor(probabilities), torch.tensor(features, dtype=torch.float32))


def _cases(*names: str) -> tuple[Case, ...]:
    return tuple(Case(name, name, {}) for name in names)


def _rank(name: str, task: Task, view: SamplingRound, folder: Path, seed: int = 0) -> Ranking:
    work = InProcessWorkbench(folder, LoopOptions(seed=seed), quiet=True, tensorboard=False)
    sampler = pickle.loads(pickle.dumps(make_sampler(name, SMALL)))
    assert sampler.train(work, view) is None
    return sampler.rank(work, view, weights=None, task=task, task_weights=Path("task.safetensors"))


def _view(
    unlabelled: Sequence[str], *, labelled: Sequence[str] = (), budget: int = 2, number: int = 0
) -> SamplingRound:
    return SamplingRound(number, _cases(*labelled), _cases(*unlabelled), budget)


def _entropy(*probabilities: float) -> float:
    return -sum(p * np.log(p) for p in probabilities if p)


ONE_CLASS = {"sure": [1.0, 0.0, 0.0], "even": [1 / 3, 1 / 3, 1 / 3], "two": [0.5, 0.5, 0.0]}


def test_uncertainty_of_one_class(tmp_path: Path) -> None:
    task = Looks("class", {name: (p, [0.0]) for name, p in ONE_CLASS.items()})
    entropy = _rank("entropy", task, _view(list(ONE_CLASS)), tmp_path)
    assert entropy.picks == ("even", "two")
    assert entropy.scores is not None
    np.testing.assert_allclose(entropy.scores, [0.0, -np.log(3), -np.log(2)], rtol=1e-6, atol=1e-7)
    margin = _rank("margin", task, _view(list(ONE_CLASS)), tmp_path)
    assert margin.picks == ("even", "two")  # both 0: by id
    assert margin.scores is not None
    np.testing.assert_allclose(margin.scores, [1.0, 0.0, 0.0], atol=1e-7)


def test_uncertainty_of_a_mask_is_the_mean_over_pixels(tmp_path: Path) -> None:
    # foreground of a 1 x 2 image: one pixel undecided, both nearly sure
    pixels = {"one": [[[0.5, 1.0]], [[0.5, 0.0]]], "none": [[[0.9, 0.9]], [[0.1, 0.1]]]}
    task = Looks("mask", {name: (p, [0.0]) for name, p in pixels.items()})
    entropy, margin = (_rank(name, task, _view(list(pixels)), tmp_path).scores for name in ("entropy", "margin"))
    assert entropy is not None
    np.testing.assert_allclose(entropy, [-np.log(2) / 2, -_entropy(0.9, 0.1)], rtol=1e-6)
    assert margin is not None
    np.testing.assert_allclose(margin, [0.5, 0.8], rtol=1e-6)


def test_uncertainty_of_independent_classes(tmp_path: Path) -> None:
    task = Looks("classes", {"x": ([0.5, 0.9], [0.0]), "y": ([1.0, 0.0], [0.0])})
    entropy, margin = (_rank(name, task, _view(["x", "y"]), tmp_path).scores for name in ("entropy", "margin"))
    assert entropy is not None
    np.testing.assert_allclose(entropy, [-(np.log(2) + _entropy(0.9, 0.1)) / 2, 0.0], rtol=1e-6, atol=1e-7)
    assert margin is not None
    np.testing.assert_allclose(margin, [0.4, 1.0], rtol=1e-6)  # twice the mean distance to 0.5


def test_only_what_may_be_asked_for_is_looked_at(tmp_path: Path) -> None:
    task = Looks("class", {"u": ([0.5, 0.5], [0.0])})
    _rank("entropy", task, _view(["u"], labelled=["l"]), tmp_path)
    assert task.looked == ["u"]


def test_random_is_a_function_of_seed_and_round(tmp_path: Path) -> None:
    names = [f"{n:02d}" for n in range(40)]
    task = Looks("class", {})

    def picks(seed: int, number: int) -> tuple[str, ...]:
        return _rank("random", task, replace(_view(names, budget=10), number=number), tmp_path, seed).picks

    assert picks(0, 1) == picks(0, 1)
    assert len({picks(0, 0), picks(0, 1), picks(1, 0)}) == 3
    assert len(set(picks(0, 0))) == 10
    drawn = [name for seed in range(100) for name in picks(seed, 0)]
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) == 40
    assert counts.min() > 8  # 25 expected, deviation 4.3


def test_core_set_picks_by_hand(tmp_path: Path) -> None:
    # on a line: labelled at 0; 10 is farthest, then 5 (5 from both), then 7 or 2 (2 away each: the first)
    places = {"at0": 0.0, "at7": 7.0, "at5": 5.0, "at2": 2.0, "at10": 10.0}
    task = Looks("class", {name: ([1.0], [place]) for name, place in places.items()})
    view = _view(["at7", "at5", "at2", "at10"], labelled=["at0"], budget=3)
    ranking = _rank("coreset", task, view, tmp_path)
    assert ranking.picks == ("at10", "at5", "at7")
    assert ranking.scores is not None
    np.testing.assert_allclose(ranking.scores, [-7.0, -5.0, -2.0, -10.0])


def test_k_center_is_within_twice_the_best() -> None:
    # Gonzalez' bound: no choice of k centers leaves less than half of what greedy leaves
    from itertools import combinations

    points = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    picks = k_center(points, distance_to_nearest(points, points[:1]), 2)

    def radius(centers: Sequence[int]) -> float:
        return float(distance_to_nearest(points, points[[0, *centers]]).max())

    best = min(radius(pair) for pair in combinations(range(1, 9), 2))
    assert best <= radius(picks) <= 2 * best + 1e-6


def test_k_center_never_picks_twice() -> None:
    points = torch.zeros(4, 2)
    assert sorted(k_center(points, torch.zeros(4), 9)) == [0, 1, 2, 3]


def test_distances_in_parts_are_all_distances() -> None:
    points, centers = torch.randn(2500, 3), torch.randn(7, 3)
    assert_close(distance_to_nearest(points, centers), torch.cdist(points, centers).min(1).values)


def test_core_set_on_latents_trains_its_own_networks(tmp_path: Path) -> None:
    view = SamplingRound(2, toy_cases("common", range(4)), toy_cases("rare", range(6)), budget=3)
    work = InProcessWorkbench(tmp_path, quiet=True, tensorboard=False)
    sampler = make_sampler("coreset_latent", SMALL)
    fitted = sampler.train(work, view)
    assert fitted is not None
    assert not sampler.asks_learner
    ranking = sampler.rank(work, view, weights=fitted.weights, task=None, task_weights=None)  # type: ignore[arg-type]
    assert len(set(ranking.picks)) == 3
    assert ranking.scores is not None
    assert ranking.picks[0] == view.unlabelled[int(ranking.scores.argmin())].id


@pytest.mark.parametrize("name", [name for name in SAMPLERS if not isinstance(make_sampler(name, SMALL), MvaalSampler)])
def test_nothing_left_to_ask_for(name: str, tmp_path: Path) -> None:
    assert _rank(name, Looks("class", {}), _view([], labelled=["l"]), tmp_path).picks == ()


def test_names() -> None:
    assert set(SAMPLERS) >= {"mvaal", "vaal", "random", "entropy", "margin", "coreset"}
    vaal, both = make_sampler("vaal", SMALL), make_sampler("mvaal", SMALL)
    assert isinstance(vaal, MvaalSampler)
    assert isinstance(both, MvaalSampler)
    assert vars(vaal.settings) == {**vars(both.settings), "gamma_3": 0.0}
    with pytest.raises(UserError, match=r"no sampler 'oracle'; there are mvaal, vaal, random"):
        make_sampler("oracle", SMALL)


def test_features_need_no_gradient(tmp_path: Path) -> None:
    class Tracked(Looks):
        def look(self, work: Workbench, weights: Path | None, cases: Sequence[Case]) -> Iterator[Seen]:
            for seen in super().look(work, weights, cases):
                yield Seen(seen.probabilities, seen.features.requires_grad_(True))

    task = Tracked("class", {"a": ([1.0], [0.0]), "b": ([1.0], [1.0])})
    scores: Any = _rank("coreset", task, _view(["b"], labelled=["a"]), tmp_path).scores
    assert isinstance(scores, np.ndarray)
