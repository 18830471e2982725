"""Scores of an enlarged image against the high-resolution one, under the names that rows and curves have."""

from __future__ import annotations

import torch
from torch import Tensor

from medray.metrics.super_resolution import VIF_MIN_PX, perceptual_distance, psnr_db, ssim, vif
from medray.systems.super_resolution.perceptual import Features


@torch.no_grad()
def image_scores(
    image: Tensor, reference: Tensor, features: Features | None, *, brief: bool = False
) -> dict[str, float]:
    """``psnr_db``, ``ssim``, ``vif`` from 41 pixels on, and ``perceptual_distance`` where there are features.

    Args:
        image: (1, H, W) in [0, 1].
        reference: likewise, at least 11 x 11.
        features: what perceptual_distance compares.
        brief: leave ``vif`` out, which takes as long as the others together.

    Raises:
        ValueError: the shapes differ or a side is too short.
    """
    mine, other = image[0].cpu().numpy(), reference[0].cpu().numpy()
    found = {"psnr_db": psnr_db(mine, other), "ssim": ssim(mine, other)}
    if not brief and min(mine.shape) >= VIF_MIN_PX:
        found["vif"] = vif(mine, other)
    if features is not None:
        features.to(image.device)
        found["perceptual_distance"] = float(perceptual_distance(features(image[None]), features(reference[None])))
    return found
