"""VGG networks (Simonyan & Zisserman 2015), with torchvision's layout and names, so its published files load unchanged."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medray.nn.sample_dropout import SampleDropout

VGG19_CHANNELS = (64, 128, 256, 512, 512)
VGG19_CONVS = (2, 2, 4, 4, 4)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in [0, 1]: what the published networks expect to be subtracted and divided by."""


def vgg_layers(in_channels: int, channels: Sequence[int], convs: Sequence[int]) -> nn.Sequential:
    """Blocks of 3 x 3 convolutions with ReLUs, a maximum over 2 x 2 after each, in torchvision's order.

    Args:
        in_channels: of the images.
        channels: of each block.
        convs: how many convolutions each block has.
    """
    layers: list[nn.Module] = []
    before = in_channels
    for width, count in zip(channels, convs, strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class Vgg(nn.Module):
    """Convolutions, a mean over a 7 x 7 grid, three fully connected layers with dropout; VGG-19 by default.

    Args:
        num_outputs: of the last layer (ImageNet 1000).
        in_channels: of the images.
        channels: of each block of convolutions.
        convs: convolutions of each block.
        hidden: width of the first two fully connected layers.
        grid: rows and columns of the features before them.
        dropout: share of their activations set to 0 while training; see `seed_dropout`.
    """

    def __init__(
        self,
        num_outputs: int = 1000,
        *,
        in_channels: int = 3,
        channels: Sequence[int] = VGG19_CHANNELS,
        convs: Sequence[int] = VGG19_CONVS,
        hidden: int = 4096,
        grid: int = 7,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.features = vgg_layers(in_channels, channels, convs)
        self.avgpool = nn.AdaptiveAvgPool2d(grid)
        self.classifier = nn.Sequential(
            nn.Linear(channels[-1] * grid**2, hidden), nn.ReLU(), SampleDropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(), SampleDropout(dropout, 1),
            nn.Linear(hidden, num_outputs),
        )  # fmt: skip

    @property
    def last_convolution(self) -> str:
        """Name of the ReLU after the last convolution (VGG-19's is features.35), whose output attention maps weigh."""
        return f"features.{len(self.features) - 2}"

    def forward(self, images: Tensor) -> Tensor:
        """(B, in_channels, H, W) of at least 2^blocks pixels to logits (B, num_outputs)."""
        grid: Tensor = self.avgpool(self.features(images))
        logits: Tensor = self.classifier(grid.flatten(1))
        return logits
