"""L3 as the authors' code has it: VGG-19's features of the two spectra, and their Gram matrices (content and style)."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from medray.nn.vgg import IMAGENET_MEAN, IMAGENET_STD, VGG19_CHANNELS, VGG19_CONVS, vgg_layers
from medray.nn.weights import load_published, read_state_dict

log = logging.getLogger(__name__)

_SMALL = (8, 16, 32, 32, 32)
_SEED = 19


class SpectrumFeatures(nn.Module):
    """Frozen features of spectra: after the first convolution of each block, and after the second of the last one.

    Args:
        path: torchvision's VGG-19; "" takes a small network of the same structure with random weights, always the same.

    Raises:
        UserError: the file cannot be read, or holds another network.
    """

    def __init__(self, path: str = "") -> None:
        super().__init__()
        self.features = vgg_layers(3, VGG19_CHANNELS if path else _SMALL, VGG19_CONVS)
        if path:
            tensors = {k: v for k, v in read_state_dict(Path(path)).items() if k.startswith("features.")}
            load_published(self, tensors, Path(path), "torchvision's VGG-19")
        else:
            _warn_of_stand_in()
            self._draw()
        ends = [index for index, layer in enumerate(self.features) if isinstance(layer, nn.MaxPool2d)]
        self.style = [1, *(end + 2 for end in ends[:-1])]
        """Layers whose output is compared by Gram matrices: the ReLUs of conv1_1 to conv5_1."""
        self.content = ends[-2] + 4
        """The ReLU of conv5_2."""
        self.requires_grad_(False)

    def _draw(self) -> None:
        generator = torch.Generator().manual_seed(_SEED)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, spectrum: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 2, H, W) of at least 16 x 16 to the content's features and the Gram matrices of the five blocks."""
        gray = torch.log1p((spectrum.square().sum(dim=1, keepdim=True) + 1e-12).sqrt())
        mean, std = (torch.tensor(v, device=gray.device).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        x, grams = (gray - mean) / std, []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.style:
                grams.append(_gram(x))
            if index == self.content:
                break
        return x, grams


def _gram(maps: Tensor) -> Tensor:
    flat = maps.flatten(2)
    return flat @ flat.transpose(1, 2) / flat[0].numel()


def vgg_content_loss(features: SpectrumFeatures, substituted: Tensor, tendon: Tensor, *, signed: bool) -> Tensor:
    """Content and style between spectra (B, 2, H, W), one value per image, (B,).

    Args:
        features: what is compared.
        substituted: S(DFT(I * G(2))).
        tendon: DFT(I * G(1)).
        signed: the mean of the tendon's features less the substituted ones', as the code has it; it has no lower bound.
    """
    ours, our_grams = features(substituted)
    with torch.no_grad():
        theirs, their_grams = features(tendon)
    gaps = [theirs - ours, *(b - a for a, b in zip(our_grams, their_grams, strict=True))]
    return torch.stack([(gap if signed else gap.square()).flatten(1).mean(dim=1) for gap in gaps]).sum(dim=0)


@functools.cache
def _warn_of_stand_in() -> None:
    log.warning(
        "no --config.vgg19-weights: a small network with random weights stands in for VGG-19 in the content loss"
    )
