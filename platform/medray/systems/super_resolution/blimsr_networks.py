"""BliMSR's generator and discriminator. Dey et al., MIUA 2023, sec. 3.1.

The figures with widths and depths are not in the text; the sizes here are parameters, and `released` builds the frame
that the authors' code has. Shape letters: B images, C channels, h and w sides of the low resolution, H = 4h, W = 4w.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

Attention = Literal["mhca", "1x1", "none"]
_HEAD_KERNELS = (1, 3, 5)
_BRANCH_SCALE = 0.1
"""Of the last weights of a residual branch at the start, so that deep stacks begin near the identity (ESRGAN)."""
_SLOPE, _RELEASED_SLOPE = 0.2, 0.01
Shortcut = Literal["conv", "bicubic"]


def he_conv(in_channels: int, out_channels: int, kernel: int, *, relu: bool = False, scale: float = 1.0) -> nn.Conv2d:
    """A convolution that keeps the size, initialized after He et al. 2015 for a ReLU behind it or none, times scale."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu" if relu else "linear")
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.mul_(scale)
        conv.bias.zero_()
    return conv


class MultiHeadAttention(nn.Module):
    """A map in (0, 1) from heads with kernels 1, 3 and 5, the sigmoid of their sum (Georgescu et al., WACV 2023).

    A head's convolution is not padded and leaves C / reduction channels of a smaller map; its transposed convolution
    brings both back, so it attends over space and channels. The 1 x 1 head attends over channels alone.

    Args:
        channels: C.
        reduction: C over the channels inside a head.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        inner = channels // reduction
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, inner, kernel), nn.ReLU(), nn.ConvTranspose2d(inner, channels, kernel))
            for kernel in _HEAD_KERNELS
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to weights of the same shape; h and w are at least 5."""
        first, *others = (head(features) for head in self.heads)
        return torch.sigmoid(sum(others, start=first))


def make_attention(kind: Attention, channels: int, reduction: int) -> nn.Module | None:
    """Attention heads, MedSRGAN's single 1 x 1 convolution over all channels with a sigmoid, or None."""
    if kind == "mhca":
        return MultiHeadAttention(channels, reduction)
    return nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Sigmoid()) if kind == "1x1" else None


class AttentionBlock(nn.Module):
    """RMHAB with attention heads, RWMAB with 1 x 1 attention: ``x + scale * F * A(F)``, F of two 3 x 3 convolutions.

    Args:
        channels: C.
        reduction: of the heads.
        attention: A; none multiplies nothing.
        scale: of the branch.
    """

    def __init__(self, channels: int, reduction: int, attention: Attention = "mhca", *, scale: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            he_conv(channels, channels, 3, relu=True), nn.ReLU(), he_conv(channels, channels, 3, scale=_BRANCH_SCALE)
        )
        self.attention = make_attention(attention, channels, reduction)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        features = self.body(x)
        if self.attention is not None:
            features = features * self.attention(features)
        result: Tensor = x + self.scale * features
        return result


def upsampler(in_channels: int, channels: int) -> nn.Sequential:
    """Twice a convolution and a pixel shuffle: (B, in_channels, h, w) to (B, channels, H, W)."""
    return nn.Sequential(
        he_conv(in_channels, 4 * channels, 3),
        nn.PixelShuffle(2),
        he_conv(channels, 4 * channels, 3),
        nn.PixelShuffle(2),
    )


class Generator(nn.Module):
    """Enlarges an image by four: first features, residual blocks, their sum, pixel shuffles, a linear end.

    Args:
        num_blocks: residual blocks.
        channels: C.
        reduction: of the attention heads.
        attention: in the blocks.
        block_scale: of the blocks' branches.
    """

    def __init__(
        self, num_blocks: int, channels: int, reduction: int, attention: Attention = "mhca", *, block_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.first = he_conv(1, channels, 3)
        blocks = (AttentionBlock(channels, reduction, attention, scale=block_scale) for _ in range(num_blocks))
        self.trunk = nn.Sequential(*blocks, he_conv(channels, channels, 3))
        self.upsampler = upsampler(channels, channels)
        self.last = he_conv(channels, 1, 3)

    def forward(self, low: Tensor) -> Tensor:
        """(B, 1, h, w) in [0, 1] to (B, 1, H, W), about [0, 1] and not clamped."""
        features = self.first(low)
        result: Tensor = self.last(self.upsampler(features + self.trunk(features)))
        return result


class BlockGroup(nn.Module):
    """Residual blocks with a short connection around them all."""

    def __init__(self, num_blocks: int, channels: int, reduction: int, attention: Attention) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(AttentionBlock(channels, reduction, attention) for _ in range(num_blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        result: Tensor = x + self.blocks(x)
        return result


class ReleasedGenerator(nn.Module):
    """The frame of the authors' code: groups of blocks, the first features beside theirs, a sigmoid at the end.

    Args:
        num_groups: groups (authors' code 8).
        num_blocks: residual blocks in each (authors' code 16).
        channels: C.
        reduction: of the attention heads.
        attention: in the blocks.
    """

    def __init__(
        self, num_groups: int, num_blocks: int, channels: int, reduction: int, attention: Attention = "mhca"
    ) -> None:
        super().__init__()
        self.first = he_conv(1, channels, 3)
        groups = (BlockGroup(num_blocks, channels, reduction, attention) for _ in range(num_groups))
        self.trunk = nn.Sequential(*groups, he_conv(channels, channels, 1))
        self.upsampler = upsampler(2 * channels, channels)
        self.last = he_conv(channels, 1, 1)

    def forward(self, low: Tensor) -> Tensor:
        """(B, 1, h, w) in [0, 1] to (B, 1, H, W) in (0, 1)."""
        features = self.first(low)
        return torch.sigmoid(self.last(self.upsampler(torch.cat([self.trunk(features), features], dim=1))))


class JudgeBlock(nn.Module):
    """A basic block of ResNet-18 with spectral instead of batch normalization.

    Args:
        in_channels: of its input.
        channels: of its output.
        stride: 1 or 2.
        slope: of the leaky ReLUs.
        shortcut: how the input gets the output's shape where it differs: a 1 x 1 convolution, or bicubic halving with
            the channels twice (authors' code).
    """

    def __init__(self, in_channels: int, channels: int, stride: int, slope: float, shortcut: Shortcut) -> None:
        super().__init__()
        self.body = nn.Sequential(
            spectral_norm(nn.Conv2d(in_channels, channels, 3, stride, padding=1)),
            nn.LeakyReLU(slope),
            spectral_norm(nn.Conv2d(channels, channels, 3, padding=1)),
        )
        self.reshape: nn.Module = nn.Identity()
        if stride > 1 or in_channels != channels:
            convolved = shortcut == "conv"
            self.reshape = spectral_norm(nn.Conv2d(in_channels, channels, 1, stride)) if convolved else BicubicHalf()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, rows, columns) to (B, channels, rows / stride, columns / stride), rounded up."""
        return F.leaky_relu(self.body(x) + self.reshape(x), self.slope)


class BicubicHalf(nn.Module):
    """Half the size by bicubic interpolation, each channel twice."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, rows, columns) to (B, 2C, rows / 2, columns / 2), rounded up as a strided convolution does."""
        size = [-(-side // 2) for side in x.shape[2:]]
        half = F.interpolate(x, size=size, mode="bicubic", align_corners=False)
        return torch.cat([half, half], dim=1)


class ResnetDiscriminator(nn.Module):
    """Judges one image of any size: residual blocks like ResNet-18's, spectral normalization, global mean, one logit.

    The authors' code flattens the last map and so takes 512 x 512 alone; the mean over the map is ours.

    Args:
        channels: of the first stage; each later one has twice as many.
        released: seven blocks after a convolution that is not normalized, as in the authors' code, not four stages of
            two.
    """

    def __init__(self, channels: int, *, released: bool = False) -> None:
        super().__init__()
        widths = [channels * 2**stage for stage in range(4)]
        steps = [(width, stride) for width in widths for stride in (1 if width == channels else 2, 1)]
        stem, score = nn.Conv2d(1, channels, 3, padding=1), nn.Linear(widths[-1], 1)
        slope = _RELEASED_SLOPE if released else _SLOPE
        shortcut: Shortcut = "bicubic" if released else "conv"
        if released:
            steps = steps[1:]
        else:
            spectral_norm(stem)
            spectral_norm(score)
        blocks: list[nn.Module] = []
        before = channels
        for width, stride in steps:
            blocks.append(JudgeBlock(before, width, stride, slope, shortcut))
            before = width
        self.features = nn.Sequential(stem, nn.LeakyReLU(slope), *blocks)
        self.score = score

    def forward(self, image: Tensor, low: Tensor) -> Tensor:
        """Images (B, 1, H, W) to logits of being real, (B,); the low resolution is not looked at."""
        logits: Tensor = self.score(self.features(image).mean(dim=(2, 3)))[:, 0]
        return logits
