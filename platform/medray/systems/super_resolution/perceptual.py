"""Features that the perceptual loss and distance compare: VGG-19's from a file, or a small network's.

VGG-19 has torchvision's layout (`medray.nn.vgg`), so its published state dict loads as it is. Nothing is downloaded.
Without that file a network of the same block structure stands in that the project has trained on its own phantoms
(`train_features`); its weights are part of the package, so that distances of different runs can be compared.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from medray.nn.vgg import IMAGENET_MEAN, IMAGENET_STD, VGG19_CHANNELS, VGG19_CONVS, vgg_layers
from medray.nn.weights import load_network, load_published, read_state_dict
from medray.systems.super_resolution.blimsr_config import BlimsrConfig

log = logging.getLogger(__name__)

PHANTOM_FEATURES = Path(__file__).parent / "weights" / "phantom_features.safetensors"
_RANDOM_SEED = 19
RELEASED_WEIGHTS = (0.5, 0.25, 0.125, 0.0625, 0.0625)
"""Of the five blocks in the authors' code, which feeds gray images without ImageNet's statistics."""


class Features(nn.Module):
    """A frozen network's features of gray images: five blocks, before the activation of each one's last convolution.

    Args:
        name: whose features they are, for reports.
        channels: of each block.
        convs: convolutions of each block.
        mean: of each input channel, subtracted from the image that every input channel gets.
        std: of each input channel, divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: Literal["vgg19", "phantom", "random"],
        channels: Sequence[int],
        convs: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.name = name
        self.features = vgg_layers(len(mean), channels, convs)
        pools = [index for index, layer in enumerate(self.features) if isinstance(layer, nn.MaxPool2d)]
        self.taken = [index - 2 for index in pools]
        """Indices of the layers whose output is taken; VGG-19's are 2, 7, 16, 25 and 34."""
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 1, H, W) in [0, 1] to five tensors (B, channels, H / 2^k, W / 2^k), k from 0 to 4."""
        x = (images.expand(-1, self.mean.shape[1], -1, -1) - self.mean) / self.std
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taken:
                found.append(x)
            if index == self.taken[-1]:
                break
        return found


def vgg19(*, imagenet_statistics: bool) -> Features:
    """The convolutions of VGG-19 (Simonyan & Zisserman 2015) on a gray image three times, with random weights."""
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if imagenet_statistics else ((0.0,) * 3, (1.0,) * 3)
    return Features("vgg19", VGG19_CHANNELS, VGG19_CONVS, mean, std)


def small_network(name: Literal["phantom", "random"]) -> Features:
    """The same structure with 8 to 32 channels on a gray image, with random weights that are always the same."""
    network = Features(name, (8, 16, 32, 32, 32), (2, 2, 2, 2, 2), (0.5,), (0.25,))
    generator = torch.Generator().manual_seed(_RANDOM_SEED)
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return network


def open_features(config: BlimsrConfig) -> Features | None:
    """The network whose features a config compares, frozen; None where it compares none.

    Raises:
        UserError: the file of weights cannot be read, or is not torchvision's VGG-19.
    """
    if config.perceptual == "none":
        return None
    if config.perceptual == "random":
        return small_network("random").eval()
    if config.perceptual == "vgg19" and config.vgg19_weights:
        return _published_vgg19(Path(config.vgg19_weights), config.perceptual_weights == "mean")
    if config.perceptual == "vgg19":
        _warn_of_stand_in()
    network = small_network("phantom")
    load_network(network, PHANTOM_FEATURES)
    return network.eval()


def block_weights(config: BlimsrConfig) -> tuple[float, ...]:
    """Weights of the five blocks in the perceptual loss."""
    return (0.2,) * 5 if config.perceptual_weights == "mean" else RELEASED_WEIGHTS


def _published_vgg19(path: Path, imagenet_statistics: bool) -> Features:
    network = vgg19(imagenet_statistics=imagenet_statistics)
    tensors = {name: tensor for name, tensor in read_state_dict(path).items() if name.startswith("features.")}
    load_published(network, tensors, path, "torchvision's VGG-19")
    return network.eval()


@functools.cache
def _warn_of_stand_in() -> None:
    log.warning(
        "no --config.vgg19-weights: a small network trained on phantoms stands in for VGG-19, so its features guide "
        "textures and perceptual_distance cannot be compared with published LPIPS values"
    )
