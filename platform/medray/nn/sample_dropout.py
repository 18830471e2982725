"""Dropout whose draws belong to the sample, not to its place in a batch: the same on any number of workers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SampleDropout(nn.Module):
    """Like `torch.nn.Dropout`, with a seed for each sample that `seed_dropout` sets before a training step.

    Args:
        p: share of the activations set to 0 while training.
        place: added to the seeds; tells apart the layers of a network.
    """

    def __init__(self, p: float, place: int = 0) -> None:
        super().__init__()
        self.p, self.place = p, place
        self.seeds: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) to the same shape.

        Raises:
            RuntimeError: while training, without a seed for each of the B samples.
        """
        if not self.training or self.p == 0:
            return x
        if len(self.seeds) != len(x):
            raise RuntimeError(f"dropout has {len(self.seeds)} seeds for {len(x)} samples; call seed_dropout first")
        keep = torch.stack([self._draws(seed, x[0]) for seed in self.seeds]) >= self.p
        return x * keep.to(x.device, x.dtype) / (1 - self.p)

    def _draws(self, seed: int, one: Tensor) -> Tensor:
        return torch.rand(one.shape, generator=torch.Generator().manual_seed(seed + self.place))


def seed_dropout(network: nn.Module, seeds: Tensor) -> None:
    """Tell every `SampleDropout` of a network which samples come next.

    Args:
        network: of any kind.
        seeds: (B,), whole numbers below 2^62, drawn with the sample (`Learner.sample_generator`).
    """
    for module in network.modules():
        if isinstance(module, SampleDropout):
            module.seeds = seeds.tolist()
