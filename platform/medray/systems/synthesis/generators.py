"""Generators that turn one image into another of the same size. Shared by translation systems.

Images are (B, 3, H, W) in [-1, 1].
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medray.nn.strips import Rows, add_projected, convolve_strips, normalize_, rows_of, rows_upsampled_beside

_SLOPE = 0.2
_STRIPS_FROM_PX = 512 * 512


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with instance norm and leaky ReLU beside a 1x1 projection (He et al., CVPR 2016)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.projection = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H, W)."""
        inner = F.leaky_relu(F.instance_norm(self.first(x)), _SLOPE)
        return F.leaky_relu(F.instance_norm(self.second(inner)) + self.projection(x), _SLOPE)

    def in_strips(self, rows: Rows, height: int, width: int) -> Tensor:
        """The same for one large image, with one buffer of the result's size."""
        buffer = torch.empty(1, self.first.out_channels, height, width)
        F.leaky_relu_(normalize_(convolve_strips(self.first, rows, buffer)), _SLOPE)
        normalize_(convolve_strips(self.second, rows_of(buffer), buffer))
        return F.leaky_relu_(add_projected(self.projection, rows, buffer), _SLOPE)


class ResidualUNet(nn.Module):
    """U-Net of residual blocks with max pooling down and nearest neighbors up (de Bel et al., MIDL 2019, sec. 2.2).

    Args:
        depth: how often the size is halved and doubled; H and W are multiples of 2 ** depth.
        width: channels at full size, doubled at each level.
    """

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(ResidualBlock(i, o) for i, o in zip([3, *widths], widths, strict=False))
        self.decoder = nn.ModuleList(
            ResidualBlock(wide + narrow, narrow) for narrow, wide in reversed(list(itertools.pairwise(widths)))
        )
        self.last = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 3, H, W). A large image without gradients goes through in strips, on the CPU."""
        if not torch.is_grad_enabled() and x.device.type == "cpu" and x.shape[-2] * x.shape[-1] > _STRIPS_FROM_PX:
            return torch.cat([self._large(image[None]) for image in x])
        seen: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            seen.append(x)
        x = seen.pop()
        for block in self.decoder:
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), seen.pop()], dim=1))
        return torch.tanh(self.last(x))

    def _large(self, x: Tensor) -> Tensor:
        seen: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = F.max_pool2d(x, 2) if level else x
            x = block.in_strips(rows_of(x), *x.shape[-2:])  # type: ignore[operator]
            if level < len(self.decoder):
                seen.append(
                    x.half()
                )  # they wait for the decoder; of 8 bits of color this takes less than a tenth of a level
        for block in self.decoder:
            beside = seen.pop()
            x = block.in_strips(rows_upsampled_beside(x, beside), *beside.shape[-2:])  # type: ignore[operator]
            del beside  # the largest of all
        return torch.tanh(self.last(x))


class ResnetGenerator(nn.Module):
    """Generator of Johnson et al. (ECCV 2016) as CycleGAN has it: two strides down, nine residual blocks, two up."""

    def __init__(self, width: int, num_blocks: int = 9) -> None:
        super().__init__()
        wide = 4 * width
        self.model = nn.Sequential(
            *(nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU()),
            *_strided(nn.Conv2d(width, 2 * width, 3, 2, 1)),
            *_strided(nn.Conv2d(2 * width, wide, 3, 2, 1)),
            *(_JohnsonBlock(wide) for _ in range(num_blocks)),
            *_strided(nn.ConvTranspose2d(wide, 2 * width, 3, 2, 1, output_padding=1)),
            *_strided(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1)),
            *(nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 3, H, W); H and W are multiples of 4."""
        out: Tensor = self.model(x)
        return out


class _JohnsonBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        half = (nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels))
        other = (nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels))
        self.body = nn.Sequential(*half, nn.ReLU(), *other)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


def _strided(convolution: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, ...]:
    return convolution, nn.InstanceNorm2d(convolution.out_channels), nn.ReLU()
