"""The networks that a config asks for, and those that a checkpoint holds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from medray.nn.unet import UNet
from medray.nn.weights import load_network
from medray.systems.shoulder.css_config import CssConfig
from medray.systems.shoulder.css_losses import LossWeights
from medray.systems.shoulder.css_networks import BlockShape, Classifier, ClassifierHead, Decoder, Encoder, Segmenter
from medray.systems.shoulder.css_peers import DeepLabV3Plus
from medray.systems.shoulder.css_released import ReleasedDecoder, ReleasedEncoder, ReleasedHead, ReleasedSpectrumNet
from medray.systems.shoulder.css_substitution import ComplexNet, MagnitudeNet

_SHARES = (0.9920, 0.0076, 0.0004)
"""Of the pixels that are background, tendon and tear (table 3)."""


def make_segmenter(config: CssConfig) -> nn.Module:
    """M_seg or a peer: (B, 1, H, W) to logits (B, 3, H, W). The last layer starts at the classes' shares of table 3.

    With 0.04 % of tear pixels an even start spends most of a short training on learning how rare they are (as in
    RetinaNet, Lin et al., ICCV 2017, sec. 4.1).
    """
    network = _segmenter(config)
    last = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.out_channels == 3][-1]
    assert last.bias is not None
    with torch.no_grad():
        last.bias.copy_(torch.tensor(_SHARES).log())
    return network


def _segmenter(config: CssConfig) -> nn.Module:
    if config.network == "unet":
        return UNet(1, 3, config.widths)
    if config.network == "deeplabv3plus":
        return DeepLabV3Plus(config.widths[0])
    if config.network == "released":
        return Segmenter(ReleasedEncoder(_released_widths(config)), ReleasedDecoder(_released_widths(config)))
    shape = BlockShape(config.growth, config.dilations)
    return Segmenter(Encoder(config.widths, shape), Decoder(config.widths, shape))


def make_head(config: CssConfig) -> nn.Module:
    """What the classifier has of its own."""
    if config.network == "released":
        return ReleasedHead(_released_widths(config), config.size_px)
    return ClassifierHead(config.widths[-1], BlockShape(config.growth, config.dilations))


def make_spectrum_net(config: CssConfig) -> nn.Module:
    """S."""
    if config.spectrum_net == "released":
        return ReleasedSpectrumNet(config.widths[0])
    return MagnitudeNet() if config.spectrum_net == "magnitude" else ComplexNet()


def make_networks(config: CssConfig) -> nn.ModuleDict:
    """All that is trained together: M_seg under ``segmenter`` and whatever helps it."""
    networks = nn.ModuleDict({"segmenter": make_segmenter(config)})
    if config.classify:
        networks["classifier"] = make_head(config)
    if config.substitute == "sl":
        networks["substitution"] = make_spectrum_net(config)
    networks["weights"] = LossWeights(config.alphas, trainable=config.weights == "uncertainty")
    return networks


def _released_widths(config: CssConfig) -> tuple[int, ...]:
    """Five levels that double: 64 to 1024 where the first is 64."""
    return tuple(config.widths[0] * 2**level for level in range(5))


def trained_segmenter(config: CssConfig, weights: Path | None) -> nn.Module:
    """M_seg with its weights, which are all that the file needs to hold."""
    network = make_segmenter(config)
    if weights is not None:
        load_network(network, weights, prefix="segmenter.")
    return network.eval()


def trained_classifier(config: CssConfig, segmenter: nn.Module, weights: Path) -> nn.Module:
    """M_clf on the encoder of a trained M_seg."""
    head = make_head(config)
    load_network(head, weights, prefix="classifier.")
    return Classifier(segmenter.get_submodule("encoder"), head).eval()
