"""Distributions over a box, for the actions of a policy: what a network's logits mean. Plain PyTorch.

Both factorize over the actions. Inside, an action x of the box [low, high] is u = (x - low) / (high - low) in [0, 1].
Shape letters: B samples, A actions. Logits are (B, 2 A): first one parameter of every action, then the other.

An entropy depends on the unit of length. `entropy` is that of u, so 0 for a uniform policy and negative for any other:
what Dai et al. (MIDL 2019) print. `box_entropy` is that of x and larger by the sum of log(high - low).
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Beta, Normal, kl_divergence
from torch.nn.functional import softplus

Kind = Literal["beta", "gaussian"]

_EDGE = 1e-6
"""How near to the edges of [0, 1] an action may lie: the densities are 0 or infinite on them."""
_LOG_SCALE = (-5.0, 2.0)
"""Bounds of the Gaussian's log standard deviation, in units of the squashed variable."""
_NODES = 32
"""Of Gauss-Hermite quadrature, for the Gaussian's entropy."""


class Box:
    """The intervals that actions come from.

    Args:
        low: lower bounds, one per action.
        high: upper bounds.

    Raises:
        ValueError: their numbers differ, or an interval is empty or infinite.
    """

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        if len(low) != len(high) or not all(math.isfinite(b - a) and a < b for a, b in zip(low, high, strict=True)):
            raise ValueError(f"an action box needs finite bounds, low below high, got {low} and {high}")
        self._low, self._size = tuple(low), tuple(b - a for a, b in zip(low, high, strict=True))
        self._known: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        self.log_volume = sum(math.log(size) for size in self._size)

    def to_box(self, unit: Tensor) -> Tensor:
        """Actions (..., A) in the box for u in [0, 1]."""
        low, size = self._bounds(unit)
        return low + size * unit

    def to_unit(self, actions: Tensor) -> Tensor:
        """The reverse, kept inside (0, 1)."""
        low, size = self._bounds(actions)
        return ((actions - low) / size).clamp(_EDGE, 1 - _EDGE)

    def _bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Lower bounds and sizes as tensors; made once per device, since copying to a GPU waits for it."""
        key = like.device, like.dtype
        if key not in self._known:
            self._known[key] = like.new_tensor(self._low), like.new_tensor(self._size)
        return self._known[key]


class BoundedPolicy(ABC):
    """Independent actions in a box, one distribution for each of B samples."""

    box: Box

    @classmethod
    @abstractmethod
    def from_logits(cls, logits: Tensor, box: Box) -> BoundedPolicy:
        """What a network's output (B, 2 A) stands for."""

    @property
    @abstractmethod
    def deterministic(self) -> Tensor:
        """The action (B, A) taken where nothing is to be explored."""

    @abstractmethod
    def rsample(self) -> Tensor:
        """Draw actions (B, A), with gradients."""

    def sample(self) -> Tensor:
        """Draw actions (B, A)."""
        with torch.no_grad():
            return self.rsample()

    @abstractmethod
    def log_prob(self, actions: Tensor) -> Tensor:
        """Log density (B,) on the box of actions (B, A), by the change of variables x = low + (high - low) u."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Differential entropy (B,) of u on the unit box, nats: at most 0."""

    def box_entropy(self) -> Tensor:
        """Differential entropy (B,) of the actions on their box, nats."""
        return self.entropy() + self.box.log_volume

    @abstractmethod
    def kl(self, other: BoundedPolicy) -> Tensor:
        """Kullback-Leibler divergence (B,) to another of the same kind and box, nats."""


class BoundedBeta(BoundedPolicy):
    """Beta distributions on the box; unimodal, since alpha = softplus + 1 and beta likewise exceed 1.

    Args:
        alpha: (B, A), first parameters.
        beta: (B, A), second parameters.
        box: of the actions.

    Source: Dai et al., MIDL 2019, sec. 2.3; Chou et al., ICML 2017.
    """

    def __init__(self, alpha: Tensor, beta: Tensor, box: Box) -> None:
        self.box = box
        self.unit = Beta(alpha, beta, validate_args=False)

    @classmethod
    def from_logits(cls, logits: Tensor, box: Box) -> BoundedBeta:
        """What a network's output (B, 2 A) stands for."""
        alpha, beta = (softplus(logits) + 1).chunk(2, dim=-1)
        return cls(alpha, beta, box)

    @property
    def deterministic(self) -> Tensor:
        """The mean, alpha / (alpha + beta) on the box."""
        return self.box.to_box(self.unit.mean)

    def rsample(self) -> Tensor:
        """Draw actions (B, A), with gradients."""
        return self.box.to_box(self.unit.rsample().clamp(_EDGE, 1 - _EDGE))

    def log_prob(self, actions: Tensor) -> Tensor:
        """See `BoundedPolicy.log_prob`."""
        return self.unit.log_prob(self.box.to_unit(actions)).sum(-1) - self.box.log_volume

    def entropy(self) -> Tensor:
        """See `BoundedPolicy.entropy`."""
        return self.unit.entropy().sum(-1)

    def kl(self, other: BoundedPolicy) -> Tensor:
        """See `BoundedPolicy.kl`."""
        assert isinstance(other, BoundedBeta)
        return kl_divergence(self.unit, other.unit).sum(-1)


class SquashedGaussian(BoundedPolicy):
    """Normal variables z through u = (1 + tanh z) / 2 = sigmoid(2 z) on the box: the usual policy, for comparison.

    Args:
        loc: (B, A), means of z.
        scale: (B, A), standard deviations of z.
        box: of the actions.

    Source: Haarnoja et al., ICML 2018, appendix C.
    """

    def __init__(self, loc: Tensor, scale: Tensor, box: Box) -> None:
        self.box = box
        self.normal = Normal(loc, scale, validate_args=False)

    @classmethod
    def from_logits(cls, logits: Tensor, box: Box) -> SquashedGaussian:
        """What a network's output (B, 2 A) stands for: means, then log standard deviations (bounded to [-5, 2])."""
        loc, log_scale = logits.chunk(2, dim=-1)
        return cls(loc, log_scale.clamp(*_LOG_SCALE).exp(), box)

    @property
    def deterministic(self) -> Tensor:
        """The median: what the mean of z becomes."""
        return self.box.to_box(torch.sigmoid(2 * self.normal.mean))

    def rsample(self) -> Tensor:
        """Draw actions (B, A), with gradients."""
        return self.box.to_box(torch.sigmoid(2 * self.normal.rsample()).clamp(_EDGE, 1 - _EDGE))

    def log_prob(self, actions: Tensor) -> Tensor:
        """See `BoundedPolicy.log_prob`."""
        z = torch.logit(self.box.to_unit(actions)) / 2
        return (self.normal.log_prob(z) - _log_slope(z)).sum(-1) - self.box.log_volume

    def entropy(self) -> Tensor:
        """See `BoundedPolicy.entropy`. E[log du/dz] has no closed form; Gauss-Hermite quadrature."""
        nodes, weights = (torch.as_tensor(values).to(self.normal.mean) for values in _hermite())
        z = self.normal.mean[..., None] + self.normal.stddev[..., None] * nodes
        return (self.normal.entropy() + (_log_slope(z) * weights).sum(-1)).sum(-1)

    def kl(self, other: BoundedPolicy) -> Tensor:
        """See `BoundedPolicy.kl`. Exact: squashing both by the same map does not change it."""
        assert isinstance(other, SquashedGaussian)
        return kl_divergence(self.normal, other.normal).sum(-1)


POLICIES: dict[Kind, type[BoundedPolicy]] = {"beta": BoundedBeta, "gaussian": SquashedGaussian}


def _log_slope(z: Tensor) -> Tensor:
    """Log du/dz of u = sigmoid(2 z), without overflow."""
    return math.log(2.0) - softplus(2 * z) - softplus(-2 * z)


@functools.cache
def _hermite() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for the expectation under a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    return nodes, weights / weights.sum()
