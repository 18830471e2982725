"""Networks that label every point of a cloud: PointCNN (X-Conv), PointNet (T-Nets) and PointGrid.

Each has a `layout`, which works out on the CPU what a cloud's points have to do with each other (neighbors, cells; it
may run ahead of training), and a forward pass over a batch of clouds with their layouts.

Normalization is over the channels of each point, where the published networks have batch normalization: statistics over
a foveated cloud would subtract where its fovea is, and those of a batch would depend on the number of workers.

Shape letters: B clouds, M points, K neighbors, C channels. Sources: PointCNN, Li et al., NeurIPS 2018; PointNet, Qi et
al., CVPR 2017; PointGrid, Le and Duan, CVPR 2018.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from monai.networks.nets.unet import UNet
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional

Layout = dict[str, NDArray[np.int64]]
FloatArray = NDArray[np.float32]


class PointNetwork(nn.Module, ABC):
    """What the networks of this module have in common."""

    @abstractmethod
    def layout(self, points: FloatArray, random: np.random.Generator) -> Layout:
        """Integer arrays about one cloud of points (M, 3); of one shape for all clouds of M points."""

    @abstractmethod
    def forward(self, points: Tensor, layout: Mapping[str, Tensor]) -> Tensor:
        """Class scores (B, M, L) of points (B, M, 3), with layouts stacked along a first axis."""


def dense(in_channels: int, out_channels: int) -> nn.Sequential:
    """A fully connected layer for each point; activation before normalization, as in PointCNN's code."""
    return nn.Sequential(nn.Linear(in_channels, out_channels), nn.ELU(), nn.LayerNorm(out_channels))


def gather(features: Tensor, index: Tensor) -> Tensor:
    """Features (B, N, C) at an index (B, ...) of points: (B, ..., C)."""
    batch, count, channels = features.shape
    offset = torch.arange(batch, device=index.device).mul(count).view(-1, *(1,) * (index.ndim - 1))
    return features.reshape(-1, channels).index_select(0, (index + offset).reshape(-1)).view(*index.shape, channels)


class XConv(nn.Module):
    """X-Conv (algorithm 1 of PointCNN): weigh and permute a point's neighbors by a learned K x K matrix, then convolve.

    Args:
        in_channels: of the neighbors' features.
        out_channels: of the result.
        num_neighbors: K.
    """

    def __init__(self, in_channels: int, out_channels: int, num_neighbors: int) -> None:
        super().__init__()
        k, lifted = num_neighbors, max(4, out_channels // 4)
        self.lift = nn.Sequential(dense(3, lifted), dense(lifted, lifted))
        self.first = dense(3 * k, k * k)
        self.second = nn.Parameter(torch.randn(k, k, k) * k**-0.5)
        self.third = nn.Parameter(torch.randn(k, k, k) * k**-0.5)
        self.norms = nn.ModuleList([nn.LayerNorm(k * k), nn.LayerNorm(k * k)])
        self.depth = max(1, -(-out_channels // (in_channels + lifted)))  # depth multiplier
        self.kernel = nn.Parameter(torch.randn(k, in_channels + lifted, self.depth) * k**-0.5)
        self.point = dense((in_channels + lifted) * self.depth, out_channels)

    def forward(self, queries: Tensor, points: Tensor, features: Tensor, index: Tensor) -> Tensor:
        """Features of query points (B, P, 3) from points (B, N, 3), features (B, N, C) and index (B, P, K)."""
        batch, count, k = index.shape
        local = gather(points, index) - queries[:, :, None]  # P <- P - p
        together = torch.cat([self.lift(local), gather(features, index)], dim=-1)  # F* <- [F_delta, F]
        x = self.first(local.flatten(2)).view(batch, count, k, k)
        x = functional.elu(torch.einsum("bpjc,jcm->bpcm", x, self.second)).flatten(2)
        x = self.norms[0](x).view(batch, count, k, k)
        x = self.norms[1](torch.einsum("bpjc,jcm->bpcm", x, self.third).flatten(2)).view(batch, count, k, k)
        moved = torch.matmul(x, together)  # F_X <- X x F*
        return self.point(torch.einsum("bpkc,kcm->bpcm", moved, self.kernel).flatten(2))


class PointCNN(PointNetwork):
    """An encoder of X-Convs over fewer and fewer points and a mirrored decoder.

    Args:
        num_classes: L.
        channels: of each encoder layer.
        neighbors: K of each layer.
        dilations: of each layer; neighbors are every d-th of the K d nearest.
        level_points: points of the second and further layers, chosen by farthest-point sampling; the first has all.
    """

    def __init__(
        self,
        num_classes: int,
        channels: Sequence[int],
        neighbors: Sequence[int],
        dilations: Sequence[int],
        level_points: Sequence[int],
    ) -> None:
        super().__init__()
        self.neighbors, self.dilations, self.level_points = tuple(neighbors), tuple(dilations), tuple(level_points)
        entry = max(4, channels[0] // 2)
        self.entry = dense(3, entry)  # the features of a point are its coordinates
        widths = [entry, *channels]
        self.down = nn.ModuleList(XConv(a, b, k) for (a, b), k in zip(pairwise(widths), neighbors, strict=True))
        self.up = nn.ModuleList(XConv(b, a, k) for (a, b), k in zip(pairwise(channels), neighbors[:-1], strict=True))
        self.fuse = nn.ModuleList(dense(2 * a, a) for a in channels[:-1])
        self.head = nn.Sequential(dense(channels[0], channels[0]), nn.Linear(channels[0], num_classes))

    def layout(self, points: FloatArray, random: np.random.Generator) -> Layout:
        """``level``: which points of the finer level make up a level; ``down``, ``up``: neighbors, finer and coarser.

        Nothing is random: farthest-point sampling starts at the first point.
        """
        found: Layout = {}
        levels = [points]
        for i, (k, dilation) in enumerate(zip(self.neighbors, self.dilations, strict=True)):
            finer = levels[-1]
            chosen = np.arange(len(points)) if i == 0 else farthest_points(finer, self.level_points[i - 1])
            levels.append(finer[chosen])
            found[f"level{i}"] = chosen
            found[f"down{i}"] = nearest(finer, levels[-1], k, dilation)
        for i, (k, dilation) in enumerate(zip(self.neighbors[:-1], self.dilations, strict=False)):
            found[f"up{i}"] = nearest(levels[i + 2], levels[i + 1], k, dilation)
        return found

    def forward(self, points: Tensor, layout: Mapping[str, Tensor]) -> Tensor:
        """Class scores (B, M, L)."""
        positions, features = [points], [self.entry(points)]
        for i, layer in enumerate(self.down):
            positions.append(gather(positions[-1], layout[f"level{i}"]))
            features.append(layer(positions[-1], positions[-2], features[-1], layout[f"down{i}"]))
        x = features.pop()
        for i in reversed(range(len(self.up))):
            x = self.up[i](positions[i + 1], positions[i + 2], x, layout[f"up{i}"])
            x = self.fuse[i](torch.cat([x, features.pop()], dim=-1))
        return self.head(x)


def farthest_points(points: FloatArray, count: int) -> NDArray[np.int64]:
    """Indices of points that are each the farthest from those before; the first is point 0.

    Args:
        points: (N, 3).
        count: how many; all N, in their order, where N is not more.
    """
    if count >= len(points):
        return np.arange(len(points))
    chosen = np.zeros(count, dtype=np.int64)
    columns = np.ascontiguousarray(points.T)
    gap = np.full(len(points), np.inf, dtype=points.dtype)
    for i in range(1, count):
        away = columns - columns[:, chosen[i - 1], None]
        np.minimum(gap, np.einsum("dn,dn->n", away, away), out=gap)
        chosen[i] = gap.argmax()
    return chosen


def nearest(points: FloatArray, queries: FloatArray, count: int, dilation: int = 1) -> NDArray[np.int64]:
    """Every ``dilation``-th of the nearest points to each query, nearest first: (P, count).

    A level with fewer points than that has its points repeated.
    """
    wanted = min(count * dilation, len(points))
    _, index = cKDTree(points).query(queries, k=wanted)
    index = index.reshape(len(queries), wanted)
    picks = np.arange(count) * dilation % wanted if wanted < count * dilation else np.arange(0, wanted, dilation)
    return np.asarray(index[:, picks], dtype=np.int64)


class TNet(nn.Module):
    """PointNet's T-Net: a square matrix from a set, near the identity at first.

    Args:
        in_channels: of the set's elements, and the side of the matrix.
        channels: of the layers on each element; then a maximum over the set and two layers on it.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], *, norm: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in pairwise((in_channels, *channels)):
            layers += [nn.Linear(a, b), nn.ELU(), *([nn.LayerNorm(b)] if norm else [])]
        self.each = nn.Sequential(*layers)
        wide = channels[-1]
        self.pooled = nn.Sequential(nn.Linear(wide, wide // 2), nn.ELU(), nn.Linear(wide // 2, in_channels**2))
        last = self.pooled[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.eye(in_channels).flatten())

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) times the matrix found for it."""
        matrix = self.pooled(self.each(x).amax(dim=1))
        return x @ matrix.view(len(x), x.shape[-1], x.shape[-1])


class PointNet(PointNetwork):
    """PointNet for segmentation: T-Nets on coordinates and features, local and global features side by side.

    Args:
        num_classes: L.
        channels: of the local feature, of the layer after it and of the global feature; 64, 128, 1024 there.
    """

    def __init__(self, num_classes: int, channels: Sequence[int] = (64, 128, 1024)) -> None:
        super().__init__()
        local, middle, wide = channels
        self.turn = TNet(3, channels)
        self.local = nn.Sequential(dense(3, local), dense(local, local))
        self.feature_turn = TNet(local, channels)
        self.wide = nn.Sequential(dense(local, local), dense(local, middle), dense(middle, wide))
        self.head = nn.Sequential(
            dense(local + wide, wide // 2), dense(wide // 2, wide // 4), dense(wide // 4, middle),
            nn.Linear(middle, num_classes),
        )  # fmt: skip

    def layout(self, points: FloatArray, random: np.random.Generator) -> Layout:
        """Nothing: each point stands for itself."""
        return {}

    def forward(self, points: Tensor, layout: Mapping[str, Tensor]) -> Tensor:
        """Class scores (B, M, L)."""
        local = self.feature_turn(self.local(self.turn(points)))
        whole = self.wide(local).amax(dim=1, keepdim=True).expand(-1, local.shape[1], -1)
        return self.head(torch.cat([local, whole], dim=-1))


class PointGrid(PointNetwork):
    """PointGrid: up to K points in each cell of a grid, their coordinates as the channels of a 3D U-Net.

    Args:
        num_classes: L.
        cells: of the grid along each axis, over [-limit, limit].
        per_cell: K; a cell's further points take the scores of those that were kept, in turn.
        channels: of the U-Net.
        limit: in the unit of the (normalized) points; those beyond count to the outermost cells.
    """

    def __init__(
        self, num_classes: int, cells: int, per_cell: int, channels: Sequence[int], *, limit: float = 2.5
    ) -> None:
        super().__init__()
        self.num_classes, self.cells, self.per_cell, self.limit = num_classes, cells, per_cell, limit
        self.unet = UNet(
            spatial_dims=3,
            in_channels=3 * per_cell,
            out_channels=num_classes * per_cell,
            channels=tuple(channels),
            strides=(2,) * (len(channels) - 1),
            num_res_units=2,
        )

    def layout(self, points: FloatArray, random: np.random.Generator) -> Layout:
        """``slot``: the place of each point; ``holder``: the point that fills a place, or M where none does."""
        cell = ((points / self.limit + 1) / 2 * self.cells).astype(np.int64).clip(0, self.cells - 1)
        flat = np.ravel_multi_index(tuple(cell.T), (self.cells,) * 3)
        shuffled = random.permutation(len(points))
        order = shuffled[np.argsort(flat[shuffled], kind="stable")]
        first = np.searchsorted(flat[order], flat[order])
        rank = np.empty(len(points), dtype=np.int64)
        rank[order] = np.arange(len(points)) - first
        slot = flat * self.per_cell + rank % self.per_cell
        holder = np.full(self.cells**3 * self.per_cell, len(points))
        kept = rank < self.per_cell
        holder[slot[kept]] = np.flatnonzero(kept)
        return {"slot": slot, "holder": holder}

    def forward(self, points: Tensor, layout: Mapping[str, Tensor]) -> Tensor:
        """Class scores (B, M, L)."""
        batch, side = len(points), (self.cells,) * 3
        with_nothing = torch.cat([points, torch.zeros_like(points[:, :1])], dim=1)
        image = gather(with_nothing, layout["holder"]).view(batch, *side, 3 * self.per_cell).permute(0, 4, 1, 2, 3)
        scores = self.unet(image.contiguous()).permute(0, 2, 3, 4, 1).reshape(batch, -1, self.num_classes)
        return gather(scores, layout["slot"])
