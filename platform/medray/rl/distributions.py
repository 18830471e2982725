"""The bounded policies of `medray.nn.bounded` as RLlib distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from ray.rllib.core.distribution.distribution import Distribution
from ray.rllib.core.distribution.torch.torch_distribution import TorchDeterministic
from torch import Tensor

from medray.nn.bounded import BoundedPolicy


class BoundedDistribution(Distribution):
    """A policy over the action box. RLlib makes one from logits alone, so a module takes ``for_policy(...)`` of it.

    RLlib's own squashed Gaussian has neither entropy nor divergence, and its deterministic action is left unsquashed.
    """

    def __init__(self, policy: BoundedPolicy) -> None:
        super().__init__()
        self.policy = policy

    @classmethod
    def for_policy(cls, make: Callable[[Tensor], BoundedPolicy]) -> type[BoundedDistribution]:
        """The class for one problem: ``make`` turns logits (B, 2 A) into a policy, as `PolicyProblem.policy` does."""

        class OfProblem(cls):  # type: ignore[misc,valid-type]
            @classmethod
            def from_logits(cls, logits: Tensor, **kwargs: Any) -> BoundedDistribution:
                return cls(make(logits))

        return OfProblem

    def sample(self, *, sample_shape: tuple[int, ...] | None = None, **kwargs: Any) -> Tensor:
        """Actions (B, A)."""
        return self.policy.sample()

    def rsample(self, *, sample_shape: tuple[int, ...] | None = None, **kwargs: Any) -> Tensor:
        """Actions (B, A), with gradients."""
        return self.policy.rsample()

    def logp(self, value: Tensor, **kwargs: Any) -> Tensor:
        """Log density (B,) on the action box."""
        return self.policy.log_prob(value)

    def entropy(self, **kwargs: Any) -> Tensor:
        """Entropy (B,) on the unit box, nats."""
        return self.policy.entropy()

    def kl(self, other: Distribution, **kwargs: Any) -> Tensor:
        """Divergence (B,) to another, nats."""
        return self.policy.kl(other.policy)

    def to_deterministic(self) -> TorchDeterministic:
        """The action taken where nothing is explored."""
        return TorchDeterministic(loc=self.policy.deterministic)

    @staticmethod
    def required_input_dim(space: gymnasium.Space[Any], **kwargs: Any) -> int:
        """Logits per sample."""
        return 2 * int(np.prod(space.shape or ()))
