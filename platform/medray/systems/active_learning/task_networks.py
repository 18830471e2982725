"""The networks of a campaign's tasks: a U-Net and two classifiers for gray images. Blocks are MONAI's.

Shape letters: B images, H rows, W columns, F features, L logits.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from monai.networks.blocks.convolutions import Convolution
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.resnet import resnet18
from torch import Tensor, nn

from medray.nn.weights import load_published, read_state_dict

_SMALL_CHANNELS = (16, 32, 64, 128)
_SMALL_PLACES = 4


class TaskNetwork(nn.Module):
    """Gray images in [0, 1] to logits. It standardizes them itself, so that whoever uses it does the same.

    Args:
        body: standardized images (B, 1, H, W) to features (B, F) or (B, F, H, W).
        head: features to logits.
        mean: subtracted from the images.
        sd: by which they are then divided.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, body: nn.Module, head: nn.Module, *, mean: float, sd: float) -> None:
        super().__init__()
        self.body, self.head = body, head
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("sd", torch.tensor(sd))

    def features(self, image: Tensor) -> Tensor:
        """What the last layer decides on, (B, F) or (B, F, H, W)."""
        found: Tensor = self.body((image - self.mean) / self.sd)
        return found

    def forward(self, image: Tensor) -> Tensor:
        """Logits of images (B, 1, H, W)."""
        logits: Tensor = self.head(self.features(image))
        return logits


def build_unet(channels: Sequence[int], *, mean: float, sd: float) -> TaskNetwork:
    """A U-Net with one logit per pixel; instance normalization, so that images of a batch do not see each other.

    Args:
        channels: of the five levels, finest first; the last layer decides on as many as the finest has.
        mean: see `TaskNetwork`.
        sd: likewise.
    """
    body = BasicUNet(spatial_dims=2, in_channels=1, out_channels=1, features=(*channels, channels[0]))
    head, body.final_conv = body.final_conv, nn.Identity()
    return TaskNetwork(body, head, mean=mean, sd=sd)


def build_classifier(
    name: Literal["resnet18", "small"], num_outputs: int, *, mean: float, sd: float, weights: Path | None = None
) -> TaskNetwork:
    """A classifier of gray images.

    Args:
        name: ``resnet18`` as published (11 million weights, batch normalization), or ``small``: four convolutions
            with group normalization, each followed by halving, and a layer over 4 x 4 places (0.1 million).
        num_outputs: L.
        mean: see `TaskNetwork`.
        sd: likewise.
        weights: of torchvision's ResNet-18, for ``resnet18``; its first layer is summed over the colors, and its last
            one, for other classes, is not used. Random where None.

    Raises:
        UserError: the file cannot be read, or holds another network.
    """
    if name == "small":
        return TaskNetwork(*_small_classifier(num_outputs), mean=mean, sd=sd)
    body = resnet18(
        spatial_dims=2, n_input_channels=1, conv1_t_stride=2, bias_downsample=False, feed_forward=False
    )  # fmt: skip
    if weights is not None:
        published = {key: value for key, value in read_state_dict(weights).items() if not key.startswith("fc.")}
        load_published(body, published, weights, "torchvision's ResNet-18", first="conv1.weight")
    return TaskNetwork(body, nn.Linear(512, num_outputs), mean=mean, sd=sd)


def _small_classifier(num_outputs: int) -> tuple[nn.Module, nn.Module]:
    """Body and head. The head sees where in the image something is: radiographs of a chest are taken alike."""
    norm = ("group", {"num_groups": 8})
    blocks = [
        nn.Sequential(Convolution(2, before, after, adn_ordering="NA", act="relu", norm=norm), nn.MaxPool2d(2))
        for before, after in itertools.pairwise((1, *_SMALL_CHANNELS))
    ]
    body = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(_SMALL_PLACES))
    return body, nn.Sequential(nn.Flatten(), nn.Linear(_SMALL_CHANNELS[-1] * _SMALL_PLACES**2, num_outputs))
