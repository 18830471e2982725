"""DenseNets for gray images, and ImageNet weights into them from a file. The network is MONAI's."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Literal

import torch
from monai.networks.nets.densenet import DenseNet
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from medray.errors import UserError

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
    published = _read(path)
    features = {
        _PUBLISHED.sub(r"\1.layers.\2\3.", name): tensor
        for name, tensor in published.items()
        if name.startswith("features.")
    }
    if "features.conv0.weight" in features:
        features["features.conv0.weight"] = features["features.conv0.weight"].sum(dim=1, keepdim=True)
    expected = {name: tensor for name, tensor in network.state_dict().items() if name.startswith("features.")}
    # Files older than PyTorch 0.4.1 lack the counters of batch normalization.
    missing = [name for name in expected if name not in features and not name.endswith("num_batches_tracked")]
    wrong = [n for n, tensor in features.items() if n not in expected or tensor.shape != expected[n].shape]
    if missing or wrong:
        raise UserError(f"{path} does not hold torchvision's DenseNet-121: {(missing + wrong)[0]} does not fit")
    network.load_state_dict(features, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there are no weights at {path}") from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise UserError(f"cannot read the weights in {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} holds no state dict (names and tensors)")
    return content
