"""Tensors inside dicts, lists, tuples and dataclasses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """The same structure with ``function`` applied to every tensor in it."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(function, item) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(function, item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: map_tensors(function, getattr(value, f.name)) for f in fields(value)})
    return value


def to_device(value: Any, device: torch.device, *, channels_last: bool = False) -> Any:
    """A batch on the device; with ``channels_last``, 4D and 5D floating-point tensors in that memory format."""
    if device.type == "cpu" and not channels_last:
        return value

    def move(tensor: Tensor) -> Tensor:
        moved = tensor.to(device, non_blocking=True)
        return in_channels_last(moved) if channels_last and moved.is_floating_point() else moved

    return map_tensors(move, value)


def in_channels_last(tensor: Tensor) -> Tensor:
    """The tensor with its channels as the last axis in memory, where it has two or three spatial axes."""
    if tensor.ndim == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor.contiguous(memory_format=torch.channels_last_3d) if tensor.ndim == 5 else tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor, of which each worker holds a part; told without the second that importing it takes."""
    return hasattr(tensor, "full_tensor")
