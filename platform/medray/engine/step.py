"""The `Step` that the engine hands to a learner: mixed precision, and gradients added over workers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medray.engine.options import Precision
from medray.engine.world import World
from medray.learner import Step

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class EngineStep(Step):
    """One object serves a whole run; the loop moves ``epoch`` and ``index`` on."""

    def __init__(
        self, optimizers: Mapping[str, Optimizer], *, world: World, precision: Precision = "fp32", seed: int = 0
    ) -> None:
        super().__init__(optimizers, seed=seed)
        self.world = world
        self.idle = False
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=precision == "fp16")
        self._dtype = _AUTOCAST.get(precision)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bf16 or fp16 where the run asked for it."""
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.world.device.type, dtype=self._dtype)

    def mean(self, total: Tensor, count: Tensor | float) -> Tensor:
        """See `Step.mean`. A worker without samples of its own goes through the motions with a share of nothing."""
        share = torch.as_tensor(count, dtype=total.dtype, device=total.device).detach()
        if self.world.size > 1:
            share = self.world.add(share * 0 if self.idle else share.clone())
            total = total * 0 if self.idle else total
        return total / share.clamp_min(1e-12)

    def backward(self, loss: Tensor) -> None:
        """Scaled in fp16."""
        self.scaler.scale(loss).backward()

    def update(self, name: str, *, max_norm: float | None = None) -> None:
        """See `Step.update`."""
        optimizer = self.optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.world.add_gradients(parameters)
        if max_norm is not None:
            self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, max_norm)
        self.scaler.step(optimizer)
        optimizer.zero_grad(set_to_none=True)
