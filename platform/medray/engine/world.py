"""The workers of one training run as a step sees them: who am I, how many are we, add this up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from medray.engine.nested import is_sharded

T = TypeVar("T")

# Gradients travel in flat buffers of at most this many elements, so that a large model needs no second copy of itself.
_BUCKET_ELEMENTS = 8_000_000


class World:
    """The group of workers. With one worker every operation returns at once.

    Attributes:
        rank: this worker's number, from 0.
        size: how many there are.
        device: where this worker's networks are.
        communication_s: time spent waiting for the others, in all.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.rank = rank
        self.size = size
        self.device = device or torch.device("cpu")
        self.communication_s = 0.0
        # Objects and flags travel over the CPU, so that asking whether to stop does not wait for a GPU.
        self._talk = dist.new_group(backend="gloo") if size > 1 and self.device.type == "cuda" else None

    def add(self, values: Tensor) -> Tensor:
        """Sum over workers, in place, of a tensor that has the same shape on each."""
        if self.size > 1:
            with self._timed():
                dist.all_reduce(values, group=self._group(values))
        return values

    def gather(self, value: T) -> list[T]:
        """Every worker's value, in rank order, on every worker. For small picklable things."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self._timed():
            dist.all_gather_object(values, value, group=self._talk)
        return values

    def share(self, value: T) -> T:
        """The first worker's value, on every worker."""
        if self.size == 1:
            return value
        box = [value]
        with self._timed():
            dist.broadcast_object_list(box, src=0, group=self._talk)
        return box[0]

    def agree(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag true everywhere if it is true anywhere."""
        if self.size == 1:
            return flags
        return tuple((self.add(torch.tensor([float(flag) for flag in flags])) > 0).tolist())

    def share_weights(self, module: nn.Module) -> None:
        """Give every worker the first one's parameters and buffers."""
        self._broadcast([*module.parameters(), *module.buffers()])

    def share_buffers(self, module: nn.Module) -> None:
        """Give every worker the first one's buffers: each has seen other samples in its normalization layers."""
        self._broadcast(list(module.buffers()))

    def _broadcast(self, tensors: Sequence[Tensor]) -> None:
        if self.size > 1:
            with torch.no_grad(), self._timed():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0, group=self._group(tensor))

    def _group(self, tensor: Tensor) -> Any:
        """Who carries it: a GPU's own library takes no tensors of the CPU."""
        return self._talk if tensor.device.type == "cpu" else None

    def add_gradients(self, parameters: Iterable[nn.Parameter], flag: Tensor) -> Tensor:
        """Sum each parameter's gradient over workers. One that has none on any worker keeps none.

        Args:
            parameters: of one optimizer; the same on every worker. Sharded ones are added by their own hooks.
            flag: a scalar that is summed along with them.

        Returns:
            the sum of the flags.
        """
        if self.size == 1:
            return flag
        summed = None
        for bucket in _buckets([p for p in parameters if p.requires_grad and not is_sharded(p)]):
            head = torch.tensor([0.0, *(float(p.grad is not None) for p in bucket)], device=self.device)
            head[0] = flag
            rest = [torch.zeros_like(p).view(-1) if p.grad is None else p.grad.reshape(-1) for p in bucket]
            flat = self.add(torch.cat([head, *rest]))
            summed = flat[0]
            offset = len(head)
            for index, parameter in enumerate(bucket):
                if flat[1 + index] > 0:
                    part = flat[offset : offset + parameter.numel()]
                    parameter.grad = part.view_as(parameter).to(parameter.dtype, copy=True)
                offset += parameter.numel()
        return self.add(flag.clone()) if summed is None else summed

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.communication_s += time.perf_counter() - began


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
