"""The numerical half of SUTS: Demons step, descent layer, per-pair Adam, supervision, coarse-to-fine registration."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from medray.nn.bspline import BSplineGrid
from medray.nn.grid_state import GridState
from medray.nn.warp import pixel_grid, warp
from medray.systems.registration.suts import (
    FeatureCNN,
    FeaturePair,
    SutsConfig,
    advance,
    demons_step,
    feature_loss,
    grid_gradient,
    half_extent,
    pool,
    register,
    signed_distance_maps,
    step_scratch,
)


def blobs(shape: tuple[int, ...], seed: int = 0, cell: int = 6) -> Tensor:
    """A smooth random image, (1, 1, *shape)."""
    grid = BSplineGrid(shape, cell)
    return grid.dense(torch.randn(1, 1, *grid.knots, generator=torch.Generator().manual_seed(seed)))


def smooth_field(shape: tuple[int, ...], peak_px: float, seed: int = 1) -> Tensor:
    grid = BSplineGrid(shape, max(shape) // 3)
    field = grid.dense(torch.randn(1, len(shape), *grid.knots, generator=torch.Generator().manual_seed(seed)))
    return field * (peak_px / field.abs().max())


def quick(**changes: object) -> SutsConfig:
    return dataclasses.replace(
        SutsConfig(grid_spacing=(16, 8), smooth_weights=(0.01, 0.01), strides=(1, 1), iterations_per_scale=60,
                   subintervals=12, features="intensity", damping=1e-8),
        **changes,
    )  # fmt: skip


# ---- features ------------------------------------------------------------------------------------------------------


def test_feature_cnn_has_the_papers_size_and_reach():
    network = FeatureCNN(2)
    assert sum(p.numel() for p in network.parameters()) == 6312
    assert network(torch.zeros(2, 1, 40, 44)).shape == (2, 8, 40, 44)
    convolutions = [m for m in network.layers if isinstance(m, torch.nn.Conv2d)]
    assert 1 + sum(m.kernel_size[0] - 1 for m in convolutions) == 29
    assert [m.bias is None for m in convolutions] == [True] * 6 + [False]
    assert FeatureCNN(2, final_tanh=True)(100 * torch.randn(1, 1, 16, 16)).abs().max() <= 1


def test_feature_cnn_in_3d_has_the_same_layers():
    assert FeatureCNN(3)(torch.zeros(1, 1, 8, 9, 10)).shape == (1, 8, 8, 9, 10)


def test_feature_pair_variants():
    moving, fixed = blobs((20, 22)), blobs((20, 22), seed=5)
    assert FeaturePair(SutsConfig(features="mind"))(moving, fixed)[0].shape == (1, 6, 20, 22)
    assert FeaturePair(SutsConfig(features="intensity"))(moving, fixed)[1] is fixed
    assert sum(p.numel() for p in FeaturePair(SutsConfig()).parameters()) == 2 * 6312
    shared = FeaturePair(SutsConfig(shared_weights=True))
    assert sum(p.numel() for p in shared.parameters()) == 6312
    one, other = shared(moving, moving)
    assert_close(one, other)
    both = FeaturePair(SutsConfig(append_mind=True))(moving, fixed)[1]
    assert both.shape == (1, 14, 20, 22)
    assert_close(both[:, 8:], FeaturePair(SutsConfig(features="mind"))(moving, fixed)[1])
    with pytest.raises(ValueError, match="oracle"):
        FeaturePair(SutsConfig(features="sdm"))(moving, fixed)
    with pytest.raises(ValueError, match="3 spatial axes"):
        FeaturePair(SutsConfig(spatial_dims=3))(moving, fixed)


# ---- supervision ---------------------------------------------------------------------------------------------------


def test_distance_maps_by_hand():
    labels = torch.tensor([[[0, 0, 5, 5, 5, 0]]]).expand(1, 3, 6)
    maps = signed_distance_maps(labels, (0, 5, 7), alpha=0.01)
    organ = torch.atanh(maps[0, 1, 0]) / 0.01
    assert_close(organ, torch.tensor([-1.5, -0.5, 0.5, 1.5, 0.5, -0.5]), atol=1e-4, rtol=0)
    assert_close(maps[0, 0], -maps[0, 1])
    assert_close(maps[0, 2], torch.full((3, 6), -1.0))
    assert_close(signed_distance_maps(torch.ones(1, 3, 6, dtype=torch.int64), (1,)), torch.ones(1, 1, 3, 6))


def test_default_border_reaches_ten_pixels():
    labels = (torch.arange(60) >= 30).long().expand(1, 4, 60)
    near = signed_distance_maps(labels, (1,))[0, 0, 0].abs() < SutsConfig().border_threshold
    assert near.nonzero()[:, 0].tolist() == list(range(20, 40))  # distances 0.5 to 9.5 px; atanh(0.1) / 0.01 = 10.03


def test_loss_counts_only_pixels_near_a_border_of_either_image():
    labels = torch.zeros(1, 40, 80, dtype=torch.int64)
    labels[..., 40:] = 1
    sdm = signed_distance_maps(labels, (0, 1))
    features = blobs((40, 80))
    still = torch.zeros(1, 2, 40, 80)
    _, count = feature_loss(features, features, sdm, sdm, still, SutsConfig())
    assert count.item() == 2 * 40 * 20
    moved = still.clone()
    moved[:, 1] = 30.0  # the warped moving border now lies at column 10
    _, count = feature_loss(features, features, sdm, sdm, moved, SutsConfig())
    assert count.item() == 2 * 40 * (20 + 20)
    _, count = feature_loss(features, features, sdm, sdm, still, SutsConfig(border_mask=False))
    assert count.item() == 2 * 40 * 80


def test_loss_is_zero_for_the_teachers_own_features_and_leaves_an_empty_pair_alone():
    labels = torch.zeros(1, 30, 40, dtype=torch.int64)
    labels[:, 10:20, 12:24] = 3
    moving, fixed = signed_distance_maps(labels, (0, 3)), signed_distance_maps(labels.roll(2, dims=2), (0, 3))
    config = SutsConfig(damping=1e-8, target_damping=1e-8)
    total, count = feature_loss(moving, fixed, moving, fixed, torch.zeros(1, 2, 30, 40), config)
    assert count > 0
    assert total.item() == pytest.approx(0.0, abs=1e-6)
    absent = torch.full_like(moving, -1.0)
    total, count = feature_loss(moving, fixed, absent, absent, torch.zeros(1, 2, 30, 40), config)
    assert total.item() == 0.0
    assert count.item() == 0.0


def test_second_loss_is_the_distance_of_the_features_to_the_maps_class_after_class():
    sdm = torch.stack([torch.full((6, 6), -1.0), torch.full((6, 6), 1.0)])[None]  # nowhere near a border
    features = torch.zeros(1, 8 + 6, 6, 6)  # with MIND's channels behind them, which are not learned
    features[:, 1:8:2] = 1.0  # odd channels follow class 1 and are right, even ones are off by 1
    config = SutsConfig(sdm_weight=0.5, border_mask=False)
    total, count = feature_loss(features, features, sdm, sdm, torch.zeros(1, 2, 6, 6), config)
    assert (total / count).item() == pytest.approx(0.5 * (0.5 + 0.5))


def test_gradients_reach_both_networks_through_one_descent_step_but_not_the_grid_or_teacher():
    networks = FeaturePair(SutsConfig())
    moving, fixed = blobs((32, 32)), blobs((32, 32), seed=3)
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[:, 8:20, 8:20] = 1
    sdm = signed_distance_maps(labels, (0, 1))
    field = smooth_field((32, 32), 2.0).requires_grad_()
    total, count = feature_loss(*networks(moving, fixed), sdm, sdm, field.detach(), SutsConfig())
    (total / count).backward()
    assert field.grad is None
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in networks.parameters())


# ---- Demons step ---------------------------------------------------------------------------------------------------


def test_image_one_step_up_a_ramp_moves_half_a_pixel_along_it():
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)  # slope 1 along axis 1; by hand: 1 * 1 / (1 + 1)
    assert_close(demons_step(ramp, ramp + 1), torch.tensor([0.0, 0.5]).view(1, 2, 1, 1).expand(1, 2, 16, 16))
    assert_close(demons_step(ramp.mT, ramp.mT + 1)[:, 0], torch.full((1, 16, 16), 0.5))


def test_step_solves_equation_2_at_every_pixel():
    moving, fixed = blobs((12, 13)).double(), blobs((12, 13), seed=7).double()
    step = demons_step(moving, fixed)[0]
    slopes = torch.stack(torch.gradient(moving[0, 0]))
    difference = (fixed - moving)[0, 0]
    for y, x in [(0, 0), (4, 9), (11, 12)]:
        g, d = slopes[:, y, x], difference[y, x]
        matrix = torch.outer(g, g) + (d**2 + 1e-8) * torch.eye(2, dtype=torch.float64)
        assert_close(step[:, y, x], torch.linalg.solve(matrix, d * g))


@pytest.mark.parametrize("shape", [(2, 3, 24, 26), (2, 2, 10, 12, 14), (2, 8, 96, 100), (1, 1, 2, 2)])
def test_tracked_and_untracked_steps_are_the_same_numbers(shape):
    generator = torch.Generator().manual_seed(0)
    moving, fixed = torch.randn(2, *shape, generator=generator)
    untracked = demons_step(moving, fixed, 1e-3)
    tracked = demons_step(moving.clone().requires_grad_(), fixed, 1e-3)
    assert tracked.requires_grad
    assert not untracked.requires_grad
    assert_close(tracked.detach(), untracked)
    scratch = step_scratch(moving).fill_(float("nan"))  # whatever an earlier step has left there does not matter
    assert_close(demons_step(moving, fixed, 1e-3, scratch), untracked, atol=0, rtol=0)


@pytest.mark.parametrize("shape", [(24, 26), (10, 12, 14)])
def test_steps_are_short_zero_where_equal_and_blind_to_the_scale_of_the_features(shape):
    moving = torch.cat([blobs(shape), blobs(shape, seed=2)], dim=1).double()
    fixed = torch.cat([blobs(shape, seed=3), blobs(shape, seed=4)], dim=1).double()
    step = demons_step(moving, fixed)
    assert torch.linalg.vector_norm(step, dim=1).max() <= 0.5
    assert demons_step(moving, moving).abs().max() == 0
    assert demons_step(torch.ones_like(moving), fixed).abs().max() == 0
    assert demons_step(torch.ones_like(moving), torch.ones_like(moving)).abs().max() == 0
    assert_close(demons_step(100 * moving, 100 * fixed), step, atol=1e-4, rtol=1e-4)


def test_channels_are_averaged():
    moving, fixed = blobs((16, 16)), blobs((16, 16), seed=1)
    twin = torch.cat([moving, torch.ones_like(moving)], 1), torch.cat([fixed, torch.zeros_like(fixed)], 1)
    assert_close(demons_step(*twin), demons_step(moving, fixed) / 2)


def test_step_of_a_shifted_image_points_to_where_it_came_from():
    axes = pixel_grid((20, 20))
    moving = 0.3 * axes[:, :1] + 0.1 * axes[:, 1:]
    shift = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 20, 20)
    step = demons_step(moving, warp(moving, shift))[..., 2:-2, 2:-2]
    assert step[:, 0].min() > 0


def test_damping_quiets_faint_structures_only():
    moving, fixed = blobs((16, 16)), blobs((16, 16), seed=1)
    assert demons_step(1e-3 * moving, 1e-3 * fixed, 1.0).abs().max() < 1e-4
    assert_close(demons_step(1e3 * moving, 1e3 * fixed, 1.0), demons_step(1e3 * moving, 1e3 * fixed), atol=1e-2, rtol=0)


def test_demons_shape_mismatch_names_both_shapes():
    with pytest.raises(ValueError, match=r"\(1, 1, 8, 8\).*\(1, 1, 8, 9\)"):
        demons_step(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 9))


# ---- descent layer and per-pair Adam -------------------------------------------------------------------------------


def test_grid_gradient_is_minus_the_mean_update_around_each_knot():
    ramp = torch.arange(40.0).expand(1, 1, 30, 40)
    grid = BSplineGrid((30, 40), 10)
    control = torch.zeros(1, 2, *grid.knots)
    gradient = grid_gradient(ramp, ramp + 1, control, grid, 0.0, quick())
    assert_close(gradient, torch.tensor([0.0, -0.5]).view(1, 2, 1, 1).expand_as(gradient))


def test_field_penalty_pulls_an_outlying_knot_back_by_its_weight():
    grid = BSplineGrid((40, 40), 10)
    control = torch.zeros(1, 2, *grid.knots)
    control[0, 0, 2, 2] = 9.0
    flat = torch.zeros(1, 1, 40, 40)
    pull = grid_gradient(flat, flat, control, grid, 0.1, quick())
    assert pull[0, 0, 2, 2].item() == pytest.approx(0.1 * (9 - 1))
    assert pull[0, 0, 1, 2].item() == pytest.approx(-0.1)
    assert pull[0, 1].abs().max() == 0
    assert grid_gradient(flat, flat, control, grid, 0.1, quick(smooth_on="update")).abs().max() == 0


def test_bending_penalty_is_the_gradient_of_the_deviation_from_the_local_mean():
    grid = BSplineGrid((80, 80), 10)
    control = torch.zeros(1, 2, *grid.knots).double()
    control[..., 3:6, 3:6] = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(5)).double()
    flat = torch.zeros(1, 1, 80, 80)
    pull = grid_gradient(flat, flat, control.float(), grid, 0.1, quick(smooth_on="bending"))
    weights = torch.full((2, 1, 3, 3), 1 / 9).double()
    control.requires_grad_()
    mean = torch.nn.functional.conv2d(control, weights, padding=1, groups=2)
    (0.1 * (control - mean).square().sum() / 2).backward()
    assert_close(pull, control.grad.float(), atol=1e-5, rtol=1e-4)


def test_adam_is_torchs_for_each_pair_with_its_own_step_count():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 2, 3, 4, generator=generator)
    gradients = torch.randn(5, 2, 2, 3, 4, generator=generator)
    late, state = 3, GridState.start(start)
    first = state.select(torch.tensor([0]))
    for gradient in gradients[:late]:
        first = first.moved(gradient[:1], torch.tensor([0.01]))
    both = GridState(*(torch.cat([a, b]) for a, b in zip(
        (first.control, first.exp_avg, first.exp_avg_sq, first.step),
        dataclasses.astuple(state.select(torch.tensor([1]))), strict=True)))  # fmt: skip
    for gradient in gradients[late:]:
        both = both.moved(gradient, torch.tensor([0.01, 0.01]))
    assert both.step.tolist() == [5, 2]
    for pair, mine in ((0, gradients), (1, gradients[late:])):
        parameter = start[pair].clone().requires_grad_()
        reference = torch.optim.Adam([parameter], lr=0.01)
        for gradient in mine:
            parameter.grad = gradient[pair].clone()
            reference.step()
        assert_close(both.control[pair], parameter.detach())


def test_pairs_in_a_batch_do_not_see_each_other():
    moving = torch.cat([blobs((32, 40), seed=s) for s in range(3)])
    fixed = warp(moving, torch.cat([smooth_field((32, 40), 3.0, seed=s) for s in range(3)]))
    together = register(moving, fixed, quick())
    alone = torch.cat([register(moving[i : i + 1], fixed[i : i + 1], quick()) for i in range(3)])
    assert_close(together, alone, atol=2e-3, rtol=0)


def test_advancing_in_portions_is_advancing_at_once():
    config = quick()
    moving = blobs((32, 40))
    fixed = warp(moving, smooth_field((32, 40), 3.0))
    grid = BSplineGrid((32, 40), 16)
    start = GridState.start(torch.zeros(1, 2, *grid.knots))
    once = advance(moving, fixed, start, grid, 0, 10, config)
    portions = advance(moving, fixed, advance(moving, fixed, start, grid, 0, 4, config), grid, 0, 6, config)
    assert_close(dataclasses.astuple(once), dataclasses.astuple(portions), atol=0, rtol=0)
    assert start.control.abs().max() == 0
    assert start.step.item() == 0


# ---- registration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"grid_lr_decay": 0.05},
        {"strides": (2, 1), "grid_lr_decay": 0.05},
        {"smooth_on": "update"},
        {"smooth_on": "bending"},
    ],
    ids=["paper", "decay", "strides", "smooth update", "bending"],
)
def test_register_recovers_a_known_field(changes):
    moving = blobs((64, 72), cell=5)
    truth = smooth_field((64, 72), 4.0)
    found = register(moving, warp(moving, truth), quick(**changes))
    error = torch.linalg.vector_norm(found - truth, dim=1)[:, 6:-6, 6:-6]
    assert torch.linalg.vector_norm(truth, dim=1).mean() > 1.0
    assert error.mean() < 0.25


def test_register_recovers_a_known_field_in_3d():
    moving = blobs((24, 28, 32), cell=5)
    truth = smooth_field((24, 28, 32), 2.5)
    config = quick(spatial_dims=3, grid_lr=1e-2, grid_lr_decay=0.05, strides=(2, 1))
    found = register(moving, warp(moving, truth), config)
    error = torch.linalg.vector_norm(found - truth, dim=1)[:, 4:-4, 4:-4, 4:-4]
    assert error.mean() < 0.3 * torch.linalg.vector_norm(truth, dim=1).mean()


def test_identical_pairs_stay_where_they_are():
    moving = blobs((40, 40))
    assert register(moving, moving, quick()).abs().max() < 0.05  # rounding in the warp, carried on by Adam


def test_converged_pairs_stop_early_without_changing_much(monkeypatch):
    moving = torch.cat([blobs((40, 48)), blobs((40, 48), seed=9)])
    fixed = torch.cat([moving[:1], warp(moving[1:], smooth_field((40, 48), 3.0))])
    config = quick(grid_lr_decay=0.02)
    batches: list[int] = []
    step = demons_step
    monkeypatch.setattr(
        "medray.systems.registration.suts.demons_step", lambda m, *rest: (batches.append(len(m)), step(m, *rest))[1]
    )
    full = register(moving, fixed, config)
    assert sum(batches) == 2 * 2 * 60
    batches.clear()
    early = register(moving, fixed, dataclasses.replace(config, converged_px=0.1))
    assert sum(batches) < 0.8 * 2 * 2 * 60
    assert min(batches) == 1
    assert_close(early, full, atol=0.15, rtol=0)


def test_pooling_is_a_mean_over_cells():
    image = torch.arange(30.0).view(1, 1, 5, 6)
    assert_close(pool(image, 2)[0, 0, 0], torch.tensor([3.5, 5.5, 7.5]))
    assert pool(image, 2).shape[2:] == BSplineGrid((5, 6), 3, stride=2).dense_shape
    assert half_extent(image, (5, 7)).flatten().tolist() == [2.0, 3.0]


def test_register_refuses_other_dimensions():
    with pytest.raises(ValueError, match="2 spatial axes"):
        register(torch.zeros(1, 1, 8, 8, 8), torch.zeros(1, 1, 8, 8, 8), SutsConfig())


# ---- configuration -------------------------------------------------------------------------------------------------


def test_defaults_are_the_papers():
    config = SutsConfig()
    assert (config.grid_spacing, config.iterations_per_scale, config.smooth_weights) == (
        (20, 10, 7), 300, (0.0125, 0.0125, 0.025))  # fmt: skip
    assert (config.feature_lr, config.grid_lr, config.feature_every, config.batch_size) == (1e-3, 5e-3, 5, 2)
    assert (config.grid_lr_decay, config.strides, config.converged_px) == (1.0, (1, 1, 1), 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid_spacing": (7, 10, 20)}, r"coarse to fine, got \(7, 10, 20\)"),
        ({"grid_spacing": (20, 10)}, "give 2 values"),
        ({"strides": (2, 1)}, "give 3 values"),
        ({"iterations_per_scale": 70}, "try subintervals=14"),
        ({"grid_lr": 0.0}, "grid_lr must be more than 0"),
        ({"grid_lr_decay": 2.0}, "fraction"),
        ({"spatial_dims": 4}, "spatial_dims is 2 or 3"),
        ({"sdm_weight": -1.0}, "sdm_weight must not be negative"),
        ({"smooth_weights": (0.1, 0.1, 1.5)}, r"\[0, 1\)"),
    ],
)
def test_bad_configurations_name_the_remedy(changes, message):
    with pytest.raises(ValueError, match=message):
        SutsConfig(**changes)
