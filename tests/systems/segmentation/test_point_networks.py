"""The parts of the point networks, by hand and against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from medray.systems.segmentation.point_networks import (
    PointCNN,
    PointGrid,
    PointNet,
    TNet,
    XConv,
    farthest_points,
    gather,
    nearest,
)


def cloud(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


def test_gather_takes_from_its_own_cloud() -> None:
    features = torch.arange(12.0).view(2, 3, 2)
    index = torch.tensor([[[2, 0]], [[0, 1]]])
    assert_close(gather(features, index), torch.tensor([[[[4.0, 5], [0, 1]]], [[[6, 7], [8, 9]]]]))


def test_nearest_agrees_with_brute_force_and_dilation_skips() -> None:
    points, queries = cloud(40), cloud(7, seed=1)
    order = np.linalg.norm(queries[:, None] - points[None], axis=2).argsort(axis=1)
    np.testing.assert_array_equal(nearest(points, queries, 6), order[:, :6])
    np.testing.assert_array_equal(nearest(points, queries, 4, 3), order[:, [0, 3, 6, 9]])
    few = nearest(points[:3], queries, 5)
    assert few.shape == (7, 5)
    assert few.max() < 3


def test_farthest_points_agree_with_brute_force() -> None:
    points = cloud(30)
    chosen = [0]
    for _ in range(7):
        gaps = np.linalg.norm(points[:, None] - points[chosen][None], axis=2).min(axis=1)
        chosen.append(int(gaps.argmax()))
    np.testing.assert_array_equal(farthest_points(points, 8), chosen)
    np.testing.assert_array_equal(farthest_points(points, 99), np.arange(30))


def test_x_conv_does_not_see_where_its_neighborhood_lies() -> None:
    torch.manual_seed(0)
    layer = XConv(5, 12, 4)
    points, features = torch.from_numpy(cloud(20))[None], torch.randn(1, 20, 5)
    index = torch.from_numpy(nearest(points[0].numpy(), points[0, :6].numpy(), 4))[None]
    here = layer(points[:, :6], points, features, index)
    assert here.shape == (1, 6, 12)
    assert_close(layer(points[:, :6] + 3, points + 3, features, index), here, atol=1e-4, rtol=1e-4)
    # only the K neighbors named count
    others = torch.ones(20, dtype=torch.bool)
    others[index[0, 0]] = False
    changed = features.clone()
    changed[0, others] += 9
    assert_close(layer(points[:, :1], points, changed, index[:, :1]), here[:, :1])


def test_a_new_t_net_leaves_its_input_alone() -> None:
    x = torch.randn(2, 9, 6)
    assert_close(TNet(6, (8, 16))(x), x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PointCNN(4, (8, 12, 16), (4, 4, 4), (1, 2, 1), (20, 8)),
        lambda: PointNet(4, (8, 12, 16)),
        lambda: PointGrid(4, 8, 2, (4, 8)),
    ],
)
def test_clouds_of_a_batch_do_not_touch_each_other(make) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    network = make().eval()
    clouds = [cloud(50, seed) for seed in range(2)]
    layouts = [network.layout(points, np.random.default_rng(0)) for points in clouds]
    stacked = {name: torch.from_numpy(np.stack([one[name] for one in layouts])) for name in layouts[0]}
    together = network(torch.from_numpy(np.stack(clouds)), stacked)
    assert together.shape == (2, 50, 4)
    alone = network(torch.from_numpy(clouds[1])[None], {n: torch.from_numpy(x)[None] for n, x in layouts[1].items()})
    assert_close(together[1:], alone, atol=1e-5, rtol=1e-4)


def test_pointnet_does_not_depend_on_the_order_of_points() -> None:
    network, points = PointNet(4, (8, 12, 16)), torch.randn(1, 30, 3)
    order = torch.randperm(30)
    assert_close(network(points[:, order], {}), network(points, {})[:, order], atol=1e-5, rtol=1e-4)


def test_pointgrid_keeps_at_most_k_points_of_a_cell_and_the_others_share() -> None:
    grid = PointGrid(4, 8, 2, (4, 8), limit=1.0)
    points = np.concatenate([np.full((5, 3), -0.99), np.full((1, 3), 0.99), [[9.0, 9, 9]]]).astype(np.float32)
    layout = grid.layout(points, np.random.default_rng(0))
    assert sorted(layout["slot"][:5].tolist()) == [0, 0, 0, 1, 1]  # the first cell's two places, in turn
    assert set(layout["slot"][5:]) == {2 * 8**3 - 2, 2 * 8**3 - 1}  # beyond the limit: the outermost cell
    held = layout["holder"][layout["holder"] < len(points)]
    assert len(held) == 4
    np.testing.assert_array_equal(layout["holder"][layout["slot"][held]], held)
