"""Settings and variants of the Goutallier grader. Fields default to the paper's values where its text has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medray.system import Variant

Roi = Literal["auto", "manual", "full_image"]
Backbone = Literal["vgg19", "resnet50", "inception_v3", "small"]
GRADES = ("0", "1", "2", "3", "4")
MIN_SIZE_PX = {"vgg19": 32, "resnet50": 32, "inception_v3": 75, "small": 32}


@dataclass(frozen=True, kw_only=True)
class GoutallierConfig:
    """Segmentation, crop, classification and cross-validation."""

    roi: Roi = "auto"
    """What the classifier sees: the muscle that the U-Net found (paper), the muscle as drawn by a person, or the full
    image."""
    backbone: Backbone = "vgg19"
    """Classifier: VGG-19 (paper), ResNet-50, Inception-v3, or a small network for small images."""
    weights: str = ""
    """torchvision's published ImageNet weights of the backbone, .pth or .safetensors (paper); without them all of the
    network is trained, since convolutions with random weights are of no use frozen."""
    frozen: bool = True
    """Keep published convolutions as they are and train the classifier's layers alone (paper)."""
    balance: Literal["oversample", "weighted", "none"] = "oversample"
    """Against rare risky cases: turned, flipped and center-cropped copies of them (paper), a weight in the loss, or
    nothing."""
    grade2: Literal["drop", "risky", "not_risky"] = "drop"
    """Whether images of grade 2 train the segmentation alone (paper), or are classified too, and as what."""
    margin: float = 0.0
    """Added to each side of the muscle's box, as a share of its length."""
    mask_background: bool = False
    """Blacken what is not muscle inside the box, as one reading of the text has it."""
    crops: Literal["in_fold", "out_of_fold"] = "in_fold"
    """Whose masks the classifier is trained on: of the segmentation that was trained on the same images (paper), or of
    those that were not, as in validation."""
    folds: int = 5
    """Parts of the cross-validation (paper 5); 1 trains once and validates on a fifth."""
    selection: Literal["paper", "nested"] = "paper"
    """What decides which epoch counts: the fold that is then scored (paper; optimistic), or 15 % of the others."""
    image_size: int = 224
    """Rows and columns that both networks see, px (paper 224)."""
    channels: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Of the U-Net's levels, from the finest (paper)."""
    seg_epochs: int = 50
    """Passes of the segmentation at most (paper 50)."""
    seg_lr: float = 1e-3
    """Its learning rate (paper 1e-3; an earlier paragraph has 1e-5 with cross entropy)."""
    epochs: int = 50
    """Passes of the classifier at most (paper 50)."""
    lr: float = 1e-5
    """Its learning rate, the paper's only tuned setting (paper 1e-5)."""
    patience: int = 10
    """Epochs without a better validation loss after which the classifier's training ends (paper 10)."""
    batch_size: int = 8
    """Images in an update of either (paper 8)."""
    rotation_deg: float = 35.0
    """Images for the segmentation, and copies of risky cases, are turned by up to this (paper 35)."""
    test_fraction: float = 0.2
    """Share of the patients that no fold has, kept for testing (paper none: its folds are all there is)."""

    def __post_init__(self) -> None:
        least = MIN_SIZE_PX[self.backbone]
        if self.image_size < least or self.image_size % 2 ** (len(self.channels) - 1):
            raise ValueError(
                f"image_size is at least {least} for {self.backbone} and a multiple of {2 ** (len(self.channels) - 1)} "
                f"for {len(self.channels)} levels, got {self.image_size}; try 224"
            )
        if min(self.folds, self.seg_epochs, self.epochs, self.patience, self.batch_size) < 1 or len(self.channels) < 2:
            raise ValueError("folds, seg_epochs, epochs, patience and batch_size are at least 1, channels at least two")
        if self.lr <= 0 or self.seg_lr <= 0:
            raise ValueError(f"learning rates are above 0, got {self.lr:g} and {self.seg_lr:g}")
        if not 0 <= self.margin <= 1 or not 0 <= self.rotation_deg <= 180 or not 0 <= self.test_fraction < 1:
            raise ValueError(
                f"margin is from 0 to 1, rotation_deg from 0 to 180 and test_fraction from 0 to below 1, got "
                f"{self.margin:g}, {self.rotation_deg:g} and {self.test_fraction:g}"
            )
        if self.crops == "out_of_fold" and (self.roi != "auto" or self.folds == 1):
            raise ValueError("out_of_fold crops are those of several folds' segmentations; use roi auto and folds 2 up")
        if self.mask_background and self.roi == "full_image":
            raise ValueError("mask_background leaves nothing of a full image but the muscle; use roi auto or manual")
        if self.weights and self.backbone == "small":
            raise ValueError("there are no published weights of the small network; leave weights out")
        if self.weights:
            # absolute from the start: a run may be resumed from another folder
            object.__setattr__(self, "weights", str(Path(self.weights).expanduser().resolve()))

    @property
    def segments(self) -> bool:
        """Whether there is a U-Net."""
        return self.roi == "auto"


VARIANTS: Mapping[str, Variant] = {
    "goutallier": Variant(about="the paper's: U-Net, automatic crop, VGG-19"),
    "manual_roi": Variant(
        about="crops by the masks that people drew (the paper's earlier work)", config={"roi": "manual"}
    ),
    "full_image": Variant(about="the classifier sees the whole image", config={"roi": "full_image"}),
    "resnet50": Variant(about="ResNet-50 in place of VGG-19 (table 4)", config={"backbone": "resnet50"}),
    "inception_v3": Variant(
        about="Inception-v3 in place of VGG-19 (table 4)", config={"backbone": "inception_v3", "image_size": 224}
    ),
    "no_balance": Variant(about="risky cases as rare as they are", config={"balance": "none"}),
    "weighted": Variant(about="risky cases weigh more in place of copies", config={"balance": "weighted"}),
    "mask_background": Variant(about="crops show the muscle alone, on black", config={"mask_background": True}),
    "out_of_fold": Variant(about="trained on masks of images the U-Net had not seen", config={"crops": "out_of_fold"}),
    "nested": Variant(about="epochs chosen on other cases than those scored", config={"selection": "nested"}),
    "with_grade2": Variant(about="grade 2 is classified too, as risky", config={"grade2": "risky"}),
}
