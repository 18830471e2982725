"""Networks of the methods that BliMSR is compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medray.systems.super_resolution.degradation import SCALE

_SLOPE = 0.2


class Bicubic(nn.Module):
    """Bicubic interpolation, in the place of a generator. Nothing to learn."""

    def forward(self, low: Tensor) -> Tensor:
        """(B, 1, h, w) to (B, 1, 4h, 4w); may leave [0, 1] at edges."""
        return F.interpolate(low, scale_factor=SCALE, mode="bicubic", align_corners=False)


def _convs(*channels: int, strides: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after, stride in zip(channels, channels[1:], strides, strict=False):
        layers += [nn.Conv2d(before, after, 3, stride, padding=1), nn.LeakyReLU(_SLOPE)]
    return nn.Sequential(*layers)


class PairDiscriminator(nn.Module):
    """MedSRGAN's: judges an image beside the low resolution it belongs to. Gu et al., Multimed. Tools Appl. 2020.

    Both go through convolutions of their own until they have one size; their features are judged together. Without
    residual connections and normalization. Widths are ours, the papers' texts have none; the mean before the logit
    makes it free of size.

    Args:
        channels: of the first layers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.high = _convs(1, channels, channels, 2 * channels, strides=(1, 2, 2))
        self.low = _convs(1, channels, 2 * channels, strides=(1, 1))
        self.both = _convs(4 * channels, 4 * channels, 4 * channels, 8 * channels, 8 * channels, strides=(1, 2, 1, 2))
        self.score = nn.Linear(8 * channels, 1)

    def forward(self, image: Tensor, low: Tensor) -> Tensor:
        """Images (B, 1, 4h, 4w) and their low resolutions (B, 1, h, w) to logits of being real, (B,)."""
        features = self.both(torch.cat([self.high(image), self.low(low)], dim=1))
        logits: Tensor = self.score(features.mean(dim=(2, 3)))[:, 0]
        return logits
