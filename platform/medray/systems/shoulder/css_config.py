"""CSS-Net's settings and variants. Fields default to the paper's values where its text has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medray.system import Variant
from medray.systems.shoulder.css_networks import NUM_GROUPS

ASPP_STRIDE = 16
"""Of DeepLabV3+'s deepest features."""


@dataclass(frozen=True, kw_only=True)
class CssConfig:
    """Networks, losses and training of a segmentation that two other tasks help."""

    size_px: int = 512
    """Rows and columns of what the networks see; other images are scaled into it (paper 512)."""
    network: Literal["dense", "released", "unet", "deeplabv3plus"] = "dense"
    """What segments: dense blocks in a U-Net (paper), the same as in the authors' code, or a peer."""
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    """Channels of the levels, multiples of 16 (not in the text; authors' code 64 to 512, and 1024 at the bottom)."""
    growth: int = 32
    """Channels that each convolution of a dense block adds, a multiple of 16 (not in the text)."""
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    """Dilations of a dense block's convolutions (not in the text)."""
    classify: bool = True
    """Train a classifier of tear present or absent on the same encoder (sec. 2.3)."""
    substitute: Literal["sl", "gan", "none"] = "sl"
    """What turns torn tendon into whole tendon: substitution learning (sec. 2.4), a GAN in its place (table 6), or
    nothing."""
    augment: Literal["both", "classifier"] = "both"
    """What learns from substituted images besides the real ones: segmentation and classification (sec. 2.4), or the
    classifier alone (authors' code)."""
    augment_from_epoch: int = 0
    """Epochs before they do (not in the text). At the start they still show the tear that their labels deny."""
    spectrum_net: Literal["magnitude", "complex", "released"] = "magnitude"
    """S: three convolutions on the magnitudes (table 1 has one number per frequency), on real and imaginary part
    together, or the authors' four on each."""
    content: Literal["log_magnitude", "vgg", "signed_vgg"] = "log_magnitude"
    """L3: squared differences of logarithms of the spectra's magnitudes, of VGG-19's features of them with their Gram
    matrices, or the mean of their signed differences, which has no lower bound (authors' code)."""
    vgg19_weights: str = ""
    """torchvision's published VGG-19 (ImageNet), .pth or .safetensors, for content vgg; nothing is ever downloaded."""
    pixel_loss: Literal["sum", "mean"] = "sum"
    """What L2 takes over the pixels of an image: their sum (table 2) or their mean (authors' code)."""
    weights: Literal["uncertainty", "fixed"] = "uncertainty"
    """The factors alpha of the losses: trained, with a term that keeps them from falling to 0, or as they start."""
    alphas: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 0.01, 1.0)
    """alpha_1 to alpha_5 at the start (paper 1, and 0.01 for the fourth)."""
    translator_width: int = 32
    """Channels of the GAN's networks at full size (not in the text)."""
    normalize: Literal["unit", "percentile"] = "unit"
    """What of an image becomes [0, 1]: minimum to maximum, or 1st to 99th percentile with the rest cut off."""
    balance: Literal["none", "images"] = "none"
    """Which images an epoch visits: each once (paper), or as many with a tear as with tendon alone and with neither."""
    lr: float = 1e-3
    """Learning rate of Adam (paper 1e-3), falling to 0 along a cosine."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of its moments (paper 0.9, 0.99)."""
    eps: float = 1e-7
    """Its epsilon (paper 1e-7)."""
    batch_size: int = 16
    """Images in an update (paper 16)."""
    num_epochs: int = 100
    """Passes over the training images (not in the text; authors' code 100)."""
    num_folds: int = 0
    """Cut the patients into so many folds and test on one of them (paper 5); 0 splits by the fractions below."""
    fold: int = 0
    """Which fold is the test set, from 0."""
    validation_fraction: float = 0.15
    """Share of the patients, or of those of the other folds, that decide which epoch counts (not in the text)."""
    test_fraction: float = 0.25
    """Share of the patients kept for testing."""

    def __post_init__(self) -> None:
        self._check_networks()
        self._check_training()
        self._check_folds()
        if self.vgg19_weights:
            # absolute from the start: a run may be resumed from another folder
            object.__setattr__(self, "vgg19_weights", str(Path(self.vgg19_weights).expanduser().resolve()))

    def _check_networks(self) -> None:
        for name, values in (("widths", self.widths), ("growth", (self.growth,))):
            if not values or any(value < 1 or value % NUM_GROUPS for value in values):
                raise ValueError(f"{name} must be multiples of {NUM_GROUPS} for group normalization, got {values}")
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError(f"dilations are whole numbers from 1 on, got {self.dilations}")
        if self.size_px % self.multiple or self.size_px < 2 * self.multiple:
            raise ValueError(
                f"size_px must be a multiple of {self.multiple} from {2 * self.multiple} on, got {self.size_px}"
            )
        if self.network in ("unet", "deeplabv3plus") and (self.classify or self.substitute != "none"):
            raise ValueError(f"{self.network} is trained alone; set classify to false and substitute to none")
        if self.substitute == "gan" and self.size_px % 16:
            raise ValueError(f"the GAN's generator halves its input four times; size_px {self.size_px} is no multiple")
        if self.augment == "classifier" and self.substitute != "none" and not self.classify:
            raise ValueError("augment classifier needs a classifier; set classify to true or augment to both")

    def _check_training(self) -> None:
        for name in ("batch_size", "num_epochs", "translator_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.lr <= 0 or self.eps <= 0 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("lr and eps must be above 0 and betas in [0, 1)")
        if len(self.alphas) != 5 or min(self.alphas) <= 0:
            raise ValueError(f"alphas are five numbers above 0, got {self.alphas}; leave out a loss by its variant")
        if self.augment_from_epoch < 0:
            raise ValueError(f"augment_from_epoch must be 0 or more, got {self.augment_from_epoch}")

    def _check_folds(self) -> None:
        if self.num_folds == 1 or self.num_folds < 0 or not 0 <= self.fold < max(1, self.num_folds):
            raise ValueError(f"num_folds is 0 or at least 2 and fold below it, got {self.num_folds} and {self.fold}")
        for name in ("validation_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name):g}")

    @property
    def multiple(self) -> int:
        """What the sides of the network's input are multiples of."""
        if self.network == "deeplabv3plus":
            return ASPP_STRIDE
        return 16 if self.network == "released" else 2 ** (len(self.widths) - 1)


_ALONE: Mapping[str, object] = {"classify": False, "substitute": "none"}
_RELEASED: Mapping[str, object] = {
    "network": "released",
    "augment": "classifier",
    "spectrum_net": "released",
    "content": "vgg",
    "pixel_loss": "mean",
    "weights": "fixed",
}

VARIANTS: Mapping[str, Variant] = {
    "css_net": Variant(about="the paper's: segmentation, classification and substitution learning"),
    "seg": Variant(about="segmentation alone (table 6)", config=_ALONE),
    "seg_clf": Variant(about="with the classifier (table 6)", config={"substitute": "none"}),
    "seg_sl": Variant(about="with substitution learning (table 6)", config={"classify": False}),
    "seg_gan": Variant(
        about="with a GAN in place of substitution learning (table 6)", config={"classify": False, "substitute": "gan"}
    ),
    "seg_clf_gan": Variant(about="with the classifier and the GAN (table 6)", config={"substitute": "gan"}),
    "unet": Variant(about="a classic U-Net (table 5)", config={**_ALONE, "network": "unet"}),
    "deeplabv3plus": Variant(about="DeepLabV3+ (table 5)", config={**_ALONE, "network": "deeplabv3plus"}),
    "complex_spectrum": Variant(
        about="S on real and imaginary part, where a tear's place matters to it",
        config={"spectrum_net": "complex"},
    ),
    "dense_fixed": Variant(about="the losses' factors stay as they start", config={"weights": "fixed"}),
    "released": Variant(
        about="as the authors' code: its networks and S, content and style by VGG-19, fixed factors, substituted images"
        " for the classifier alone",
        config=_RELEASED,
    ),
    "signed_content": Variant(
        about="the same with the mean signed difference that the code minimizes, which has no lower bound",
        config={**_RELEASED, "content": "signed_vgg"},
    ),
}
