"""M-VAAL's networks: a VAE with one encoder and two decoders, and a critic of its latents.

Shape letters: N images, H rows, W columns, C channels of a gray image (1, or 3 equal ones), Z latents.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

COPIES = 3
"""Equal channels of the paper's images (sec. 3.2)."""
_LOG_VARIANCE = 10.0
_EPS = 1e-8
Latent = Literal["sample", "mean"]
Norm = Literal["batch", "layer", "none"]


@dataclass(frozen=True)
class Coded:
    """What the VAE makes of N images.

    Attributes:
        z_mu: mean of q(z|x), (N, Z), float32.
        log_variance: its log variance, likewise.
        made: reconstructions of the main and, if it is decoded, of the auxiliary modality, (N, C, H, W), normalized.
    """

    z_mu: Tensor
    log_variance: Tensor
    made: tuple[Tensor, ...]

    def latent(self, which: Latent, noise: Tensor) -> Tensor:
        """A sample of q(z|x), (N, Z), from standard normal noise; or its mean."""
        return self.z_mu if which == "mean" else self.z_mu + (0.5 * self.log_variance).exp() * noise


class TwoDecoderVae(nn.Module):
    """One encoder of the main modality; a decoder for it and one for the auxiliary modality (fig. 1).

    Images come in as they are read, in [0, 1]; their normalization is a part of the weights. Three equal channels are
    one channel whose first weights are the sum of three: with the rate of those weights times three, Adam takes the
    same steps (`parameter_groups`), so nothing is gained by feeding a gray image three times.

    Args:
        image_size: H and W.
        channels: of the encoder's convolutions, each of which halves the image; the decoders mirror them.
        latent: Z.
        gray_channels: C.
        num_decoders: 2, or 1 for VAAL.
        decode: what is decoded, see `Coded.latent`.
    """

    statistics: Tensor
    """Mean and standard deviation of each modality, (2, 2)."""

    def __init__(
        self,
        image_size: int,
        channels: Sequence[int] = (128, 256, 512, 1024),
        latent: int = 64,
        *,
        gray_channels: int = 1,
        num_decoders: int = 2,
        decode: Latent = "sample",
    ) -> None:
        super().__init__()
        self.gray_channels, self.decode = gray_channels, decode
        self.register_buffer("statistics", torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
        side = image_size >> len(channels)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((gray_channels, *channels)):
            layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * side**2, 2 * latent))
        self.decoders = nn.ModuleList(_decoder(side, channels, latent, gray_channels) for _ in range(num_decoders))
        self.apply(_kaiming)

    def normalized(self, images: Tensor, modality: int) -> Tensor:
        """Images of a modality (0: main, 1: auxiliary), (N, 1, H, W), as the network takes and makes them."""
        mean, deviation = self.statistics[modality]
        return ((images - mean) / deviation).expand(-1, self.gray_channels, -1, -1)

    def encode(self, main: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 1, H, W) to mean and log variance (within 10 of 0) of q(z|x_m1), (N, Z) each, float32."""
        z_mu, log_variance = self.encoder(self.normalized(main, 0)).float().chunk(2, dim=1)
        return z_mu, log_variance.clamp(-_LOG_VARIANCE, _LOG_VARIANCE)

    def forward(self, main: Tensor, noise: Tensor) -> Coded:
        """Images (N, 1, H, W) and standard normal noise (N, Z)."""
        coded = Coded(*self.encode(main), made=())
        z = coded.latent(self.decode, noise)
        return Coded(coded.z_mu, coded.log_variance, tuple(decoder(z) for decoder in self.decoders))

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """For Adam: with one channel, every step is the one that three channels would take at this rate.

        Each copy of the first weights would get the same gradient and take the same step, so their sum takes three of
        them; and of the mean over three outputs each gets a third of the gradient, against which Adam's eps is larger.
        """
        copies = COPIES // self.gray_channels
        first = [self.encoder[0].weight]
        last = [p for decoder in self.decoders for p in decoder[-1].parameters()]  # type: ignore[index]
        special = {id(p) for p in (*first, *last)}
        return [
            {"params": [p for p in self.parameters() if id(p) not in special], "lr": lr},
            {"params": first, "lr": copies * lr},
            {"params": last, "lr": lr, "eps": copies * _EPS},
        ]


def _decoder(side: int, channels: Sequence[int], latent: int, gray_channels: int) -> nn.Sequential:
    widths = (*reversed(channels), max(1, channels[0] // 2))
    layers: list[nn.Module] = [
        nn.Linear(latent, widths[0] * side**2),
        nn.Unflatten(1, (widths[0], side, side)),
    ]
    for before, after in itertools.pairwise(widths):
        layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, ToImage(widths[-1], gray_channels, 1))


class ToImage(nn.Conv2d):
    """A 1 x 1 convolution to a single channel or a few: on CPUs the general one takes ten times as long for so few."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, H, W)."""
        assert self.bias is not None
        return torch.einsum("oi,nihw->nohw", self.weight[:, :, 0, 0], x) + self.bias[:, None, None]


_NORMS: dict[Norm, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
    "none": lambda width: nn.Identity(),
}


class Critic(nn.Module):
    """D: latents (N, Z) to scores (N,), high for labelled images. No normalization after the last layer.

    Args:
        latent: Z.
        channels: of the hidden layers.
        norm: after each of them.
        sigmoid: put the score in (0, 1).
    """

    def __init__(
        self, latent: int = 64, channels: Sequence[int] = (512, 512), *, norm: Norm = "batch", sigmoid: bool = False
    ) -> None:
        super().__init__()
        widths = (latent, *channels)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), _NORMS[norm](after), nn.ReLU()]
        layers.append(nn.Linear(widths[-1], 1))
        self.layers = nn.Sequential(*layers, *([nn.Sigmoid()] if sigmoid else []))
        self.apply(_kaiming)

    def forward(self, z: Tensor) -> Tensor:
        """Scores (N,)."""
        scores: Tensor = self.layers(z)[:, 0]
        return scores


def _kaiming(module: nn.Module) -> None:
    """He's initialization, as in VAAL."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
