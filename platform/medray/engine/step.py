"""The `Step` that the engine hands to a learner: mixed precision, gradients added over workers.

Nothing that is not finite ever reaches a weight.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medray.engine.nested import is_sharded
from medray.engine.options import Precision
from medray.engine.world import World
from medray.learner import Step

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SMALLEST_SCALE = 2.0**-10
"""fp16 halves its loss scale at every overflow; below this it is the training that overflows, not the format."""


class NonFinite(Exception):
    """A loss or gradient became infinite or NaN; raised on every worker, before the optimizer moved."""


class EngineStep(Step):
    """One object serves a whole run; the loop moves ``epoch`` and ``index`` on.

    Attributes:
        idle: this worker has no samples of its own in this step and only goes through the motions.
        tolerant: leave out an update that is not finite instead of raising `NonFinite`.
        moved: optimizers that have moved in this step.
        left_out: optimizers whose update was left out in this step.
    """

    def __init__(
        self, optimizers: Mapping[str, Optimizer], *, world: World, precision: Precision = "fp32", seed: int = 0
    ) -> None:
        super().__init__(optimizers, seed=seed)
        self.world = world
        self.idle = False
        self.tolerant = False
        self.moved: list[str] = []
        self.left_out: list[str] = []
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=precision == "fp16")
        self._dtype = _AUTOCAST.get(precision)
        self._bad_loss = torch.zeros((), device=world.device)

    def begin(self, epoch: int, index: int, *, idle: bool, tolerant: bool) -> None:
        """Before the learner's step."""
        self.epoch, self.index, self.idle, self.tolerant = epoch, index, idle, tolerant
        self.moved, self.left_out = [], []
        self._bad_loss.zero_()

    def end(self) -> None:
        """After the learner's step.

        Raises:
            NonFinite: fp16 keeps overflowing however small the loss is scaled.
        """
        if self.scaler.is_enabled():
            self.scaler.update()
            if self.scaler.get_scale() < _SMALLEST_SCALE:
                raise NonFinite("gradients overflow fp16 at any loss scale")

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
        self._bad_loss += (~torch.isfinite(loss.detach())).float()
        self.scaler.scale(loss).backward()

    def update(self, name: str, *, max_norm: float | None = None) -> None:
        """See `Step.update`.

        Raises:
            NonFinite: the loss or a gradient is not finite, on any worker; nothing has moved and all gradients are
                zero again.
        """
        optimizer = self.optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        bad_loss = self.world.add_gradients(parameters, self._bad_loss)
        if self.scaler.is_enabled():
            self._scaled_update(optimizer, parameters, max_norm)
            self.moved.append(name)
        else:
            norm = gradient_norm(parameters)
            if bool(torch.isfinite(norm) & (bad_loss == 0)):  # the gradients are summed: all workers decide alike
                if max_norm is not None:
                    nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
                optimizer.step()
                self.moved.append(name)
            else:
                self._refuse(name)
        optimizer.zero_grad(set_to_none=True)

    def _scaled_update(self, optimizer: Optimizer, parameters: list[nn.Parameter], max_norm: float | None) -> None:
        # An overflow is everyday business in fp16: the scaler leaves such an update out and lowers its scale.
        if max_norm is not None:
            self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, max_norm)
        self.scaler.step(optimizer)

    def _refuse(self, name: str) -> None:
        if not self.tolerant:
            for optimizer in self.optimizers.values():
                optimizer.zero_grad(set_to_none=True)
            raise NonFinite(f"the loss or gradient of {name}" if len(self.optimizers) > 1 else "the loss or gradient")
        self.left_out.append(name)
        self._bad_loss.zero_()


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients together, a plain scalar also where they are sharded."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if is_sharded(norm) else norm  # type: ignore[attr-defined]
