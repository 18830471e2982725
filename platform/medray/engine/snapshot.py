"""The state of a training run as plain CPU tensors, taken between two steps, and its way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medray.engine.nested import is_sharded, map_tensors

_NORMS = nn.modules.batchnorm._NormBase


def copied(value: Any) -> Any:
    """The same structure with tensors copied to the CPU, sharded ones whole: later steps cannot change it.

    Where tensors are sharded, every worker must call this together.
    """

    def copy(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        if is_sharded(tensor):
            return tensor.full_tensor().cpu()  # type: ignore[attr-defined]
        return tensor.to("cpu", copy=True)

    return map_tensors(copy, value)


def note_rates(optimizer: Optimizer) -> None:
    """Have the optimizer's state say which learning rates were configured, as it does where there is a schedule."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Give an optimizer its state back; where its parameters are sharded, each worker takes its part.

    Where another learning rate is configured than the state was saved with (population-based training), the rate is
    scaled accordingly, wherever its schedule is. The weight decay is the configured one.
    """
    configured = [dict(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(state))
    for group, mine in zip(optimizer.param_groups, configured, strict=True):
        _configure(group, mine)
    parameters = [p for group in optimizer.param_groups for p in group["params"] if is_sharded(p)]
    if not parameters:
        return
    from torch.distributed.tensor import distribute_tensor

    for parameter in parameters:
        kept = optimizer.state.get(parameter, {})
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and not is_sharded(value):
                kept[name] = distribute_tensor(value, parameter.device_mesh, parameter.placements)


def load_scheduler(scheduler: Any, state: Mapping[str, Any]) -> None:
    """Give a schedule its state back; its optimizer, which has its own, says which learning rates it starts from."""
    scheduler.load_state_dict(state)
    if hasattr(scheduler, "base_lrs"):
        scheduler.base_lrs = [group["initial_lr"] for group in scheduler.optimizer.param_groups]


def _configure(group: dict[str, Any], configured: Mapping[str, Any]) -> None:
    before, now = group.get("initial_lr"), configured.get("initial_lr")
    if before is not None and now is not None and before != now:
        group["lr"] = group["lr"] * now / before if before else now
        group["initial_lr"] = now
    if "weight_decay" in configured:
        group["weight_decay"] = configured["weight_decay"]


class NormStatistics:
    """The running statistics of all normalization layers, so that a step that is left out leaves no trace in them."""

    def __init__(self, networks: nn.Module) -> None:
        layers = [layer for layer in networks.modules() if isinstance(layer, _NORMS)]
        self._buffers = [buffer for layer in layers for buffer in layer.buffers()]
        self._kept = [buffer.clone() for buffer in self._buffers]

    def keep(self) -> None:
        """Remember them as they are."""
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            kept.copy_(buffer)

    def put_back(self) -> None:
        """As they were when last kept."""
        with torch.no_grad():
            for buffer, kept in zip(self._buffers, self._kept, strict=True):
                buffer.copy_(kept)
