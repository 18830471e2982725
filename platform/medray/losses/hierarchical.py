"""Cross entropies of a tree of labels whose logits are those of P(node | parent): Chen et al., MIDL 2019.

Shape letters: B images, M nodes. ``ancestors`` is (M, M): row m is true at m and at everything above it, A(m).
All losses are per image and node, (B, M); the paper sums over nodes and averages over images.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Form = Literal["powerset", "log1mexp", "max", "naive", "rescale"]
RESCALED_TO = 0.02
"""Lower end of the rescaled factors: four of them multiply to 1.6e-7 at least (table 2)."""


def conditional_loss(logits: Tensor, labels: Tensor, parents: Tensor) -> Tensor:
    """HLCP: cross entropy of each node where its parent is there, 0 elsewhere; roots count always (eq. 2).

    Args:
        logits: y, (B, M).
        labels: z, (B, M), 0 or 1.
        parents: (M,), position of each node's parent, -1 for a root.
    """
    applies = torch.where(parents >= 0, labels[:, parents.clamp_min(0)], torch.ones_like(labels))
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none") * applies


def log_probability(logits: Tensor, ancestors: Tensor) -> Tensor:
    """Logarithm of p_m, the sum of log sigmoid(y) over A(m) (eq. 3), (B, M)."""
    return F.logsigmoid(logits) @ ancestors.to(logits).T


def unconditional_loss(logits: Tensor, labels: Tensor, ancestors: Tensor, form: Form = "powerset") -> Tensor:
    """HLUP: cross entropy of p_m, the product of sigmoid(y) over A(m), at every node (eq. 4).

    Args:
        logits: y, (B, M).
        labels: z, (B, M), 0 or 1.
        ancestors: (M, M).
        form: how it is computed. ``powerset``: eqs. 5 to 7, stable, with 2^|A| terms; ``log1mexp``: the same value in
            |A| terms, stable up to logits of about 85, where 1 - p leaves float32; ``max``: powerset with its
            log-sum-exp replaced by the maximum, for deep trees (eq. 24); ``naive``: the product itself, infinite or nan
            for large logits; ``rescale``: the product of factors squeezed into [0.02, 1] (table 2).
    """
    if form == "log1mexp":
        log_p = log_probability(logits, ancestors)
        return -labels * log_p - (1 - labels) * _log1mexp(log_p)
    if form in ("naive", "rescale"):
        low = RESCALED_TO if form == "rescale" else 0.0
        factors = low + (1 - low) * torch.sigmoid(logits)[:, None, :]
        p = torch.where(ancestors, factors, torch.ones_like(factors)).prod(dim=2)
        return -labels * torch.log(p) - (1 - labels) * torch.log(1 - p)
    above = ancestors.to(logits)
    # Sum over A(m) of the cross entropies of its nodes' logits, all with the label of m (eq. 6).
    entropies = -labels * (F.logsigmoid(logits) @ above.T) - (1 - labels) * (F.logsigmoid(-logits) @ above.T)
    sums = _log_sum_exp_of_subsets(logits, ancestors) if form == "powerset" else _largest_subset(logits, ancestors)
    return entropies - (1 - labels) * (logits @ above.T + sums)  # gamma, eq. 7


def _log1mexp(value: Tensor) -> Tensor:
    """log(1 - exp(value)) for value <= 0, in the branch that keeps its digits (Maechler 2012)."""
    near = value > -math.log(2)
    low = torch.where(near, torch.full_like(value, -1.0), value)  # no nan reaches the gradient from the other branch
    high = torch.where(near, value, torch.full_like(value, -1.0))
    return torch.where(near, torch.log(-torch.expm1(high)), torch.log1p(-torch.exp(low)))


def _log_sum_exp_of_subsets(logits: Tensor, ancestors: Tensor) -> Tensor:
    """LSE over the non-empty subsets S of A(m) of the sum of -y over S, (B, M); nodes of one depth together."""
    depths = ancestors.sum(dim=1)
    columns = []
    for depth in depths.unique().tolist():
        nodes = (depths == depth).nonzero()[:, 0]
        members = ancestors[nodes].nonzero()[:, 1].view(len(nodes), depth)
        bits = torch.arange(1, 2**depth, device=logits.device)
        chosen = (bits[:, None] >> torch.arange(depth, device=logits.device)) & 1  # (subsets, depth)
        sums = -logits[:, members] @ chosen.to(logits).T  # (B, nodes, subsets)
        columns.append((nodes, torch.logsumexp(sums, dim=2)))
    order = torch.cat([nodes for nodes, _ in columns])
    result = torch.cat([values for _, values in columns], dim=1)
    return result[:, order.argsort()]


def _largest_subset(logits: Tensor, ancestors: Tensor) -> Tensor:
    """The largest of those sums: all negative logits together, or the smallest logit alone (eq. 24)."""
    values = -logits[:, None, :].expand(-1, len(ancestors), -1)
    inside = values.masked_fill(~ancestors, -torch.inf)
    positive = torch.where(ancestors, values.clamp_min(0), torch.zeros_like(values)).sum(dim=2)
    largest = inside.max(dim=2).values
    return torch.where(largest > 0, positive, largest)
