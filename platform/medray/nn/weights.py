"""Weights from a file into a network, with errors a user can act on."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

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
