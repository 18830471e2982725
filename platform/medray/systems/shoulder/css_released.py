"""CSS-Net's networks as in the authors' code, where they differ from what the text describes.

No normalization; dilations that grow with the width; a dense block hands on only the channels of its last stage; S
works on the real and the imaginary part one by one; the classifier is fully connected, so it has one image size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medray.systems.shoulder.css_networks import NUM_CLASSES

_SHARE = 8  # of a block's width that each stage hands on
_STAGES = 4
_DILATION, _PER_WIDTH = 6, 64


def _conv(in_channels: int, out_channels: int, kernel: int = 3, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation), nn.ReLU())


class ReleasedBlock(nn.Module):
    """Four stages of a dilated convolution to ``width`` and one to ``width / 8``; later ones see all earlier results.

    Args:
        in_channels: of the features.
        width: k; the dilation is 6 k / 64, at least 1.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        small, dilation = width // _SHARE, max(1, _DILATION * width // _PER_WIDTH)
        self.out_channels = small
        self.gather = nn.ModuleList(_conv(in_channels + n * small, width, 1) for n in range(1, _STAGES))
        self.stages = nn.ModuleList(
            nn.Sequential(_conv(width if n else in_channels, width, 3, dilation), _conv(width, small, 3, dilation))
            for n in range(_STAGES)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, width / 8, H, W): the last stage's channels alone."""
        found = [x]
        last = x
        for number, stage in enumerate(self.stages):
            last = stage(self.gather[number - 1](torch.cat(found, dim=1)) if number else x)
            found.append(last)
        return last


class ReleasedEncoder(nn.Module):
    """The four blocks that both tasks use, with segmentation's own convolutions before them and its fifth block."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        before = [1, *(width // _SHARE for width in widths)]
        self.before = nn.ModuleList(_conv(i, o) for i, o in zip(before, widths, strict=False))
        self.blocks = nn.ModuleList(ReleasedBlock(width, width) for width in widths)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 1, H, W) to the features of each level; the images themselves come last, for the classifier."""
        x, found = images, []
        for level, (conv, block) in enumerate(zip(self.before, self.blocks, strict=True)):
            x = block(conv(F.max_pool2d(x, 2) if level else x))
            found.append(x)
        return found


class ReleasedDecoder(nn.Module):
    """Transposed convolutions, the encoder's features beside them, and blocks of their own."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        fine = list(widths[:-1])[::-1]
        outs = [*fine[:-1], max(fine[-1], fine[-2] if len(fine) > 1 else fine[-1])]  # 512, 256, 128, 128
        before = [widths[-1] // _SHARE, *(width // _SHARE for width in outs)]
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(i, o, 3, stride=2, padding=1, output_padding=1)
            for i, o in zip(before, outs, strict=False)
        )
        self.blocks = nn.ModuleList(
            ReleasedBlock(o + beside // _SHARE, o) for o, beside in zip(outs, fine, strict=True)
        )
        self.last = nn.Conv2d(outs[-1] // _SHARE, NUM_CLASSES, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features as the encoder gives them to logits (B, 3, H, W)."""
        *fine, x = features
        for up, block, beside in zip(self.up, self.blocks, reversed(fine), strict=True):
            x = block(torch.cat([F.relu(up(x)), beside], dim=1))
        logits: Tensor = self.last(x)
        return logits


class ReleasedHead(nn.Module):
    """The classifier behind the four shared blocks: a convolution, a block of 64, three fully connected layers.

    Args:
        widths: of the encoder; the last level is segmentation's alone.
        size_px: rows and columns of the images.
        hidden: neurons of the first two fully connected layers.
    """

    def __init__(self, widths: Sequence[int], size_px: int, hidden: int = 1000) -> None:
        super().__init__()
        small = widths[0] // _SHARE
        side = size_px // 2 ** (len(widths) - 2)
        self.maps = nn.Sequential(_conv(widths[-2] // _SHARE, widths[0]), ReleasedBlock(widths[0], widths[0]))
        self.last = nn.Sequential(
            nn.Linear(small * side**2, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features as the encoder gives them to logits (B, 2)."""
        logits: Tensor = self.last(self.maps(features[-2]).flatten(1))
        return logits


class ReleasedSpectrumNet(nn.Module):
    """S of the code: 64-128-256-64 channels, the first added to the fourth, one channel out, a ReLU after each.

    Args:
        width: of the first layer (64).
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.first = _conv(1, width)
        self.middle = nn.Sequential(_conv(width, 2 * width), _conv(2 * width, 4 * width), _conv(4 * width, width))
        self.last = _conv(width, 1)

    def forward(self, spectrum: Tensor) -> Tensor:
        """(B, 2, H, W) to (B, 2, H, W), real and imaginary part one by one with the same weights."""
        x = self.first(spectrum.flatten(0, 1)[:, None])
        out: Tensor = self.last(x + self.middle(x))
        return out[:, 0].view_as(spectrum)
