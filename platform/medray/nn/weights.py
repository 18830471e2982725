"""Weights from a file into a network, with errors a user can act on."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medray.errors import UserError
from medray.storage.local import on_this_machine


def load_network(network: nn.Module, path: Path, *, prefix: str = "") -> None:
    """Load the tensors of a safetensors file whose names start with ``prefix`` into ``network``.

    Raises:
        UserError: the file cannot be read, or holds the weights of a differently built network.
    """
    try:
        tensors = load_file(on_this_machine(path))
    except FileNotFoundError:
        raise UserError(f"there are no weights at {path}") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read the weights in {path}: {error}") from None
    mine = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    try:
        network.load_state_dict(mine)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise UserError(f"the weights in {path} do not fit {type(network).__name__}: {detail}") from None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a published state dict, ``.pth`` (read without unpickling objects) or ``.safetensors``.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
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


def load_published(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    path: Path,
    architecture: str,
    *,
    first: str = "",
    last: str = "",
) -> None:
    """Load published weights for color images into a network; names and shapes must be the network's.

    For a network that takes gray images the first layer's weights are summed over the three colors, which is what
    three equal channels would see.

    Args:
        network: what they are for.
        tensors: by name.
        path: where they were read, for messages.
        architecture: what they should be, for messages: "torchvision's ResNet-18".
        first: name of the first layer's weights, where the network takes gray images.
        last: name of the last layer, which keeps its own weights where the network has another number of outputs.

    Raises:
        UserError: they are of another network.
    """
    mine = dict(tensors)
    if first in mine and mine[first].ndim == 4:
        mine[first] = mine[first].sum(dim=1, keepdim=True)
    expected = network.state_dict()
    for name in (f"{last}.weight", f"{last}.bias"):
        if name in mine and name in expected and len(mine[name]) != len(expected[name]):
            mine[name] = expected[name]
    # Files older than PyTorch 0.4.1 lack the counters of batch normalization.
    missing = [name for name in expected if name not in mine and not name.endswith("num_batches_tracked")]
    wrong = [name for name, tensor in mine.items() if name not in expected or tensor.shape != expected[name].shape]
    if missing or wrong:
        raise UserError(f"{path} does not hold {architecture}: {(missing + wrong)[0]} does not fit")
    network.load_state_dict(mine, strict=False)
