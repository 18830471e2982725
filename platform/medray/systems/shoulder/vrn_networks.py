"""Networks that size a tear: the Voxception-ResNet cut to two blocks, and its peers.

The text names the parts and leaves out their widths; those of the parts are Brock et al.'s (arXiv:1608.04236), whose
network it extends. Every network here ends in a feature map, its global average and one linear layer, so the layer's
rows weigh the map's channels into a class activation map (Zhou et al., CVPR 2016).
Shape letters: B volumes, N channels, L classes, S the cube's edge in voxels, F that of the last feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from monai.networks.nets import ResNet
from monai.networks.nets.resnet import ResNetBlock, get_inplanes
from torch import Tensor, nn

Activation = Literal["elu", "relu"]
Arch = Literal["vrn", "resnet2d", "resnet10_3d"]


def _activation(kind: Activation) -> nn.Module:
    return nn.ELU(inplace=True) if kind == "elu" else nn.ReLU(inplace=True)


class PreConv(nn.Sequential):
    """Batch normalization, activation, then a 3D convolution that keeps the size (at stride 1)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, activation: Activation) -> None:
        super().__init__(
            nn.BatchNorm3d(in_channels),
            _activation(activation),
            nn.Conv3d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        )


class VoxceptionUnit(nn.Module):
    """Voxception-ResNet: a bottleneck and two 3^3 convolutions side by side, beside the identity.

    Args:
        channels: N, a multiple of 4.
        activation: before each convolution.
    """

    def __init__(self, channels: int, activation: Activation) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.bottleneck = nn.Sequential(
            PreConv(channels, quarter, 1, activation),
            PreConv(quarter, quarter, 3, activation),
            PreConv(quarter, half, 1, activation),
        )
        self.plain = nn.Sequential(PreConv(channels, quarter, 3, activation), PreConv(quarter, half, 3, activation))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, S, S, S) to the same shape."""
        return x + torch.cat([self.bottleneck(x), self.plain(x)], dim=1)


class VoxceptionDownsample(nn.Module):
    """Half the size in four ways side by side: strided 3^3 and 1^3, and 3^3 with maximum or mean pooling.

    Args:
        in_channels: of its input.
        out_channels: of its output, a multiple of 4; each way makes a fourth.
        activation: before the convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, activation: Activation) -> None:
        super().__init__()
        part = out_channels // 4
        self.ready = nn.Sequential(nn.BatchNorm3d(in_channels), _activation(activation))
        self.strided = nn.Conv3d(in_channels, part, 3, stride=2, padding=1, bias=False)
        self.picked = nn.Conv3d(in_channels, part, 1, stride=2, bias=False)
        self.to_max = nn.Conv3d(in_channels, part, 3, padding=1, bias=False)
        self.to_mean = nn.Conv3d(in_channels, part, 3, padding=1, bias=False)
        # the last voxel of an odd side is kept, as the strided convolutions do
        self.max_pool = nn.MaxPool3d(2, ceil_mode=True)
        self.mean_pool = nn.AvgPool3d(2, ceil_mode=True, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, S, S, S) to (B, out, S/2, S/2, S/2), rounded up."""
        x = self.ready(x)
        pooled = [self.max_pool(self.to_max(x)), self.mean_pool(self.to_mean(x))]
        return torch.cat([self.strided(x), self.picked(x), *pooled], dim=1)
