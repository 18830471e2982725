"""From a config to its networks."""

from __future__ import annotations

from torch import nn

from medray.systems.super_resolution.blimsr_config import BlimsrConfig
from medray.systems.super_resolution.blimsr_networks import Generator, ReleasedGenerator, ResnetDiscriminator
from medray.systems.super_resolution.peer_networks import Bicubic, PairDiscriminator

_EDSR_SCALE = 0.1
"""Of EDSR's residual branches (Lim et al., CVPRW 2017); its blocks have the attention heads inside."""


def make_generator(config: BlimsrConfig) -> nn.Module:
    """What enlarges (B, 1, h, w) in [0, 1] to (B, 1, 4h, 4w), not clamped; bicubic has no weights."""
    size = (config.num_blocks, config.num_channels, config.reduction)
    if config.generator == "bicubic":
        return Bicubic()
    if config.generator == "edsr_mhca":
        return Generator(*size, "mhca", block_scale=_EDSR_SCALE)
    if config.generator == "medsrgan":
        return Generator(*size, "1x1")
    if config.skeleton == "released":
        return ReleasedGenerator(config.num_groups, *size, config.attention)
    return Generator(*size, config.attention)


def make_discriminator(config: BlimsrConfig) -> nn.Module:
    """What maps images (B, 1, 4h, 4w) and their low resolutions (B, 1, h, w) to logits of being real, (B,)."""
    if config.discriminator == "medsrgan":
        return PairDiscriminator(config.disc_channels)
    return ResnetDiscriminator(config.disc_channels, released=config.skeleton == "released")
