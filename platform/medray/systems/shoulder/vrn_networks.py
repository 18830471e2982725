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
from monai.networks.nets.resnet import ResNet, ResNetBlock
from torch import Tensor, nn

from medray.nn.attention import class_activation_map
from medray.nn.sample_dropout import SampleDropout

Activation = Literal["elu", "relu"]
Arch = Literal["vrn", "resnet2d", "resnet10_3d"]
_UNITS = 3
_RESNET18, _RESNET10 = (2, 2, 2, 2), (1, 1, 1, 1)


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

    Both ways start from the same normalized and activated input.

    Args:
        channels: N, a multiple of 4.
        activation: before each convolution.
    """

    def __init__(self, channels: int, activation: Activation) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.ready = nn.Sequential(nn.BatchNorm3d(channels), _activation(activation))
        self.bottleneck = nn.Sequential(
            nn.Conv3d(channels, quarter, 1, bias=False),
            PreConv(quarter, quarter, 3, activation),
            PreConv(quarter, half, 1, activation),
        )
        self.plain = nn.Sequential(
            nn.Conv3d(channels, quarter, 3, padding=1, bias=False), PreConv(quarter, half, 3, activation)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, S, S, S) to the same shape."""
        ready = self.ready(x)
        return x + torch.cat([self.bottleneck(ready), self.plain(ready)], dim=1)


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


class VoxceptionTrunk(nn.Sequential):
    """A 3^3 convolution, then blocks of three Voxception-ResNet units and a downsample each, batch norm, activation.

    Args:
        width: channels of the first block; each block doubles them.
        blocks: 2 as in the paper, 4 as in Brock et al.
        activation: everywhere.
    """

    def __init__(self, width: int, blocks: int, activation: Activation) -> None:
        layers: list[nn.Module] = [nn.Conv3d(1, width, 3, padding=1, bias=False)]
        for _ in range(blocks):
            layers += [VoxceptionUnit(width, activation) for _ in range(_UNITS)]
            layers += [VoxceptionDownsample(width, 2 * width, activation)]
            width *= 2
        super().__init__(*layers, nn.BatchNorm3d(width), _activation(activation))
        self.num_features, self.strides = width, (2**blocks,) * 3


class ResNetTrunk(nn.Module):
    """MONAI's ResNet up to its last feature map, with a stem for small images: 3 wide, stride 1, no pooling.

    Args:
        spatial_dims: 3 for volumes, 2 for slices.
        layers: blocks of each of the four stages.
        width: channels of the first stage; each further one doubles them and halves the size.
    """

    def __init__(self, spatial_dims: int, layers: Sequence[int], width: int) -> None:
        super().__init__()
        net = ResNet(
            ResNetBlock, list(layers), [width * 2**stage for stage in range(4)], spatial_dims=spatial_dims,
            n_input_channels=1, conv1_t_size=3, conv1_t_stride=1, no_max_pool=True, feed_forward=False,
        )  # fmt: skip
        self.body = nn.Sequential(net.conv1, net.bn1, net.act, net.layer1, net.layer2, net.layer3, net.layer4)
        self.num_features, self.strides = 8 * width, (8,) * spatial_dims

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, *S) to (B, 8 width, *S/8), rounded up."""
        features: Tensor = self.body(x)
        return features


class SliceTrunk(nn.Module):
    """A 2D trunk on every coronal slice of a volume; the maps of the slices are stacked again.

    The mean over the stacked map is the mean over slices of their averages, and since one linear layer follows, the
    mean of the slices' logits.

    Args:
        trunk: (slices, 1, S, S) to (slices, K, F, F).
    """

    def __init__(self, trunk: ResNetTrunk) -> None:
        super().__init__()
        self.trunk = trunk
        down, across = trunk.strides
        self.num_features, self.strides = trunk.num_features, (down, 1, across)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, S, S, S), axes to the right, front and top, to (B, K, F, S, F)."""
        slices = x.permute(0, 3, 1, 2, 4)  # (B, slices, 1, S, S)
        features = self.trunk(slices.flatten(0, 1)).unflatten(0, slices.shape[:2])
        return features.permute(0, 2, 3, 1, 4)


Trunk = VoxceptionTrunk | SliceTrunk | ResNetTrunk


class CamClassifier(nn.Module):
    """A trunk, the global average of its map, dropout and one linear layer.

    Args:
        trunk: (B, 1, S, S, S) to (B, K, *F).
        num_classes: L.
        dropout: share of the K averages set to 0 while training.
    """

    def __init__(self, trunk: Trunk, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.trunk = trunk
        self.strides = trunk.strides
        self.dropout = SampleDropout(dropout)
        self.head = nn.Linear(trunk.num_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, S, S, S) to logits (B, L)."""
        return self.classify(self.pooled(self.trunk(x)))

    @staticmethod
    def pooled(features: Tensor) -> Tensor:
        """Global average: (B, K, *F) to (B, K)."""
        return features.flatten(2).mean(dim=2)

    def attention(self, features: Tensor, rows: Tensor, size: Sequence[int]) -> Tensor:
        """Class activation maps on the cube.

        A side that the strides do not divide is covered by a map that reaches beyond it, and what does is cut off.

        Args:
            features: (B, K, *F).
            rows: weights of the K channels, (B, K).
            size: of the cube.

        Returns:
            (B, *size) in [0, 1].
        """
        covered = [count * stride for count, stride in zip(features.shape[2:], self.strides, strict=True)]
        heat = class_activation_map(features, rows, covered)[:, : size[0], : size[1], : size[2]]
        top = heat.flatten(1).amax(dim=1)[:, None, None, None]
        return heat / torch.where(top > 0, top, torch.ones_like(top))

    def classify(self, pooled: Tensor) -> Tensor:
        """(B, K) to logits (B, L)."""
        logits: Tensor = self.head(self.dropout(pooled))
        return logits


def make_network(
    arch: Arch, *, width: int, blocks: int, activation: Activation, dropout: float, num_classes: int
) -> CamClassifier:
    """A network with random weights after Xavier.

    Args:
        arch: ``vrn``, ``resnet2d`` (ResNet-18 on coronal slices) or ``resnet10_3d``.
        width: channels of the first block or stage.
        blocks: Voxception blocks; the ResNets have four stages.
        activation: of ``vrn``; the ResNets have ReLU.
        dropout: before the last layer.
        num_classes: L.
    """
    trunk: Trunk
    if arch == "vrn":
        trunk = VoxceptionTrunk(width, blocks, activation)
    elif arch == "resnet2d":
        trunk = SliceTrunk(ResNetTrunk(2, _RESNET18, width))
    else:
        trunk = ResNetTrunk(3, _RESNET10, width)
    network = CamClassifier(trunk, num_classes, dropout)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if arch != "resnet2d":
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # on CPUs a fourth faster
    return network
