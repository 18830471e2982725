"""The five losses of CSS-Net (table 2) and how they are weighed.

L3 is in `css_substitution` (the text's) and `css_features` (the authors' code's). Every function gives one value per
image, so that means are right however a batch is spread over workers. Shape letters: B images, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medray.learner import Step, SumCount

LOSSES = ("classification_loss", "segmentation_loss", "content_loss", "identity_loss", "absence_loss")
"""L1 to L5."""


def classification_loss(logits: Tensor, present: Tensor) -> Tensor:
    """L1: cross-entropy of tear present or absent, with the minus that table 2 leaves out.

    Args:
        logits: (B, 2).
        present: 0 or 1, int64 (B,).

    Returns:
        (B,).
    """
    return F.cross_entropy(logits.float(), present, reduction="none")


def segmentation_loss(logits: Tensor, labels: Tensor, over: Literal["sum", "mean"] = "sum") -> Tensor:
    """L2: cross-entropy of the pixels' classes, with its minus.

    Args:
        logits: (B, 3, H, W).
        labels: 0, 1 or 2, int64 (B, H, W).
        over: the pixels' sum, as in table 2, or their mean.

    Returns:
        (B,).
    """
    each = F.cross_entropy(logits.float(), labels, reduction="none")
    return each.sum(dim=(1, 2)) if over == "sum" else each.mean(dim=(1, 2))


def identity_loss(of_nothing: Tensor) -> Tensor:
    """L4: |I - M_sl(I)|_1 of an image without tear: the sum over pixels of what S makes of an empty spectrum.

    Args:
        of_nothing: IDFT(S(0)), (B, 1, H, W).

    Returns:
        (B,).
    """
    return of_nothing.abs().sum(dim=(1, 2, 3))


def absence_loss(logits: Tensor) -> Tensor:
    """L5: 1 - p_0, where p_0 is the classifier's probability that a substituted image shows no tear.

    Args:
        logits: of the substituted images, (B, 2).

    Returns:
        (B,).
    """
    return 1 - logits.float().softmax(dim=1)[:, 0]


class LossWeights(nn.Module):
    """alpha_1 to alpha_5 of table 2, trainable without running off.

    Trainable factors in a plain sum fall without end, since a smaller factor is always a smaller sum. Uncertainty
    weighting (Kendall et al., CVPR 2018) has exp(-s_i) L_i + s_i instead; s_i starts where exp(-s_i) = alpha_i.

    Args:
        alphas: at the start, all above 0.
        trainable: false keeps them.
    """

    def __init__(self, alphas: Sequence[float], *, trainable: bool) -> None:
        super().__init__()
        start = torch.tensor([-math.log(alpha) for alpha in alphas])
        self.trainable = trainable
        self.log_scale = nn.Parameter(start, requires_grad=trainable)

    def total(self, losses: Mapping[str, SumCount], step: Step) -> Tensor:
        """sum_i alpha_i L_i over all workers, by name of `LOSSES`; a loss without images adds nothing.

        Called with the same names on every worker, since workers wait for each other.
        """
        parts = []
        for index, name in enumerate(LOSSES):
            if name not in losses:
                continue
            loss, scale = losses[name], self.log_scale[index]
            weighted = (-scale).exp() * loss.total
            parts.append(step.mean(weighted + scale * loss.count if self.trainable else weighted, loss.count))
        return torch.stack(parts).sum()
