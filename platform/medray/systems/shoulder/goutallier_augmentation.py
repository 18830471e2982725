"""What is done to copies of rare cases, and to images for the segmentation: turned, flipped, cut to their middle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CLOSEST_CROP = 0.8
"""Sides of the smallest center crop over those of the image; the paper gives none."""


@dataclass(frozen=True)
class Turn:
    """One draw.

    Attributes:
        angle_deg: counterclockwise on the page.
        flip: left to right.
        zoom: sides of the part that is kept over those of the image, 1 at most.
    """

    angle_deg: float
    flip: bool
    zoom: float

    def apply(self, images: Tensor) -> Tensor:
        """(C, S, S) to the same shape, linear; what comes in from beyond the border is the mirrored image."""
        angle = math.radians(self.angle_deg)
        cos, sin = self.zoom * math.cos(angle), self.zoom * math.sin(angle)
        sign = -1.0 if self.flip else 1.0
        matrix = torch.tensor([[[sign * cos, -sign * sin, 0.0], [sin, cos, 0.0]]])
        grid = F.affine_grid(matrix, [1, *images.shape], align_corners=False)
        return F.grid_sample(images[None], grid, padding_mode="reflection", align_corners=False)[0]


def drawn_turn(generator: torch.Generator, rotation_deg: float, *, closest_crop: float = 1.0) -> Turn:
    """A rotation up to ``rotation_deg`` either way, a flip of every other image, a center crop down to a share."""
    draws = torch.rand(3, generator=generator).tolist()
    zoom = 1 - (1 - closest_crop) * draws[2]
    return Turn((2 * draws[0] - 1) * rotation_deg, draws[1] < 0.5, zoom)
