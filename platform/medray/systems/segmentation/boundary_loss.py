"""Small lesions in brain slices, segmented by a U-Net whose loss also measures how far off its mistakes are.

Kervadec, Bouchtiba et al., "Boundary loss for highly unbalanced segmentation", MIDL 2019. The generalized Dice loss is
blended over the epochs into a boundary loss: the softmax output weighted by the signed distance to the true contour.

Departs from the paper: the sum over pixels of eq. 5 is a mean (the sum would dwarf eq. 1; `reduction`), the weight of
an empty region in eq. 1 is capped (it would be infinite), slices are padded or cropped to one size instead of
stretched, so that mm stay mm, and scores are taken on volumes of test patients that neither training nor the choice of
the epoch has seen (the paper's are slices of its validation patients). What the authors' code does differently from the
text are the variants ``authors_*``.

Shape letters: B slices, M modalities, C foreground classes, Z slices of a volume, H rows, W columns.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from monai.losses.dice import DiceLoss, GeneralizedDiceLoss
from monai.losses.focal_loss import FocalLoss
from monai.losses.hausdorff_loss import HausdorffDTLoss
from monai.losses.tversky import TverskyLoss
from monai.networks.nets.basic_unet import BasicUNet
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from medray.data.cache import SampleCache
from medray.data.case import BadCase, Case, Source, Splits, Volume
from medray.data.channels import by_patient
from medray.data.fields import FileRef, case_fingerprint
from medray.data.geometry import canonical
from medray.data.readers import read_volume, suffix_of
from medray.data.slices import SliceGrid, SliceReader, SliceStack, put_back
from medray.data.splits import split_by_patient
from medray.data.writers import beside, write_bytes, write_json, write_volume
from medray.errors import UserError
from medray.figures.drawing import to_png
from medray.figures.segmentation import Example, outlines
from medray.learner import Learner, Schedule, Step, SumCount
from medray.metrics.segmentation import dice, hausdorff_mm
from medray.metrics.statistics import ratio
from medray.nn.weights import load_network
from medray.system import (
    ClaimResult,
    Evaluation,
    Figure,
    Prediction,
    PredictRequest,
    Preset,
    Row,
    System,
    Trained,
    Variant,
    Workbench,
)
from medray.systems.claims import bound, difference, score_arms, variant_arms

Phi = Literal["symmetric", "authors_int"]

_SMALLEST_ALPHA = 0.01
_SLICES_AT_ONCE = 16
_EXAMPLES = 8
_LEVELS = 4  # halvings in BasicUNet


@dataclass(frozen=True, kw_only=True)
class BoundaryLossConfig:
    """Losses, their schedule, data and training; the defaults are the paper's where it says them."""

    region: Literal["gdl", "ce", "weighted_ce", "focal", "dice", "tversky", "none"] = "gdl"
    """Loss over regions: generalized Dice (eq. 1, paper), a peer, or none."""
    distance: Literal["boundary", "hausdorff_dt", "none"] = "boundary"
    """Loss over distances: the boundary loss (eq. 5, paper), the Hausdorff loss by distance transforms, or none."""
    schedule: Literal["paper", "constant", "authors", "add"] = "paper"
    """How the two are weighted (eq. 6): alpha falls each epoch (paper) or stays; the authors' code lets the region's
    weight fall to 0.1 and the distance's rise from 0.01 without end; add leaves the region's at 1."""
    alpha: float = 1.0
    """Weight of the region loss in the first epoch, or in all with --config.schedule constant (paper 1)."""
    alpha_step: float = 0.01
    """What alpha loses each epoch until it is 0.01 (paper 0.01: after 99 epochs)."""
    reduction: Literal["mean", "sum"] = "mean"
    """Over the pixels of eq. 5, which has a sum; the authors' code takes the mean."""
    phi: Phi = "symmetric"
    """Distance to the pixels' edges, or as in the authors' 2D code: 1 at the first pixel outside, 0 at the last inside,
    truncated to whole numbers. Both in pixels."""
    gdl_eps: float = 0.0
    """Added to the pixel counts of eq. 1 (authors 1e-10, which silences the loss on slices without lesion); 0 caps an
    empty region's weight at the other's instead."""
    labels: tuple[int, ...] = (1,)
    """Values of the label map that are classes; all others are background (paper: one class)."""
    modalities: tuple[str, ...] = ("flair", "t1")
    """Images of a patient that become channels, in order (paper: FLAIR and T1 for WMH)."""
    size: tuple[int, int] = (256, 256)
    """Pixels of a slice, left to right and back to front, cropped or padded around the middle (paper 256 x 256)."""
    spacing_mm: float = 0.0
    """Pixel size within slices; the image's own for 0."""
    normalize: Literal["unit", "percentile", "zscore"] = "unit"
    """Intensities of each scan: minimum and maximum to 0 and 1 (paper), which one bright voxel upsets; 1st and 99th
    percentile to -1 and 1; or mean 0 and standard deviation 1."""
    occupied: float = 0.0
    """Share of a slice above the scan's minimum that it needs to be trained on (paper: all slices)."""
    every: int = 1
    """Trains on each n-th slice."""
    base: int = 64
    """Feature maps of the first level of the U-Net (not stated; 64 in Ronneberger et al. and in the authors' code)."""
    norm: Literal["instance", "batch"] = "instance"
    """Normalization layers; the text does not say, the authors' code has batch."""
    lr: float = 1e-3
    """Learning rate of Adam (paper 1e-3)."""
    beta2: float = 0.999
    """Of Adam (authors' code: 0.99)."""
    lr_rule: Literal["plateau", "authors"] = "plateau"
    """Halved after so many validations without a better one (paper), or, as the authors' code has it, in every epoch
    whose number is a multiple of the best epoch's plus so many, the first one included."""
    lr_patience: int = 20
    """Epochs for that (paper 20)."""
    eval: Literal["volume", "slice_empty_is_one"] = "volume"
    """Dice that says which epoch is best: of whole volumes, or averaged over slices where an empty one in which nothing
    is found counts 1 (as the authors score)."""
    batch_size: int = 8
    """Slices per step (paper 8)."""
    epochs: int = 200
    """Passes over the slices (not stated; the authors' code of 2018 has 200)."""
    validation_fraction: float = 0.15
    """Share of the patients that choose the epoch and the learning rate."""
    test_fraction: float = 0.2
    """Share of the patients that are scored."""

    def __post_init__(self) -> None:
        step = 2**_LEVELS
        if len(self.size) != 2 or any(n % step or n < 2 * step for n in self.size):
            raise ValueError(f"size is two multiples of {step} from {2 * step} on, got {self.size}; try 256 256")
        if self.region == "none" and self.distance == "none":
            raise ValueError("region and distance are both none, so there is no loss; choose one")
        if not 0 <= self.alpha <= 1 or self.alpha_step < 0:
            raise ValueError(f"alpha lies in [0, 1] and alpha_step is not negative, got {self.alpha} {self.alpha_step}")
        if not self.labels or min(self.labels) < 1 or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels are different values from 1 on (0 is background), got {self.labels}")
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise ValueError(f"modalities are different names, at least one, got {self.modalities}")
        if min(self.epochs, self.batch_size, self.base, self.every, self.lr_patience) < 1 or self.spacing_mm < 0:
            raise ValueError("epochs, batch_size, base, every and lr_patience start at 1 and spacing_mm at 0")


def level_set(mask: NDArray[Any], convention: Phi = "symmetric") -> NDArray[np.float32]:
    """phi_G of eq. 4: distance to the contour of a region in pixels, negative inside.

    The contour runs along the pixels' edges, half a pixel from the centers on both sides, so that a border shifted by d
    pixels costs d^2 / 2 per pixel of its length.

    Args:
        mask: any number of axes; what is not 0 is inside.
        convention: see `BoundaryLossConfig.phi`.

    Returns:
        Same shape; all 0 where there is no contour: an empty region (sec. 3.2), or one that fills the image.
    """
    inside = np.asarray(mask) != 0
    if inside.all() or not inside.any():
        return np.zeros(inside.shape, np.float32)
    outer, inner = ndimage.distance_transform_edt(~inside), ndimage.distance_transform_edt(inside)
    if convention == "authors_int":
        return np.trunc(np.where(inside, 1 - inner, outer)).astype(np.float32)
    return np.where(inside, 0.5 - inner, outer - 0.5).astype(np.float32)


def boundary_loss(probabilities: Tensor, phi: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Eq. 5 for each image: phi times the softmax output, over foreground classes and pixels.

    Args:
        probabilities: (B, C, *spatial) of the foreground classes.
        phi: `level_set` of each, same shape.
        reduction: over classes and pixels.

    Returns:
        (B,), in pixels; negative where the output lies inside.

    Raises:
        ValueError: the shapes differ.
    """
    if probabilities.shape != phi.shape:
        raise ValueError(f"probabilities {tuple(probabilities.shape)} and phi {tuple(phi.shape)} must have one shape")
    products = (probabilities * phi).flatten(1)
    return products.mean(1) if reduction == "mean" else products.sum(1)


class OffsetGeneralizedDiceLoss(GeneralizedDiceLoss):  # type: ignore[misc]  # MONAI is untyped here
    """Eq. 1 with 1 / (count + eps)^2, as in the authors' code; MONAI's own caps the weight of an empty region."""

    def __init__(self, eps: float, **options: Any) -> None:
        super().__init__(**options)
        self.eps = eps

    def w_func(self, grnd: Tensor) -> Tensor:
        """Weights from pixel counts."""
        return (grnd + self.eps).square().reciprocal()


def region_loss(config: BoundaryLossConfig, foreground: Sequence[float]) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of logits (B, 1 + C, H, W) and one-hot truth of that shape that gives the loss of each image, (B,).

    Args:
        config: names the loss.
        foreground: share of each class, background first, among the training pixels; for the weighted cross-entropy.
    """
    if config.region in ("ce", "weighted_ce"):
        # Weights inversely proportional to frequency (sec. 1), scaled so that they average 1 over the pixels.
        shares = torch.tensor(foreground).clamp_min(1e-6)
        weight = 1 / (shares * len(shares)) if config.region == "weighted_ce" else torch.ones(len(shares))
        return lambda logits, truth: _by_image(
            functional.cross_entropy(logits, truth, weight=weight.to(logits), reduction="none")
        )
    plain: dict[str, Any] = {"softmax": True, "reduction": "none", "smooth_nr": 1e-10, "smooth_dr": 1e-10}
    peers: dict[str, Callable[[], nn.Module]] = {
        "gdl": lambda: (
            OffsetGeneralizedDiceLoss(config.gdl_eps, **plain) if config.gdl_eps else GeneralizedDiceLoss(**plain)
        ),
        "focal": lambda: FocalLoss(use_softmax=True, gamma=2.0, reduction="none"),
        # Smoothed by a pixel, so that slices without lesion have a gradient.
        "dice": lambda: DiceLoss(
            softmax=True, include_background=False, reduction="none", smooth_nr=1.0, smooth_dr=1.0
        ),
        "tversky": lambda: TverskyLoss(
            softmax=True, include_background=False, alpha=0.3, beta=0.7, reduction="none", smooth_nr=1.0, smooth_dr=1.0
        ),
    }
    loss = peers[config.region]()
    return lambda logits, truth: _by_image(loss(logits, truth))


def _by_image(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)


def loss_weights(config: BoundaryLossConfig, epoch: int) -> tuple[float, float]:
    """Weights of the region and of the distance loss in an epoch, from 0 (eq. 6 and sec. 3.2). One alone has 1."""
    if config.region == "none":
        return 0.0, 1.0
    if config.distance == "none":
        return 1.0, 0.0
    if config.schedule == "constant":
        return config.alpha, 1 - config.alpha
    if config.schedule == "paper":
        alpha = max(config.alpha - config.alpha_step * epoch, _SMALLEST_ALPHA)
        return alpha, 1 - alpha
    rising = 0.01 + config.alpha_step * epoch
    return (1.0 if config.schedule == "add" else max(1 - config.alpha_step * epoch, 0.1)), rising


class AuthorsHalving(ReduceLROnPlateau):
    """Halves in each epoch whose number is a multiple of (best epoch + patience), as the authors' code does: also in
    the first, and never again once the best epoch moves on quickly enough.
    """

    def __init__(self, optimizer: Optimizer, patience: int) -> None:
        super().__init__(optimizer, mode="max", factor=0.5, patience=patience)
        self.best_epoch = 0

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]  # PyTorch's own typing
        """After the validation of each epoch."""
        now, self.last_epoch = self.last_epoch, self.last_epoch + 1
        if float(metrics) > self.best:
            self.best, self.best_epoch = float(metrics), now
        if now % (self.best_epoch + self.patience) == 0:
            for group in self.optimizer.param_groups:
                group["lr"] *= self.factor


def build_networks(config: BoundaryLossConfig) -> nn.ModuleDict:
    """A plain 2D U-Net with a channel per modality and an output per class, under the name it has in checkpoints."""
    widths = [config.base * factor for factor in (1, 1, 2, 4, 8, 1)]
    unet = BasicUNet(2, len(config.modalities), 1 + len(config.labels), widths, norm=(config.norm, {"affine": True}))
    return nn.ModuleDict({"unet": unet})


class StackReader(SliceReader):
    """Reads the modalities of a patient as channels, with classes and level sets, all through the cache."""

    def __init__(self, config: BoundaryLossConfig, cache: SampleCache | None = None) -> None:
        spacing = (config.spacing_mm, config.spacing_mm) if config.spacing_mm else None
        grid = SliceGrid(spacing, config.size, config.normalize, config.occupied, config.every)
        super().__init__(grid, images=config.modalities, cache=cache)
        self.config = config

    def stack(self, case: Case) -> SliceStack:
        """See `SliceReader.stack`.

        Raises:
            UserError: a field cannot be read, or has several channels.
        """
        stack = super().stack(case)
        if stack.image.shape[1] != len(self.images):
            raise UserError(
                f"case {case.id} has {stack.image.shape[1]} channels where one for each of {', '.join(self.images)} "
                "is expected"
            )
        return stack

    def classes(self, case: Case) -> NDArray[np.int64]:
        """(Z, H, W): 0 for background, 1 for the first of the labels and so on; all 0 without a label map."""
        stack = self.stack(case)
        label = stack.labels.get("label")
        found = np.zeros((len(stack), *stack.image.shape[2:]), np.int64)
        for number, value in enumerate(self.config.labels, start=1):
            if label is not None:
                found[label == value] = number
        return found

    def level_sets(self, case: Case) -> NDArray[np.float32]:
        """(Z, C, H, W), in pixels."""
        config = self.config
        content = case_fingerprint(case, [config.modalities[0], "label"])
        key = ("level sets", config.phi, config.labels, self.grid.spacing_mm, self.grid.shape, content)
        return self.cache.get(key, lambda: {"phi": self._level_sets(self.classes(case))})["phi"]

    def _level_sets(self, classes: NDArray[np.int64]) -> NDArray[np.float32]:
        numbers = range(1, len(self.config.labels) + 1)
        return np.stack([[level_set(plane == n, self.config.phi) for n in numbers] for plane in classes])


class BoundaryLearner(Learner):
    """The U-Net on single slices, validated on whole volumes.

    Args:
        config: of the system.
        cases: patients to train on.
        validation: patients that choose the epoch and the learning rate; may be none.
        cache: keeps decoded volumes and level sets.
    """

    def __init__(
        self, config: BoundaryLossConfig, cases: Sequence[Case], validation: Sequence[Case], cache: SampleCache
    ) -> None:
        super().__init__()
        self.config, self.validation = config, tuple(validation)
        self.reader = StackReader(config, cache)
        self.slices = [ref for case in cases for ref in self.reader.refs(case)]
        if not self.slices:
            raise UserError(f"no slice of the training cases is occupied to {config.occupied:g}; lower it")
        self.networks = build_networks(config)
        self.schedule = Schedule(
            num_epochs=config.epochs,
            batch_size=config.batch_size,
            monitor="dice" if config.eval == "volume" else "dice_slice_empty_is_one",
        )
        weighted = config.region == "weighted_ce"
        shares = self._shares(cases) if weighted else [1.0] * (1 + len(config.labels))
        self.region = region_loss(config, shares) if config.region != "none" else None
        self.hausdorff = HausdorffDTLoss(softmax=True, reduction="none")

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Adam."""
        return {"adam": Adam(self.networks.parameters(), lr=self.config.lr, betas=(0.9, self.config.beta2))}

    def configure_schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, LRScheduler]:
        """Halved where validation does not improve for so many epochs."""
        adam, patience = optimizers["adam"], self.config.lr_patience
        if self.config.lr_rule == "authors":
            return {"adam": AuthorsHalving(adam, patience)}
        # PyTorch halves when more than its patience has passed
        return {"adam": ReduceLROnPlateau(adam, mode="max", factor=0.5, patience=patience - 1, threshold=0.0)}

    def num_samples(self) -> int:
        """One per slice."""
        return len(self.slices)

    def sample_name(self, index: int) -> str:
        """The case and the slice."""
        return self.slices[index].id

    def collate(self, indices: Sequence[int], epoch: int) -> dict[str, Tensor]:
        """Slices (B, M, H, W), classes (B, H, W) and level sets (B, C, H, W)."""
        refs = [self.slices[index] for index in indices]
        read: dict[str, Callable[[Case], NDArray[Any]]] = {
            "image": lambda case: self.reader.stack(case).image,
            "truth": self.reader.classes,
        }
        if self.config.distance == "boundary":
            read["phi"] = self.reader.level_sets
        return {name: torch.stack([torch.from_numpy(f(r.case)[r.index]) for r in refs]) for name, f in read.items()}

    def training_step(self, batch: dict[str, Tensor], step: Step) -> Mapping[str, SumCount]:
        """Eq. 6, image by image."""
        with step.autocast():
            logits = self.networks["unet"](batch["image"])
        logits = logits.float()
        truth = functional.one_hot(batch["truth"], logits.shape[1]).movedim(-1, 1).float()
        count, (region_weight, distance_weight) = len(logits), loss_weights(self.config, step.epoch)
        losses, logged = logits.new_zeros(count), {}
        if self.region is not None:
            region = self.region(logits, truth)
            losses = losses + region_weight * region
            logged["region_loss"] = SumCount(region.detach().sum(), count)
        if self.config.distance != "none":
            distance = self._distance(logits, truth, batch)
            losses = losses + distance_weight * distance
            logged["distance_loss"] = SumCount(distance.detach().sum(), count)
        step.backward(step.mean(losses.sum(), count))
        step.update("adam")
        found, true = logits[:, 1:].amax(1) > logits[:, 0], batch["truth"] > 0
        logged["dice"] = SumCount(2 * (found & true).sum(), found.sum() + true.sum())
        return {"loss": SumCount(losses.detach().sum(), count), **logged}

    def num_validation_samples(self) -> int:
        """One per volume."""
        return len(self.validation)

    def validation_step(self, index: int) -> Mapping[str, SumCount]:
        """Dice of a volume, of its slices as the authors take it, and found per true pixels (0 after a collapse)."""
        case = self.validation[index]
        found = segment(self.networks["unet"], self.reader.stack(case).image).argmax(1)
        truth = self.reader.classes(case)
        masks = [(found == n, truth == n) for n in range(1, len(self.config.labels) + 1)]
        volumes = [value for ours, theirs in masks if math.isfinite(value := dice(ours, theirs))]
        slices = [dice(a, b, both_empty=1.0) for ours, theirs in masks for a, b in zip(ours, theirs, strict=True)]
        return {
            "dice": SumCount(sum(volumes), len(volumes)),
            "dice_slice_empty_is_one": SumCount(sum(slices), len(slices)),
            "found_ratio": SumCount(int((found > 0).sum()), int((truth > 0).sum())),
        }

    def _distance(self, logits: Tensor, truth: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        if self.config.distance == "hausdorff_dt":
            return _by_image(self.hausdorff(logits, truth))
        return boundary_loss(logits.softmax(1)[:, 1:], batch["phi"], self.config.reduction)

    def _shares(self, cases: Sequence[Case]) -> list[float]:
        counts = sum(np.bincount(self.reader.classes(c).ravel(), minlength=1 + len(self.config.labels)) for c in cases)
        return [float(count) / float(np.sum(counts)) for count in np.atleast_1d(counts)]


@torch.inference_mode()
def segment(network: nn.Module, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities (Z, 1 + C, H, W) of slices (Z, M, H, W), on the network's device."""
    device = next(network.parameters()).device
    parts = torch.from_numpy(image).split(_SLICES_AT_ONCE)
    return torch.cat([network(part.to(device)).float().softmax(1).cpu() for part in parts]).numpy()


PRESETS = {
    "smoke": Preset(
        about="24 subjects of the brain phantom, 4 slices of 64 x 64 each, 12 epochs, about 25 s",
        data="phantom:brain?kind=lesions&n=24&size=64",
        config={
            "base": 8,
            "size": (64, 64),
            "lr": 3e-3,
            "batch_size": 4,
            "epochs": 12,
            "alpha_step": 0.09,
            "validation_fraction": 0.1,
            "test_fraction": 0.3,
        },
        compare=("gdl", "boundary"),
        seeds=5,
    ),
    "demo": Preset(
        about="60 subjects, 4 slices of 96 x 96 each, 60 epochs, about ten minutes",
        data="phantom:brain?kind=lesions&n=60&size=96",
        config={"base": 16, "size": (96, 96), "lr": 3e-3, "batch_size": 4, "epochs": 60, "alpha_step": 0.0165},
        compare=("gdl", "boundary"),
        seeds=3,
    ),
    "brain": Preset(
        about="your own FLAIR and T1 at 1 mm, a folder per patient, small U-Net; about ten minutes on two cores",
        data="",
        config={
            "base": 8,
            "size": (192, 224),
            "occupied": 0.1,
            "normalize": "zscore",
            "lr": 2e-3,
            "epochs": 40,
            "alpha_step": 0.0125,
        },
        compare=("gdl",),
    ),
    "paper": Preset(about="your own FLAIR and T1, 256 x 256, 200 epochs; needs a GPU", data="", seeds=5),
}

_AUTHORS: dict[str, Mapping[str, Any]] = {
    "authors_schedule": {"schedule": "authors"},
    "authors_phi": {"phi": "authors_int"},
    "authors_gdl": {"gdl_eps": 1e-10},
    "authors_lr": {"lr_rule": "authors", "beta2": 0.99},
}

VARIANTS = {
    "gdl_boundary": Variant(about="the paper's: generalized Dice blended into the boundary loss"),
    "gdl": Variant(about="generalized Dice alone", config={"distance": "none"}),
    "boundary": Variant(about="boundary loss alone (alpha = 0), which collapses", config={"region": "none"}),
    "constant_alpha": Variant(about="alpha stays at 0.5", config={"schedule": "constant", "alpha": 0.5}),
    "add": Variant(about="generalized Dice stays at 1, the boundary loss grows", config={"schedule": "add"}),
    "authors_schedule": Variant(
        about="as in the authors' code: Dice falls to 0.1, the boundary loss grows without end",
        config=_AUTHORS["authors_schedule"],
    ),
    "authors_phi": Variant(about="distances as in the authors' code, in whole pixels", config=_AUTHORS["authors_phi"]),
    "authors_gdl": Variant(
        about="the authors' epsilon in the weights of generalized Dice", config=_AUTHORS["authors_gdl"]
    ),
    "authors_lr": Variant(about="learning rate and betas as in the authors' code", config=_AUTHORS["authors_lr"]),
    "authors": Variant(
        about="all of these, with batch normalization and the best epoch by Dice over slices",
        config={
            **{name: value for changes in _AUTHORS.values() for name, value in changes.items()},
            "norm": "batch",
            "eval": "slice_empty_is_one",
        },
    ),
    "ce": Variant(about="cross-entropy", config={"region": "ce", "distance": "none"}),
    "weighted_ce": Variant(
        about="cross-entropy, classes weighted by their rarity", config={"region": "weighted_ce", "distance": "none"}
    ),
    "focal": Variant(about="focal loss, gamma 2", config={"region": "focal", "distance": "none"}),
    "dice": Variant(about="Dice loss", config={"region": "dice", "distance": "none"}),
    "tversky": Variant(about="Tversky loss, false negatives at 0.7", config={"region": "tversky", "distance": "none"}),
    "hausdorff_dt": Variant(
        about="Hausdorff loss by distance transforms alone", config={"region": "none", "distance": "hausdorff_dt"}
    ),
    "gdl_hausdorff_dt": Variant(
        about="the same beside generalized Dice, with the paper's schedule", config={"distance": "hausdorff_dt"}
    ),
}


class BoundaryLoss(System[BoundaryLossConfig]):
    """Segmentation of small lesions with a loss on distances."""

    slug = "boundary_loss"
    config_class = BoundaryLossConfig
    predict_inputs = ("flair", "t1")
    learning_signal = ("dice", "max")  # the loss itself changes with alpha
    empty_labels = True  # healthy subjects
    presets: ClassVar[Mapping[str, Preset]] = PRESETS
    variants: ClassVar[Mapping[str, Variant]] = VARIANTS

    def arrange(self, cases: Sequence[Case]) -> Sequence[Case]:
        """The modalities of a patient as one case."""
        return by_patient(cases, self.config.modalities)

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """Every modality, and a label map (of zeros where there is no lesion)."""
        return (*self.config.modalities, "label")

    def input_names(self, known: Mapping[str, Any]) -> tuple[str, ...]:
        """A file per modality."""
        return tuple(known.get("modalities", self.config.modalities))

    def problems(self, cases: Sequence[Case], known: Mapping[str, Any]) -> Sequence[BadCase]:
        """Label maps that do not lie on the first modality, or reach beyond the grid slices are cut on."""
        return [BadCase(case.id, reason) for case in cases if (reason := _problem(case, self.config))]

    def split(self, source: Source, seed: int) -> Splits:
        """By patient.

        Raises:
            UserError: too few patients, or none of those to train on has one of the labels.
        """
        config = self.config
        splits = split_by_patient(
            source.cases, validation=config.validation_fraction, test=config.test_fraction, seed=seed
        )
        if not any(np.isin(case.volume("label").array, config.labels).any() for case in splits.train):
            wanted = ", ".join(map(str, config.labels))
            raise UserError(
                f"no label map of the {len(splits.train)} training cases holds {wanted}; see --config.labels"
            )
        return splits

    def train(self, work: Workbench, splits: Splits) -> Trained:
        """One gradient loop."""
        fit = work.fit(
            functools.partial(BoundaryLearner, self.config, splits.train, splits.validation, work.cache), name="train"
        )
        about = {"labels": list(self.config.labels), "modalities": list(self.config.modalities)}
        return Trained(weights=fit.weights, about=about, metrics=_at_the_end(work, fit.metrics), fits={"train": fit})

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """Volumes first; beside them slices as the paper and its code score them (see `score_volume`)."""
        found = work.map(functools.partial(_score_case, self, trained, work.cache), cases, name="evaluate")
        rows = [row for row, _, _ in found]
        examples = [example for _, examples, _ in found for example in examples]
        chosen = sorted(examples, key=lambda example: not np.any(example.truth))[:_EXAMPLES]
        picture = to_png(outlines(chosen, affine=found[0][2]))
        caption = "Lesions found and true: of each test case the slice with most, then slices with false ones."
        summary = {**_summarize(rows), **trained.metrics}
        return Evaluation(rows, summary, [Figure("examples", caption, picture)])

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """Label map and probabilities on the first image's own grid, lesions counted and measured, a picture.

        Raises:
            UserError: an input cannot be used.
        """
        names = self.input_names(trained.about)
        case = Case("input", "input", {n: FileRef(str(p)) for n, p in zip(names, request.inputs, strict=True)})
        stack = StackReader(self.config).stack(case)
        original = read_volume(request.inputs[0])
        network = self._network(trained)
        started = time.perf_counter()
        probabilities = segment(network, stack.image)
        seconds = time.perf_counter() - started
        own = put_back(probabilities[:, 1:], stack.grid, original)
        background = np.maximum(1 - own.array.sum(axis=0, keepdims=True), 0)
        best = np.concatenate([background, own.array]).argmax(axis=0)
        labels = np.array([0, *self.config.labels], np.int32)[best]
        mask = replace(original, array=labels.astype(np.uint8 if labels.max() <= 255 else np.uint16)[None])
        measured = _measure(mask, self.config.labels)
        volume_suffix = suffix_of(request.out) if suffix_of(request.out) in (".nii.gz", ".nii", ".mha") else ".npz"
        busiest = _busiest(probabilities[:, 1:].sum(axis=1))
        example = _example(stack, probabilities.argmax(1), None, busiest, Path(original.source).name)
        picture = outlines([example], affine=_affine(stack))
        files = {
            "labels": write_volume(mask, request.out),
            "probabilities": write_volume(own, beside(request.out, f"_probability{volume_suffix}")),
            "measurements": write_json(beside(request.out, "_measurements.json"), measured),
            "picture": write_bytes(beside(request.out, "_overview.png"), to_png(picture)),
        }
        return Prediction(files, measured, seconds)

    @classmethod
    def claim_setting(cls, preset: str) -> tuple[BoundaryLossConfig, str]:
        """The preset's; at smoke size twice as long, since after twelve epochs nothing has settled yet.

        Raises:
            UserError: the preset has no data of its own.
        """
        config, data = super().claim_setting(preset)
        if not data:
            raise UserError(f"the claim runs on the phantom with --preset smoke or demo, not {preset}")
        return (replace(config, epochs=24, alpha_step=0.042) if preset == "smoke" else config), data

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """1. With the boundary loss Dice is higher and the Hausdorff distance lower than with generalized Dice alone.
        2. The boundary loss alone ends in empty predictions. 3. Validation is calmer near the end of training.
        """
        config, data = cls.claim_setting(preset)
        arms = variant_arms(cls, ("gdl_boundary", "gdl", "boundary"), config, f"{data}&seed={{seed}}")
        scores = score_arms(work, cls, arms, seeds=range(work.seed, work.seed + PRESETS[preset].seeds))
        pair = ("gdl_boundary", "gdl")
        higher, lower = "Dice of volumes is higher with the boundary loss", "Hausdorff distance is shorter with it"
        checks = [
            difference(scores.rows, "dice", *pair, statement=higher),
            difference(scores.rows, "hd_mm", *pair, lower_is_better=True, statement=lower),
            bound(
                scores.summaries,
                "last_found_ratio",
                "boundary",
                at_most=0.05,
                statement="alone it ends with next to nothing found (found per true pixels of validation volumes)",
            ),
            difference(
                scores.summaries,
                "validation_dice_sd",
                *pair,
                lower_is_better=True,
                statement="validation Dice varies less over the last epochs",
            ),
        ]
        notes = ["hd95_mm, and the paper's own way of scoring slices, are in the rows beside"]
        return ClaimResult(checks, [*scores.rows, *({**row, "case": "all"} for row in scores.summaries)], notes)

    def _network(self, trained: Trained) -> nn.Module:
        network = build_networks(self.config)["unet"]
        if trained.weights is not None:
            load_network(network, trained.weights, prefix="unet.")
        return network.eval()


def _problem(case: Case, config: BoundaryLossConfig) -> str:
    image, label = case.volume(config.modalities[0]), case.volume("label")
    if image.shape != label.shape or not np.allclose(image.affine, label.affine, atol=0.5 * min(image.spacing)):
        return f"its label map does not lie on its {config.modalities[0]}; save it on that image's grid"
    turned = canonical(label)
    places = np.argwhere(np.isin(turned.array, config.labels).any(axis=0))[:, :2]
    spacing, extent = np.array(turned.spacing[:2]), np.array(turned.shape[:2])
    pixel = config.spacing_mm or spacing
    lost = int((np.abs(places - (extent - 1) / 2) * spacing > np.array(config.size) * pixel / 2).any(axis=1).sum())
    if not lost:
        return ""
    return f"{lost} of its {len(places)} lesion voxels lie beyond the grid; raise --config.size or --config.spacing-mm"


def _at_the_end(work: Workbench, metrics: Mapping[str, float]) -> dict[str, float]:
    """What is found per true pixel after the last epoch, and how validation Dice varied over the last 20 epochs, or
    the last third of a shorter training, where the log of the loop lies on this machine.
    """
    told = {"last_found_ratio": metrics.get("validation_found_ratio", float("nan"))}
    path = work.out / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    history = [line["dice"] for line in lines if line.get("name") == "validation" and "dice" in line]
    last = history[-min(20, max(2, len(history) // 3)) :]
    told["validation_dice_sd"] = float(np.std(last, ddof=1)) if len(last) > 1 else float("nan")
    return {name: value for name, value in told.items() if math.isfinite(value)}


def score_volume(found: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float]) -> dict[str, float]:
    """Scores of one class in one volume.

    Where there is nothing and nothing was found, the scores of the volume are left out; where one of both is empty,
    Dice is 0 and distances are the length of the diagonal. The paper's scores of slices count such slices as 1 and as
    0 mm, which raises them with every empty slice.

    Args:
        found: (Z, H, W).
        truth: (Z, H, W).
        spacing: mm along Z, H and W; along H and W for a 2D image, whose Z is 1.
    """
    flat = len(spacing) == 2
    ours, theirs = (found[0], truth[0]) if flat else (found, truth)
    pairs = list(zip(found, truth, strict=True))
    slice_mm = [hausdorff_mm(a, b, spacing[-2:]) for a, b in pairs]
    lesions, num_lesions = ndimage.label(theirs)
    mine, num_mine = ndimage.label(ours)
    told = {
        "dice": dice(ours, theirs),
        "hd_mm": hausdorff_mm(ours, theirs, spacing),
        "hd95_mm": hausdorff_mm(ours, theirs, spacing, percentile=95.0),
        "dice_slice_empty_is_one": float(np.mean([dice(a, b, both_empty=1.0) for a, b in pairs])),
        "hd_slice_empty_is_zero_mm": float(np.mean([value if math.isfinite(value) else 0.0 for value in slice_mm])),
        "true_lesions": num_lesions,
        "found_lesions": len(np.unique(lesions[ours & theirs])),
        "false_lesions": num_mine - len(np.unique(mine[ours & theirs])),
        "true_px": int(truth.sum()),
        "found_px": int(found.sum()),
        "both_px": int((found & truth).sum()),
    }
    return {name: value for name, value in told.items() if math.isfinite(value)}


_COUNTS = ("true_lesions", "found_lesions", "false_lesions", "true_px", "found_px", "both_px")


def _score_case(
    system: BoundaryLoss, trained: Trained, cache: SampleCache, case: Case
) -> tuple[Row, list[Example], NDArray[np.float64] | None]:
    reader, config = StackReader(system.config, cache), system.config
    stack, truth = reader.stack(case), reader.classes(case)
    found = segment(system._network(trained), stack.image).argmax(1)
    spacing = (stack.grid.spacing[2], *stack.spacing_mm) if stack.grid.dims == 3 else stack.spacing_mm
    scores = [score_volume(found == n, truth == n, spacing) for n in range(1, len(config.labels) + 1)]
    row: Row = {"case": case.id, "slices": len(stack)}
    for name in scores[0].keys() | scores[-1].keys():
        values = [score[name] for score in scores if name in score]
        row[name] = int(sum(values)) if name in _COUNTS else float(np.mean(values))
    if len(scores) > 1:
        row.update({f"dice_{v}": s["dice"] for v, s in zip(config.labels, scores, strict=True) if "dice" in s})
    told = f"{case.id}  Dice {row['dice']:.2f}" if "dice" in row else case.id
    examples = [_example(stack, found, truth, _busiest(truth > 0), told)]
    false = np.where((truth > 0).any(axis=(1, 2)), 0, (found > 0).sum(axis=(1, 2)))
    if false.any():
        examples.append(_example(stack, found, truth, int(false.argmax()), f"{case.id}  no lesion"))
    return row, examples, _affine(stack)


def _busiest(masks: NDArray[Any]) -> int:
    """Number of the slice of (Z, H, W) that holds most; the middle one of equals."""
    sums = masks.sum(axis=(1, 2))
    best = np.flatnonzero(sums == sums.max())
    return int(best[len(best) // 2])


def _example(stack: SliceStack, found: NDArray[Any], truth: NDArray[Any] | None, index: int, title: str) -> Example:
    lesions = None if truth is None else truth[index] > 0
    return Example(stack.image[index, 0], found[index] > 0, lesions, f"{title} z={index}")


def _affine(stack: SliceStack) -> NDArray[np.float64] | None:
    """By which slices of a volume are turned as radiologists read them; a 2D image stays as it is stored."""
    return stack.grid.affine if stack.grid.dims == 3 else None


def _summarize(rows: Sequence[Row]) -> dict[str, float]:
    """Means over volumes that have the score, slices over all slices, counts over everything."""
    total = {name: float(sum(float(row[name]) for row in rows)) for name in (*_COUNTS, "slices")}
    told = {name: _mean(row[name] for row in rows if name in row) for name in ("dice", "hd_mm", "hd95_mm")}
    for name in ("dice_slice_empty_is_one", "hd_slice_empty_is_zero_mm"):
        told[name] = ratio(sum(float(row[name]) * float(row["slices"]) for row in rows), total["slices"])
    told["dice_pooled"] = ratio(2 * total["both_px"], total["true_px"] + total["found_px"])
    told["lesion_recall"] = ratio(total["found_lesions"], total["true_lesions"])
    told["false_lesions_per_volume"] = ratio(total["false_lesions"], len(rows))
    told["found_ratio"] = ratio(total["found_px"], total["true_px"])
    for name in sorted({name for row in rows for name in row if name.startswith("dice_") and name[5:].isdigit()}):
        told[name] = _mean(row[name] for row in rows if name in row)
    return {name: value for name, value in told.items() if math.isfinite(value)}


def _mean(values: Iterable[Any]) -> float:
    kept = [float(value) for value in values]
    return ratio(sum(kept), len(kept))


def _measure(mask: Volume, labels: Sequence[int]) -> dict[str, float]:
    """Lesions of each label and their size."""
    voxel_mm = float(np.prod(mask.spacing))
    told: dict[str, float] = {}
    for value in labels:
        end = "" if len(labels) == 1 else f"_{value}"
        inside = mask.array[0] == value
        told[f"num_lesions{end}"] = float(ndimage.label(inside)[1])
        size = float(inside.sum()) * voxel_mm
        told.update({f"volume_ml{end}": size / 1000} if mask.spatial_dims == 3 else {f"area_mm2{end}": size})
    return told
