"""The workers of one training run as a step sees them: who am I, how many are we, add this up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")

# Gradients travel in flat buffers of at most this many elements, so that a large model needs no second copy of itself.
_BUCKET_ELEMENTS = 8_000_000


@dataclass(frozen=True)
class World:
    """The group of workers. With one worker every operation returns at once."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def add(self, values: Tensor) -> Tensor:
        """Sum over workers, in place, of a tensor that has the same shape on each."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """Every worker's value, in rank order, on every worker. For small picklable things."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def agree(self, flag: bool) -> bool:
        """True everywhere if it is true anywhere."""
        if self.size == 1:
            return flag
        return bool(self.add(torch.tensor(float(flag), device=self.device)) > 0)

    def share_weights(self, module: nn.Module) -> None:
        """Give every worker the first one's parameters and buffers."""
        if self.size > 1:
            with torch.no_grad():
                for tensor in [*module.parameters(), *module.buffers()]:
                    dist.broadcast(tensor, src=0)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum each parameter's gradient over workers. One that has none on any worker keeps none."""
        if self.size == 1:
            return
        for bucket in _buckets([p for p in parameters if p.requires_grad]):
            present = torch.tensor([float(p.grad is not None) for p in bucket], device=self.device)
            flat = torch.cat(
                [present, *(torch.zeros_like(p).view(-1) if p.grad is None else p.grad.reshape(-1) for p in bucket)]
            )
            dist.all_reduce(flat)
            offset = len(bucket)
            for index, parameter in enumerate(bucket):
                if flat[index] > 0:
                    parameter.grad = flat[offset : offset + parameter.numel()].view_as(parameter).clone()
                offset += parameter.numel()


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterable[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    elements = 0
    for parameter in parameters:
        if bucket and (elements + parameter.numel() > _BUCKET_ELEMENTS or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, elements = [], 0
        bucket.append(parameter)
        elements += parameter.numel()
    if bucket:
        yield bucket
