"""CSS-Net's networks: dense blocks of dilated convolutions in a U-Net, and a classifier on the same encoder.

Diagrams (figs. 3 and 4) are missing from the text that was read, so widths, growth and dilations are recommendations,
see the page of the system. Group normalization with 16 groups and ReLU are table 4's.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NUM_GROUPS = 16
NUM_CLASSES = 3
"""Background, supraspinatus tendon, tear."""


@dataclass(frozen=True)
class BlockShape:
    """What all dense blocks of a network have in common.

    Attributes:
        growth: channels that each convolution adds, a multiple of 16.
        dilations: of the convolutions, in order.
    """

    growth: int
    dilations: tuple[int, ...]


def norm_relu(channels: int) -> nn.Sequential:
    """Group normalization (table 4: 16 groups), then ReLU; ``channels`` is a multiple of 16."""
    return nn.Sequential(nn.GroupNorm(NUM_GROUPS, channels), nn.ReLU())


class DenseBlock(nn.Module):
    """Dilated 3 x 3 convolutions, each on all that came before it, and a 1 x 1 to the stage's width (fig. 3).

    Args:
        in_channels: a multiple of 16.
        out_channels: width of the stage.
        shape: growth and dilations.
    """

    def __init__(self, in_channels: int, out_channels: int, shape: BlockShape) -> None:
        super().__init__()
        before = [in_channels + number * shape.growth for number in range(len(shape.dilations) + 1)]
        self.layers = nn.ModuleList(
            nn.Sequential(norm_relu(width), nn.Conv2d(width, shape.growth, 3, padding=step, dilation=step))
            for width, step in zip(before, shape.dilations, strict=False)
        )
        self.transition = nn.Sequential(norm_relu(before[-1]), nn.Conv2d(before[-1], out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W)."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        out: Tensor = self.transition(x)
        return out


class Encoder(nn.Module):
    """What segmentation and classification share: a dense block per level, maxima over 2 x 2 between them.

    Args:
        widths: channels of each level.
        shape: of the blocks.
    """

    def __init__(self, widths: Sequence[int], shape: BlockShape) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, widths[0], 3, padding=1)
        before = [widths[0], *widths[:-1]]
        self.blocks = nn.ModuleList(DenseBlock(i, o, shape) for i, o in zip(before, widths, strict=True))
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 1, H, W) to the features of each level, (B, width, H / 2^level, W / 2^level)."""
        x = self.stem(images)
        found = []
        for level, block in enumerate(self.blocks):
            x = block(self.pool(x) if level else x)
            found.append(x)
        return found


class Decoder(nn.Module):
    """From the features of all levels back to a score for each class and pixel.

    Args:
        widths: of the encoder.
        shape: of the blocks.
    """

    def __init__(self, widths: Sequence[int], shape: BlockShape) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, fine, 2, stride=2) for fine, deep in pairs)
        self.blocks = nn.ModuleList(DenseBlock(2 * fine, fine, shape) for fine, _ in pairs)
        self.last = nn.Sequential(norm_relu(widths[0]), nn.Conv2d(widths[0], NUM_CLASSES, 1))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features as the encoder gives them to logits (B, 3, H, W)."""
        *fine, x = features
        for up, block, beside in zip(self.up, self.blocks, reversed(fine), strict=True):
            x = block(torch.cat([up(x), beside], dim=1))
        logits: Tensor = self.last(x)
        return logits


class Segmenter(nn.Module):
    """M_seg (sec. 2.2): all that inference needs.

    Args:
        encoder: its part that the classifier uses too.
        decoder: the rest.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) to logits (B, 3, H, W)."""
        logits: Tensor = self.decoder(self.encoder(images))
        return logits


class ClassifierHead(nn.Module):
    """What M_clf (sec. 2.3) has of its own: two dense blocks on the deepest features, their mean, two logits.

    Args:
        width: channels of the deepest level.
        shape: of the blocks.
    """

    def __init__(self, width: int, shape: BlockShape) -> None:
        super().__init__()
        self.blocks = nn.Sequential(DenseBlock(width, width, shape), DenseBlock(width, width, shape))
        self.activation = norm_relu(width)
        self.last = nn.Linear(width, 2)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features as the encoder gives them to logits (B, 2): tear absent, tear present."""
        maps: Tensor = self.activation(self.blocks(features[-1]))
        logits: Tensor = self.last(maps.mean(dim=(2, 3)))
        return logits


class Classifier(nn.Module):
    """M_clf as one network of images, for attention maps; shares the encoder it is given.

    Only the difference of its two logits means anything, so half of it is each one's: a map of a logit alone would also
    show what raises both.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) to logits (B, 2) that sum to 0."""
        logits: Tensor = self.head(self.encoder(images))
        return logits - logits.mean(dim=1, keepdim=True)
