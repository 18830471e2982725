"""The two networks: a U-Net for the muscle, and an ImageNet classifier with one output for its fat."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from monai.networks.nets.resnet import resnet50
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from medray.nn.inception import InceptionV3
from medray.nn.unet import UNet
from medray.nn.vgg import IMAGENET_MEAN, IMAGENET_STD, Vgg
from medray.nn.weights import load_network, load_published, read_state_dict
from medray.systems.shoulder.goutallier_config import MIN_SIZE_PX, Backbone, GoutallierConfig

log = logging.getLogger(__name__)

NetworkT = TypeVar("NetworkT", bound=nn.Module)

_HEAD = {"vgg19": "classifier", "small": "classifier", "resnet50": "fc", "inception_v3": "fc"}
_PUBLISHED = {
    "vgg19": "torchvision's VGG-19",
    "resnet50": "torchvision's ResNet-50",
    "inception_v3": "torchvision's Inception-v3",
}
_INCEPTION = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
"""What the published Inception-v3, whose weights come from TensorFlow, was trained with: pixels from -1 to 1."""
_BATCH = 16
_LAST = {"vgg19": "classifier.6", "resnet50": "fc", "inception_v3": "fc"}


def make_segmenter(config: GoutallierConfig) -> UNet:
    """A U-Net with one logit: muscle."""
    return UNet(1, 1, config.channels)


class Grader(nn.Module):
    """An ImageNet classifier on a gray image three times, with one logit: risky.

    Args:
        backbone: which.
        frozen: whether everything but the fully connected layers stays as it is, its batch statistics included.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, *, frozen: bool) -> None:
        super().__init__()
        self.kind, self.frozen = backbone, frozen
        self.backbone = _make_backbone(backbone)
        mean, std = _INCEPTION if backbone == "inception_v3" else (IMAGENET_MEAN, IMAGENET_STD)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        if frozen:
            self.backbone.requires_grad_(False)
            getattr(self.backbone, _HEAD[backbone]).requires_grad_(True)

    @property
    def explained_layer(self) -> str:
        """The layer whose output attention maps weigh: the last with spatial axes."""
        if isinstance(self.backbone, Vgg):
            return f"backbone.{self.backbone.last_convolution}"
        return "backbone.layer4" if self.kind == "resnet50" else "backbone.Mixed_7c"

    def train(self, mode: bool = True) -> Grader:
        """As for any module, but frozen layers keep the statistics they were published with."""
        super().train(mode)
        if self.frozen:
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, crops: Tensor) -> Tensor:
        """(B, 1, S, S) in [0, 1] to logits (B, 1)."""
        least = MIN_SIZE_PX[self.kind]
        if crops.shape[-1] < least:
            crops = F.interpolate(crops, (least, least), mode="bilinear", align_corners=False)
        logits: Tensor = self.backbone((crops - self.mean) / self.std)
        return logits


def _make_backbone(kind: Backbone) -> nn.Module:
    if kind == "vgg19":
        return Vgg(1)
    if kind == "small":
        return Vgg(1, channels=(8, 16, 32), convs=(1, 1, 1), hidden=32, grid=2, dropout=0.0)
    if kind == "inception_v3":
        return InceptionV3(1)
    network: nn.Module = resnet50(
        spatial_dims=2, n_input_channels=3, num_classes=1, shortcut_type="B", conv1_t_stride=2, bias_downsample=False
    )
    return network


def make_grader(config: GoutallierConfig) -> Grader:
    """The classifier as training begins: with published weights and frozen where they are given.

    Raises:
        UserError: the file cannot be read, or holds another network.
    """
    grader = Grader(config.backbone, frozen=bool(config.weights) and config.frozen)
    if config.weights:
        _load_imagenet(grader, Path(config.weights))
    elif config.backbone != "small":
        _warn_without_weights(config.backbone)
    return grader


def _load_imagenet(grader: Grader, path: Path) -> None:
    """All but the last layer, which has other outputs; what is for training on ImageNet alone is left out."""
    tensors = {name: tensor for name, tensor in read_state_dict(path).items() if not name.startswith("AuxLogits.")}
    load_published(grader.backbone, tensors, path, _PUBLISHED[grader.kind], last=_LAST[grader.kind])


@functools.cache
def _warn_without_weights(backbone: str) -> None:
    log.warning(
        "no --config.weights: all of %s is trained from random weights, since frozen they would see nothing; with few "
        "images and lr 1e-5 expect it to learn slowly and to grade worse than the paper's",
        backbone,
    )


def trained_segmenters(config: GoutallierConfig, files: Iterable[Path]) -> Iterator[UNet]:
    """The folds' U-Nets, one after the other, in evaluation mode."""
    return (_loaded(make_segmenter(config), path) for path in files)


def trained_graders(config: GoutallierConfig, files: Iterable[Path]) -> Iterator[Grader]:
    """The folds' classifiers, one after the other, in evaluation mode."""
    return (_loaded(Grader(config.backbone, frozen=False), path) for path in files)


def _loaded(network: NetworkT, path: Path) -> NetworkT:
    load_network(network, path, prefix="net.")
    return network.eval()


def probabilities(network: nn.Module, inputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Sigmoid of a network's logits for inputs (1, S, S) each: (N, S, S) of a U-Net, (N,) of a grader."""
    device, found = torch.device("cuda" if torch.cuda.is_available() else "cpu"), []
    network.to(device)
    with torch.no_grad():
        for start in range(0, len(inputs), _BATCH):
            logits = network(torch.from_numpy(np.stack(inputs[start : start + _BATCH])).to(device))
            found.append(torch.sigmoid(logits)[:, 0].cpu().numpy())
    return np.concatenate(found)
