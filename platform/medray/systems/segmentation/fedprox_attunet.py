"""Breast tumors in ultrasound, segmented by one network that several hospitals train without pooling their images.

Gad et al., "A Novel Approach to Breast Cancer Segmentation Using U-Net Model with Attention Mechanisms and FedProx",
MIUA 2023. Every round the hospitals ("sites") start from the server's weights, train on their own images with a
proximal term that keeps them near, and send weights back; the server averages them.

Departs from the paper: the proximal term is anchored at the weights a site was sent, as in Li et al. (FedProx), not at
the site's own of the round before (eq. 1; variant ``own_anchor``); the learning rate is that of section 3.4 (1e-4), not
of 3.3 (variant ``listed_settings``); instance instead of unstated normalization; test images are cut off first, so that
no site has seen them (the paper's counts overlap). No differential privacy or secure aggregation is involved: weights
can reveal something about the images they were trained on.

Shape letters: B images, H rows, W columns. Networks see one gray channel of ``size`` x ``size`` pixels.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from monai.losses.dice import DiceLoss
from monai.networks.nets.basic_unet import TwoConv
from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import RandAdjustContrastd, RandShiftIntensityd
from monai.transforms.spatial.dictionary import RandAffined, RandFlipd
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.data.resized import ResizedReader
from medray.learner import Learner, Schedule, Step, SumCount, seed_of
from medray.metrics.segmentation import Confusion, confusion
from medray.system import (
    Workbench,
)
from medray.systems.segmentation.federation import Update, Weights

NETWORK = "unet."
"""What the names of the network's weights begin with."""


@dataclass(frozen=True, kw_only=True)
class FedProxConfig:
    """Federation, network and training; the defaults are the paper's where it says them."""

    training: Literal["federated", "local", "centralized"] = "federated"
    """Weights go around (paper); every site trains alone; or all images are pooled, which federation is to avoid."""
    mu: float = 0.1
    """Weight of the proximal term, mu/2 |w - w_global|^2 (eq. 1, paper 0.1); 0 is FedAvg."""
    rounds: int = 6
    """Communication rounds (paper 6)."""
    local_epochs: int = 10
    """Epochs of each site in a round (paper 10)."""
    aggregation: Literal["samples", "uniform"] = "samples"
    """Sites count by their images (Li et al.), or all alike."""
    participation: float = 1.0
    """Share of the sites that train in a round, drawn by the seed (paper 1)."""
    min_sites: int = 1
    """A round waits until as many sites have answered; others that are away are left out of it."""
    anchor: Literal["global", "own"] = "global"
    """What the proximal term holds on to: the weights sent by the server, or the site's own of the round before
    (eq. 1 as printed)."""
    keep_norm: bool = False
    """FedBN: a site goes on with its own normalization layers, only the others are averaged into what it is sent."""
    attention: bool = True
    """Attention gates on the skips (fig. 3); off is a plain U-Net."""
    channels: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Feature maps per level."""
    norm: Literal["instance", "batch"] = "instance"
    """Normalization; the paper does not say. Batch statistics differ between sites and are averaged with the rest."""
    size: int = 256
    """Rows and columns images are stretched to, px (the 32 x 32 gates of fig. 3 suggest 256)."""
    lr: float = 1e-4
    """Learning rate of Adam, started anew each round (paper 1e-4 in sec. 3.4)."""
    weight_decay: float = 0.0
    """Weight decay (the regularization parameter of sec. 3.3 would be 1e-3)."""
    batch_size: int = 16
    """Images per step (paper 16)."""
    augment: bool = True
    """Flips, rotations, translations, scaling, contrast and brightness (sec. 3.2; strengths are ours)."""
    sites: tuple[str, ...] = ()
    """Sites that take part, by the attribute ``site`` or else the folder; all that occur if left out."""
    test_fraction: float = 0.2
    """Share of each site's patients kept for the server's test, before anything is trained."""
    validation_fraction: float = 0.2
    """Share of each site's patients the site holds out to score the global model every round (paper 0.2)."""

    def __post_init__(self) -> None:
        smallest = 2 ** (len(self.channels) - 1)
        if self.size % smallest or self.size < 2 * smallest:
            raise ValueError(
                f"size must be a multiple of {smallest} and at least {2 * smallest} with "
                f"{len(self.channels)} levels, got {self.size}"
            )
        if not 0 < self.participation <= 1:
            raise ValueError(f"participation is a share above 0 and at most 1, got {self.participation}")
        if min(self.rounds, self.local_epochs, self.batch_size, self.min_sites) < 1 or self.mu < 0:
            raise ValueError("rounds, local_epochs, batch_size and min_sites start at 1 and mu at 0")


class AttentionGate(nn.Module):
    """Fig. 3: where in a skip connection to look, told by the level below.

    Args:
        skip: channels of x.
        gating: channels of g, which has half the rows and columns of x.
    """

    def __init__(self, skip: int, gating: int) -> None:
        super().__init__()
        inner = max(1, skip // 2)
        self.skip = nn.Conv2d(skip, inner, kernel_size=2, stride=2)
        self.gating = nn.Conv2d(gating, inner, kernel_size=1)
        self.score = nn.Conv2d(inner, 1, kernel_size=1)

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        """X (B, C, H, W) scaled by coefficients in (0, 1)."""
        coefficients = torch.sigmoid(self.score(functional.relu(self.skip(x) + self.gating(g))))
        return x * functional.interpolate(coefficients, size=x.shape[2:], mode="bilinear", align_corners=False)


class AttentionUNet(nn.Module):
    """Sec. 3.4: a U-Net whose skips pass through attention gates.

    Args:
        channels: feature maps per level, from the image down.
        norm: instance or batch.
        attention: off leaves the gates out.
    """

    def __init__(self, channels: Sequence[int], norm: str, *, attention: bool) -> None:
        super().__init__()
        block = functools.partial(TwoConv, 2, act="relu", norm=(norm, {"affine": True}), bias=False)
        pairs = list(itertools.pairwise(channels))
        self.down = nn.ModuleList(block(a, b) for a, b in [(1, channels[0]), *pairs])
        self.up = nn.ModuleList(nn.Conv2d(b, a, kernel_size=1) for a, b in pairs)
        self.gates = nn.ModuleList(AttentionGate(a, b) for a, b in pairs) if attention else None
        self.merge = nn.ModuleList(block(2 * a, a) for a, _ in pairs)
        self.head = nn.Conv2d(channels[0], 1, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, H, W) to logits of the same shape."""
        levels = [self.down[0](image)]
        for down in self.down[1:]:
            levels.append(down(functional.max_pool2d(levels[-1], 2)))
        x = levels.pop()
        for level in reversed(range(len(levels))):
            skip = levels[level] if self.gates is None else self.gates[level](levels[level], x)
            x = self.up[level](functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
            x = self.merge[level](torch.cat([skip, x], dim=1))
        return self.head(x)


def proximal_term(network: nn.Module, anchor: Mapping[str, Tensor]) -> Tensor:
    """|w - w_anchor|^2 / 2 over the parameters (eq. 1), without mu."""
    terms = [(p - anchor[name].to(p)).square().sum() for name, p in network.named_parameters()]
    return torch.stack(terms).sum() / 2


class SegmentationLearner(Learner):
    """Local training of one site, or of all together: Dice loss, and the proximal term where there is an anchor.

    Args:
        config: of the system.
        cases: with image and label.
        num_epochs: passes over them.
        cache: keeps decoded images.
        start: weights to begin with; fresh ones if None.
        anchor: weights the proximal term holds on to; None for none.
    """

    def __init__(
        self,
        config: FedProxConfig,
        cases: Sequence[Case],
        num_epochs: int,
        cache: SampleCache,
        start: Weights | None = None,
        anchor: Weights | None = None,
    ) -> None:
        super().__init__()
        self.config, self.cases, self.anchor = config, tuple(cases), anchor
        self.reader = ResizedReader(config.size, cache=cache)
        self.networks = build_networks(config)
        if start is not None:
            self.networks.load_state_dict(start)
        self.schedule = Schedule(num_epochs=num_epochs, batch_size=config.batch_size, validate_every_epochs=0)
        self.loss = DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0, reduction="none")
        self.augment = _augmentation() if config.augment else None

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Adam."""
        parameters = self.networks.parameters()
        return {"adam": Adam(parameters, lr=self.config.lr, weight_decay=self.config.weight_decay)}

    def num_samples(self) -> int:
        """One per case."""
        return len(self.cases)

    def sample_name(self, index: int) -> str:
        """The case."""
        return self.cases[index].id

    def collate(self, indices: Sequence[int], epoch: int) -> dict[str, Tensor]:
        """Images and masks, (B, 1, H, W) each."""
        pairs = [self._sample(index, epoch) for index in indices]
        return {name: torch.stack([pair[name] for pair in pairs]) for name in ("image", "label")}

    def training_step(self, batch: dict[str, Tensor], step: Step) -> Mapping[str, SumCount]:
        """Dice loss per image, so that an image without lesion counts like any other, plus mu times `proximal_term`."""
        with step.autocast():
            logits = self.networks["unet"](batch["image"])
        losses = self.loss(logits.float(), batch["label"]).flatten(1).mean(1)
        count = len(losses)
        objective = step.mean(losses.sum(), count)
        logged = {"loss": SumCount(losses.detach().sum(), count)}
        if self.anchor is not None and self.config.mu > 0:
            distance = proximal_term(self.networks, self.anchor)
            objective = objective + self.config.mu * step.mean(distance * count, count)  # once over all workers
            logged["proximal"] = SumCount(distance.detach() * count, count)
        step.backward(objective)
        step.update("adam")
        return logged

    def _sample(self, index: int, epoch: int) -> dict[str, Tensor]:
        read = self.reader.read(self.cases[index])
        mask = read.mask if read.mask is not None else np.zeros(read.image.shape[1:], np.uint8)
        sample = {"image": torch.from_numpy(read.image), "label": torch.from_numpy(mask[None].astype(np.float32))}
        if self.augment is not None:
            drawn = torch.randint(2**31, (1,), generator=self.sample_generator(index, epoch))
            sample = self.augment.set_random_state(seed=int(drawn))(sample)
        return {name: torch.as_tensor(value).float().contiguous() for name, value in sample.items()}


def _augmentation() -> Compose:
    """Left and right are alike in ultrasound, up and down (depth) are not."""
    keys = ("image", "label")
    return Compose(
        [
            RandFlipd(keys, prob=0.5, spatial_axis=1),
            RandAffined(
                keys,
                prob=0.8,
                rotate_range=0.25,
                translate_range=(6, 6),
                scale_range=0.15,
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            RandAdjustContrastd(["image"], prob=0.5, gamma=(0.7, 1.5)),
            RandShiftIntensityd(["image"], prob=0.5, offsets=0.1),
        ]
    )


def build_networks(config: FedProxConfig) -> nn.ModuleDict:
    """The network all sites share, under the name it has in checkpoints."""
    return nn.ModuleDict({"unet": AttentionUNet(config.channels, config.norm, attention=config.attention)})


@dataclass(frozen=True)
class SiteData:
    """What a site is made from. Cases are references: images are read where the site runs."""

    name: str
    config: FedProxConfig
    train: tuple[Case, ...]
    held_out: tuple[Case, ...]


class Site:
    """A hospital. Its images stay with it; weights and counts of pixels leave it.

    It remembers nothing that matters between calls: a site that was lost and comes back is as good as before.
    """

    def __init__(self, work: Workbench, data: SiteData) -> None:
        self.work, self.data = work, data
        self.cache = work.cache
        self.seed = work.seed

    def train(self, number: int, weights: Weights, own: Weights | None) -> Update:
        """Local training of one round.

        Args:
            number: of the round, from 0.
            weights: the server's.
            own: this site's of its last round, where the settings ask for them.
        """
        config, name = self.data.config, f"round-{number:03d}"
        start = {**weights, **{k: v for k, v in (own or {}).items() if config.keep_norm and k in _norm_keys(config)}}
        anchor = own if config.anchor == "own" and own is not None else weights
        self.work.seed = seed_of(self.seed, self.data.name, number) % 2**31  # another order every round
        fit = self.work.fit(
            functools.partial(
                SegmentationLearner, config, self.data.train, config.local_epochs, self.cache, start, anchor
            ),
            name=name,
        )
        self.work.forget(f"round-{number - 1:03d}")
        assert fit.weights is not None
        found = load_file(fit.weights)
        drift = math.sqrt(sum(float((found[k] - weights[k]).square().sum()) for k in _parameter_keys(config)))
        return Update(found, len(self.data.train), drift, float(fit.metrics.get("loss", float("nan"))))

    def score(self, weights: Weights) -> Confusion:
        """Pixels of the held-out images, sorted by the global model."""
        networks = build_networks(self.data.config)
        networks.load_state_dict(weights)
        found = segment(networks["unet"], self.data.config, self.data.held_out, self.cache)
        return sum((counts for counts, _ in found), Confusion())


def _outline(config: FedProxConfig) -> nn.ModuleDict:
    """The networks without memory for their weights, to ask for names."""
    with torch.device("meta"):
        return build_networks(config)


@functools.cache
def _norm_keys(config: FedProxConfig) -> frozenset[str]:
    networks, kinds = _outline(config), (nn.InstanceNorm2d, nn.BatchNorm2d)
    norms = {name for name, module in networks.named_modules() if isinstance(module, kinds)}
    return frozenset(key for key in networks.state_dict() if key.rpartition(".")[0] in norms)


@functools.cache
def _parameter_keys(config: FedProxConfig) -> tuple[str, ...]:
    return tuple(name for name, _ in _outline(config).named_parameters())


@torch.inference_mode()
def segment(
    network: nn.Module, config: FedProxConfig, cases: Sequence[Case], cache: SampleCache
) -> list[tuple[Confusion, NDArray[np.float32]]]:
    """Probabilities (size, size) of each case, and its pixels counted at threshold 0.5."""
    reader, found = ResizedReader(config.size, cache=cache), []
    network.eval()
    for case in cases:
        read = reader.read(case)
        probability = torch.sigmoid(network(torch.from_numpy(read.image)[None]))[0, 0].numpy()
        truth = read.mask if read.mask is not None else np.zeros_like(probability)
        found.append((confusion(probability > 0.5, truth), probability))
    return found


def site_of(case: Case) -> str:
    """The attribute ``site``, else the folder the case lies in."""
    return case.attributes.get("site") or case.attributes.get("folder") or ""
