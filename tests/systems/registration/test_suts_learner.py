"""Algorithm 1: who is presented when, what a step leaves behind, and that features really learn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medray.learner import Step
from medray.nn.bspline import BSplineGrid
from medray.systems.registration.pair_reader import ImagePair
from medray.systems.registration.suts import SutsConfig, feature_loss, half_extent
from medray.systems.registration.suts_learner import SutsLearner, presentation_scheme

CONFIG = SutsConfig(
    grid_spacing=(12, 8), smooth_weights=(0.01, 0.01), strides=(1, 1), iterations_per_scale=10, subintervals=2
)


def disc_pair(shift: float, seed: int) -> ImagePair:
    """A disc in two contrasts, moved by ``shift`` pixels along axis 0."""
    rows, columns = np.mgrid[:40, :40].astype(np.float32)
    noise = np.random.default_rng(seed).normal(0, 0.05, (2, 40, 40)).astype(np.float32)
    labels = [(np.hypot(rows - 20 - move, columns - 20) < 9).astype(np.int64) for move in (shift, 0.0)]
    return ImagePair(
        id=f"{shift}",
        moving=labels[0].astype(np.float32) + noise[0],
        fixed=1 - labels[1].astype(np.float32) + noise[1],
        spacing_mm=(1.0, 1.0),
        affine=np.eye(4),
        moving_label=labels[0],
        fixed_label=labels[1],
    )


def learner(config: SutsConfig = CONFIG) -> SutsLearner:
    torch.manual_seed(0)
    return SutsLearner(config, [disc_pair(s, i) for i, s in enumerate((2.0, -3.0, 4.0, 1.0))])


def run(made: SutsLearner, num_steps: int, epoch: int = 0) -> None:
    optimizers = made.configure_optimizers()
    order = made.order(epoch, seed=0)
    for index in range(num_steps):
        made.training_step(
            made.collate(order[2 * index : 2 * index + 2], epoch), Step(optimizers, epoch=epoch, index=index)
        )


@settings(deadline=None, max_examples=60)
@given(num=st.integers(1, 12), visits=st.integers(1, 7), batch=st.integers(1, 5), seed=st.integers(0, 99))
def test_every_pair_gets_its_visits_and_none_twice_in_a_batch(num: int, visits: int, batch: int, seed: int) -> None:
    batch = min(batch, num)
    order = presentation_scheme(num, visits, batch, torch.Generator().manual_seed(seed))
    assert sorted(order) == sorted([*range(num)] * visits)
    batches = [order[i : i + batch] for i in range(0, len(order), batch)]
    assert all(len(set(b)) == len(b) for b in batches)


def test_pairs_are_at_different_stages_when_presented_together() -> None:
    order = presentation_scheme(20, 30, 2, torch.Generator().manual_seed(0))
    seen = [0] * 20
    gaps = []
    for a, b in zip(order[::2], order[1::2], strict=True):
        gaps.append(abs(seen[a] - seen[b]))
        seen[a] += 1
        seen[b] += 1
    assert max(gaps) >= 4


def test_order_depends_on_seed_and_epoch_alone() -> None:
    made = learner()
    assert made.order(1, seed=3) == learner().order(1, seed=3)
    assert made.order(1, seed=3) != made.order(1, seed=4)
    assert made.order(1, seed=3) != made.order(2, seed=3)


def test_a_step_moves_the_presented_pairs_only_and_counts_their_grid_updates() -> None:
    made = learner()
    made.training_step(made.collate([0, 2], 0), Step(made.configure_optimizers()))
    assert sorted(made.sample_state) == [0, 2]
    assert int(made.sample_state[0]["step"]) == CONFIG.feature_every
    assert made.sample_state[2]["control"].abs().max() > 0


def test_next_scale_starts_from_the_upscaled_grid_with_fresh_moments() -> None:
    made = learner()
    made.training_step(made.collate([0, 1], 0), Step(made.configure_optimizers()))
    coarse = made.sample_state[0]["control"]
    state = made._states([0], 1, torch.device("cpu"))
    assert int(state.step[0]) == 0
    assert state.exp_avg.abs().max() == 0
    extent = half_extent(coarse[None], (40, 40))
    before = BSplineGrid((40, 40), 12).dense(coarse[None] * extent)
    after = BSplineGrid((40, 40), 8).dense(state.control * extent)
    assert (before - after).abs().max() < 0.25 * before.abs().max()


def test_features_learn_to_take_the_step_of_the_distance_maps() -> None:
    """At one and the same alignment, the learned step ends closer to the target than it began, and than no step."""
    config = dataclasses.replace(CONFIG, iterations_per_scale=300, subintervals=60, feature_lr=5e-3)
    made = learner(config)
    optimizers = made.configure_optimizers()
    batch = made.collate([0, 1, 2, 3], 0)

    @torch.no_grad()
    def error(silent: bool = False) -> float:
        features = made.networks["features"](batch.moving, batch.fixed)
        if silent:
            features = [torch.zeros_like(f) for f in features]
        still = torch.zeros(4, 2, 40, 40)
        total, count = feature_loss(*features, batch.moving_sdm, batch.fixed_sdm, still, config)
        return float(total / count)

    before = error()
    order = made.order(0, seed=0)
    for index in range(len(order) // 2):
        made.sample_state.clear()  # every visit starts unaligned, where the error is measured
        made.training_step(made.collate(order[2 * index : 2 * index + 2], 0), Step(optimizers, index=index))
    assert error() < 0.85 * before
    assert error() < 0.95 * error(silent=True)


def test_fewer_pairs_than_a_batch_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="lower batch_size"):
        SutsLearner(CONFIG, [disc_pair(1.0, 0)])


def test_pairs_of_different_shape_are_refused() -> None:
    pair = disc_pair(1.0, 0)
    small = dataclasses.replace(pair, moving=pair.moving[:32], fixed=pair.fixed[:32])
    with pytest.raises(ValueError, match="share one grid"):
        SutsLearner(CONFIG, [pair, small])
