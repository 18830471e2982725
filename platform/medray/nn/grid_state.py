"""Control grids of many pairs with an Adam of their own each, as plain tensors that can be saved and stacked."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

ADAM_BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8


@dataclass(frozen=True)
class GridState:
    """Control grids and their Adam moments, of B pairs that need not be at the same iteration.

    Each pair counts its own steps and a pair that is not stepped does not move; one ``torch.optim.Adam`` over all pairs
    would go on moving the idle ones by their momentum.

    Attributes:
        control: displacement of the knots in normalized coordinates, (B, D, *knots).
        exp_avg: first moment, same shape.
        exp_avg_sq: second moment, same shape.
        step: updates so far at this scale, int64, (B,).
    """

    control: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: Tensor

    @classmethod
    def start(cls, control: Tensor) -> GridState:
        """Fresh moments around given control values."""
        step = torch.zeros(control.shape[0], dtype=torch.int64, device=control.device)
        return cls(control, torch.zeros_like(control), torch.zeros_like(control), step)

    def select(self, index: Tensor) -> GridState:
        """The states of some pairs (copies)."""
        return GridState(*(getattr(self, f.name)[index] for f in fields(self)))

    def moved(self, gradient: Tensor, lr: Tensor) -> GridState:
        """One Adam update of every pair; the gradient has the shape of ``control``, ``lr`` is (B,)."""
        beta1, beta2 = ADAM_BETAS
        step = self.step + 1
        exp_avg = self.exp_avg.lerp(gradient, 1 - beta1)
        exp_avg_sq = (self.exp_avg_sq * beta2).addcmul_(gradient, gradient, value=1 - beta2)
        count = step.double()
        per_pair = (-1, *(1,) * (gradient.ndim - 1))
        size = (lr / (1 - beta1**count)).to(gradient.dtype).view(per_pair)
        scale = (1 - beta2**count).rsqrt().to(gradient.dtype).view(per_pair)
        change = exp_avg / (exp_avg_sq.sqrt().mul_(scale)).add_(ADAM_EPS)
        return GridState(torch.addcmul(self.control, change, size, value=-1), exp_avg, exp_avg_sq, step)
