"""Assignments and scores of points, against hand-made cases and an exhaustive search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medray.metrics.detection import assign, best_f1, hits_in_order, in_close_pairs, precision_recall_f1, quartiles


def _random(seed: int, count: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0, 20, (count, 2))


def test_a_greedy_choice_would_lose_a_pair() -> None:
    # 2 is nearest to 3, but then 0 would have nobody within 4: both pairs are made instead.
    detected, reference = np.array([[0.0, 0], [2.0, 0]]), np.array([[3.0, 0], [6.0, 0]])
    found = assign(detected, reference, limit=4.0)
    assert dict(zip(found.detected.tolist(), found.reference.tolist(), strict=True)) == {0: 0, 1: 1}
    assert found.distance.tolist() == [3.0, 4.0]


def test_without_a_limit_far_points_are_paired_too() -> None:
    detected, reference = np.array([[0.0, 0], [50.0, 0]]), np.array([[1.0, 0], [90.0, 0], [300.0, 0]])
    assert sorted(assign(detected, reference).distance.tolist()) == [1.0, 40.0]
    assert assign(detected, reference, limit=6.0).distance.tolist() == [1.0]
    assert len(assign(np.zeros((0, 2)), reference).distance) == 0


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_as_many_pairs_as_possible_then_the_shortest(seed: int) -> None:
    detected, reference, limit = _random(seed, 4), _random(seed + 1, 5), 7.0
    distance = np.linalg.norm(detected[:, None] - reference[None], axis=2)
    best = (0, 0.0)
    for chosen in itertools.permutations(range(5), 4):
        allowed = [distance[i, j] for i, j in enumerate(chosen) if distance[i, j] <= limit]
        best = max(best, (len(allowed), -sum(allowed)))
    found = assign(detected, reference, limit=limit)
    assert (len(found.distance), -found.distance.sum()) == pytest.approx(best)
    assert len(set(found.detected.tolist())) == len(set(found.reference.tolist())) == len(found.distance)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_hits_in_order_add_up_to_the_largest_assignment_at_every_threshold(seed: int) -> None:
    detected, reference = _random(seed, 12), _random(seed + 1, 9)
    scores = np.random.default_rng(seed).permutation(12) / 12
    hits = hits_in_order(detected, scores, reference, 4.0)
    order = np.argsort(-scores)
    for count in range(1, 13):
        assert hits[order][:count].sum() == len(assign(detected[order[:count]], reference, limit=4.0).distance)


def test_the_best_threshold_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.3, 0.1])
    hits = np.array([True, True, False, True, False])
    # F1 of the first 1, 3, 4, 5 of 4 references: 2/5, 4/7, 6/8, 6/9; 0.8 comes twice and is not cut apart.
    best = best_f1(scores, hits, 4)
    assert (best.threshold, best.precision, best.recall, best.f1) == (0.3, 0.75, 0.75, 0.75)
    assert best_f1(scores[:0], hits[:0], 4).f1 == 0.0


def test_counts_and_quartiles() -> None:
    assert precision_recall_f1(3, 4, 6) == (0.75, 0.5, 0.6)
    assert np.isnan(precision_recall_f1(0, 0, 0)).all()
    assert quartiles(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == (2.0, 3.0, 4.0)
    close = in_close_pairs(np.array([[0.0, 0], [0.0, 11.9], [0.0, 30.0]]), 12.0)
    assert close.tolist() == [True, True, False]
