"""The classic U-Net (Ronneberger et al. 2015) with any number of levels, padded so that the size is kept.

The blocks are MONAI's; its own `BasicUNet` has five levels, always.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from monai.networks.nets.basic_unet import Down, TwoConv, UpCat
from torch import Tensor, nn

INSTANCE_NORM = ("instance", {"affine": True})


class UNet(nn.Module):
    """Two 3 x 3 convolutions per level, maxima over 2 x 2 between levels, transposed convolutions on the way up.

    Each convolution is followed by instance normalization and a ReLU: statistics of one image alone, so results do not
    depend on the batch.

    Args:
        in_channels: of the images.
        out_channels: of the logits.
        channels: of each level, from the finest (Ronneberger et al.: 64 to 1024).
        spatial_dims: 2 or 3.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        *,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        shared: dict[str, Any] = {"act": "relu", "norm": INSTANCE_NORM, "bias": True}
        self.first = TwoConv(spatial_dims, in_channels, channels[0], **shared)
        pairs = list(itertools.pairwise(channels))
        self.down = nn.ModuleList(Down(spatial_dims, fine, coarse, **shared) for fine, coarse in pairs)
        self.up = nn.ModuleList(UpCat(spatial_dims, coarse, fine, fine, **shared) for fine, coarse in reversed(pairs))
        self.last = (nn.Conv2d if spatial_dims == 2 else nn.Conv3d)(channels[0], out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, in_channels, *s), each side at least 2^levels, to logits (B, out_channels, *s)."""
        levels = [self.first(images)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for up in self.up:
            x = up(x, levels.pop())
        logits: Tensor = self.last(x)
        return logits
