"""BliMSR's settings and variants. Fields default to the paper's values where its text has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medray.system import Variant

MIN_CROP_PX = 20
"""A quarter of it holds the largest head's 5 x 5 kernel, and it holds the 11 x 11 window of SSIM."""


@dataclass(frozen=True, kw_only=True)
class BlimsrConfig:
    """Networks, losses, degradation and schedule of a super-resolution by four."""

    crop_px: int = 512
    """Side of the high-resolution training crops (paper 512: whole slices); a multiple of 4."""
    generator: Literal["blimsr", "medsrgan", "edsr_mhca", "bicubic"] = "blimsr"
    """What enlarges: the paper's network, MedSRGAN's, EDSR with multi-head attention in its blocks, or bicubic
    interpolation, which learns nothing."""
    num_blocks: int = 16
    """Residual blocks of the generator (not in the text; authors' code 16 in each of its groups)."""
    num_channels: int = 64
    """Channels of the generator (not in the text; authors' code 64)."""
    reduction: int = 2
    """Channels over the channels inside an attention head (not in the text; authors' code 4)."""
    attention: Literal["mhca", "1x1", "none"] = "mhca"
    """Attention of blimsr's blocks: heads with kernels 1, 3 and 5, MedSRGAN's single 1x1 convolution, or none. The
    other generators have their own."""
    skeleton: Literal["text", "released"] = "text"
    """Frame of blimsr's networks: as the text has it, or as the authors' code: groups of blocks, the first features
    concatenated, a sigmoid at the end; a discriminator of seven blocks."""
    num_groups: int = 8
    """Groups of num_blocks blocks each, in the released skeleton (authors' code 8)."""
    discriminator: Literal["resnet_sn", "medsrgan"] = "resnet_sn"
    """What judges: residual blocks with spectral normalization on one image, or MedSRGAN's plain network on the pair of
    low and high resolution."""
    disc_channels: int = 64
    """Channels of the discriminator's first stage (not in the text; authors' code 64)."""
    gan: Literal["vanilla", "hinge", "ls"] = "vanilla"
    """Adversarial loss: of eq. 1 (non-saturating for the generator), hinge, or least squares."""
    lambda_perc: float = 1.0
    """Weight of the perceptual loss (paper 1)."""
    lambda_adv: float = 0.01
    """Weight of the adversarial loss (paper 0.01); 0 trains without a discriminator."""
    lambda_cont: float = 0.1
    """Weight of the content loss (paper 0.1)."""
    lambda_grad: float = 1.0
    """Weight of the image gradient loss (paper 1)."""
    lambda_dssim: float = 1.0
    """Weight of the dissimilarity loss (paper 1)."""
    detached_structure_losses: bool = False
    """Let the gradient and dissimilarity losses carry no gradient, as in the authors' code."""
    perceptual: Literal["vgg19", "phantom", "random", "none"] = "vgg19"
    """Whose features the perceptual loss and distance compare: VGG-19 from vgg19_weights, a small network trained on
    phantoms, which also stands in for a VGG-19 without weights, or one with random weights."""
    vgg19_weights: str = ""
    """torchvision's published VGG-19 (ImageNet), .pth or .safetensors; nothing is ever downloaded."""
    perceptual_weights: Literal["mean", "released"] = "mean"
    """Blocks of features weigh the same, on inputs with ImageNet's statistics (paper), or .5, .25, .125, .0625, .0625
    on inputs as they are (authors' code)."""
    degradation: Literal["blind", "bicubic", "bicubic_blur", "released"] = "blind"
    """How low resolution is made for training: at random and twice (paper), bicubic, with blur before it, or as in the
    authors' code."""
    degradation_strength: float = 1.0
    """Multiplies blur and noise, for images smaller than the paper's 512 pixels."""
    hu_window: tuple[float, float] = (-1024.0, 1024.0)
    """What of CT becomes [0, 1], HU (paper -1024 to 1024)."""
    scaling: Literal["auto", "hu", "uint8", "percentile"] = "auto"
    """How intensities become [0, 1]: auto takes 8-bit images over 255, images that reach below -200 as HU through
    hu_window, others by their percentiles; hu, uint8 and percentile decide for all (-200 HU alone misses a CT crop
    without air)."""
    num_epochs: int = 150
    """Passes over the training images (paper 350 k updates of 4 of its 9,336 slices: 150)."""
    warmup_epochs: int = 0
    """Epochs at the start with the content loss alone (paper 0)."""
    batch_size: int = 4
    """Crops in an update (paper 4)."""
    crops_per_image: int = 1
    """Crops of each image in an epoch; more where images are larger than crop_px."""
    lr: float = 1e-5
    """Learning rate of Adam for both networks (paper 1e-5)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of its moments (paper 0.9, 0.999)."""
    validation_fraction: float = 0.05
    """Share of the patients that decide which epoch counts (paper none)."""
    test_fraction: float = 0.09
    """Share of the patients kept for testing (paper 919 of 10,255 slices)."""

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_losses()
        self._check_schedule()
        if self.vgg19_weights:
            # absolute from the start: a run may be resumed from another folder
            object.__setattr__(self, "vgg19_weights", str(Path(self.vgg19_weights).expanduser().resolve()))

    def _check_counts(self) -> None:
        if self.crop_px % 4 or self.crop_px < MIN_CROP_PX:
            raise ValueError(f"crop_px must be a multiple of 4 from {MIN_CROP_PX} on, got {self.crop_px}")
        for name in ("num_blocks", "num_channels", "reduction", "num_groups", "disc_channels", "batch_size",
                     "crops_per_image"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_channels % self.reduction:
            raise ValueError(
                f"num_channels must be a multiple of reduction, got {self.num_channels} and {self.reduction}"
            )

    def _check_losses(self) -> None:
        weights = {name: getattr(self, name) for name in self.__dataclass_fields__ if name.startswith("lambda_")}
        for name, weight in weights.items():
            if weight < 0:
                raise ValueError(f"{name} must be 0 or more, got {weight:g}")
        if not any(weights.values()):
            raise ValueError("all five loss weights are 0, which leaves nothing to learn; give lambda_cont a value")
        if self.detached_structure_losses and not (self.lambda_perc or self.lambda_adv or self.lambda_cont):
            raise ValueError("detached structure losses teach nothing by themselves; give lambda_cont a value")
        if self.perceptual == "none" and self.lambda_perc:
            raise ValueError("perceptual none has no features to compare; set lambda_perc to 0 or choose others")
        if self.vgg19_weights and self.perceptual != "vgg19":
            raise ValueError(f"vgg19_weights are for perceptual vgg19, not {self.perceptual}; leave one of them out")
        if not 0 <= self.degradation_strength < math.inf:
            raise ValueError(f"degradation_strength must be finite and 0 or more, got {self.degradation_strength}")
        if self.hu_window[0] >= self.hu_window[1]:
            raise ValueError(f"hu_window runs from low to high, got {self.hu_window}; try (-1024, 1024)")

    def _check_schedule(self) -> None:
        if not 0 <= self.warmup_epochs <= self.num_epochs:
            raise ValueError(
                f"warmup_epochs must be from 0 to num_epochs, got {self.warmup_epochs} of {self.num_epochs}"
            )
        if self.lr <= 0 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"lr must be above 0 and betas in [0, 1), got {self.lr:g} and {self.betas}")
        for name in ("validation_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name):g}")

    @property
    def learns(self) -> bool:
        """Whether there is a network to train."""
        return self.generator != "bicubic"

    @property
    def is_adversarial(self) -> bool:
        """Whether there is a discriminator."""
        return self.learns and self.lambda_adv > 0


# MedSRGAN also compares features of its discriminator (Gu et al. 2020); BliMSR's text does not say how much that
# weighs, and it is left out. So it differs from the paper's system by attention, discriminator and the two losses of
# structure.
_CONTENT_ALONE = {"lambda_perc": 0.0, "lambda_adv": 0.0, "lambda_cont": 1.0, "lambda_grad": 0.0, "lambda_dssim": 0.0}

VARIANTS: Mapping[str, Variant] = {
    "blimsr": Variant(about="the paper's"),
    "bicubic": Variant(about="bicubic interpolation (the paper's baseline)", config={"generator": "bicubic"}),
    "edsr_mhca": Variant(
        about="EDSR with multi-head attention, content loss alone (the paper's baseline)",
        config={"generator": "edsr_mhca", **_CONTENT_ALONE},
    ),
    "medsrgan": Variant(
        about="MedSRGAN: 1x1 attention, pairwise discriminator, no gradient and dissimilarity losses (baseline)",
        config={"generator": "medsrgan", "discriminator": "medsrgan", "lambda_grad": 0.0, "lambda_dssim": 0.0},
    ),
    "bicubic_degradation": Variant(
        about="trained on bicubic reduction and blur alone (the paper's fig. 5)", config={"degradation": "bicubic_blur"}
    ),
    "medsrgan_discriminator": Variant(
        about="MedSRGAN's discriminator (the paper's BliMSR*)", config={"discriminator": "medsrgan"}
    ),
    "no_perc": Variant(about="without the perceptual loss", config={"lambda_perc": 0.0}),
    "no_adv": Variant(about="without discriminator", config={"lambda_adv": 0.0}),
    "no_cont": Variant(about="without the content loss", config={"lambda_cont": 0.0}),
    "no_grad": Variant(about="without the gradient loss", config={"lambda_grad": 0.0}),
    "no_dssim": Variant(about="without the dissimilarity loss", config={"lambda_dssim": 0.0}),
    "detached_structure_losses": Variant(
        about="gradient and dissimilarity losses without gradient, as in the authors' code",
        config={"detached_structure_losses": True},
    ),
    "released": Variant(
        about="as the authors' code: its networks, weights of the features, degradation, detached structure losses",
        config={"skeleton": "released", "reduction": 4, "perceptual_weights": "released", "degradation": "released",
                "detached_structure_losses": True},
    ),
    "no_attention": Variant(about="blocks without attention", config={"attention": "none"}),
    "rwmab": Variant(about="blocks with MedSRGAN's 1x1 attention", config={"attention": "1x1"}),
}  # fmt: skip
