"""DenseNets for gray images, and ImageNet weights into them from a file. The network is MONAI's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from monai.networks.nets.densenet import DenseNet
from torch import nn

from medray.nn.weights import load_published, read_state_dict

Size = Literal["densenet121", "small"]
_PUBLISHED = re.compile(r"(denselayer\d+)\.(norm|relu|conv)\.?([12])\.")


def build_densenet(size: Size, num_outputs: int) -> DenseNet:
    """A DenseNet for one gray channel.

    Args:
        size: ``densenet121`` with batch normalization as published (7 million weights); ``small`` with three blocks of
            two layers and layer normalization for images of 32 to 128 pixels (43 thousand).
        num_outputs: logits.
    """
    if size == "densenet121":
        return DenseNet(spatial_dims=2, in_channels=1, out_channels=num_outputs, block_config=(6, 12, 24, 16))
    return DenseNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=num_outputs,
        init_features=16,
        growth_rate=12,
        block_config=(2, 2, 2),
        norm=("group", {"num_groups": 1}),
    )


def load_imagenet_weights(network: DenseNet, path: Path) -> None:
    """Load the features of torchvision's published DenseNet-121; the last layer stays as it is.

    The first layer's weights are summed over the three colors, which is what three equal channels would see.

    Args:
        network: a ``densenet121``.
        path: the state dict, ``.pth`` (read without unpickling objects) or ``.safetensors``.

    Raises:
        UserError: the file cannot be read, or holds another network.
    """
    features = {
        _PUBLISHED.sub(r"\1.layers.\2\3.", name): tensor
        for name, tensor in read_state_dict(path).items()
        if name.startswith("features.")
    }
    body = nn.ModuleDict({"features": network.features})
    load_published(body, features, path, "torchvision's DenseNet-121", first="features.conv0.weight")
