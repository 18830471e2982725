"""Stain-transforming CycleGAN: one lab's slides in another lab's colors. De Bel et al., MIDL 2019.

Two generators translate between the labs and two discriminators judge them, unpaired (Zhu et al., ICCV 2017). New are a
small U-Net of residual blocks as generator, larger batches at a higher rate, a loss that at first holds each
translation to its own source (eq. 1), and slides translated in overlapping tiles whose answers are blended (sec. 3). A
segmentation network that one lab trained then works on the other lab's slides as it is.

Chosen here, since the text does not say: Adam, the weights of cycle and identity loss, a rate that falls to zero over
the second half of the epochs (as CycleGAN's does), 8e-4 as default rate (0.008, the paper's, in the preset ``paper``),
no buffer of earlier translations (its content would depend on which worker made them), and blending weights that fall
off from the middle of a tile (eq. 2 as printed is zero there; ``blend=printed``).
Shape letters: B patches, H rows, W columns. Images are RGB in [-1, 1]; lab A is the one whose segmentation is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.data.fields import case_fingerprint
from medray.data.pictures import rgb_pixels
from medray.learner import Learner, Schedule, Step, SumCount
from medray.nn.tiling import Blend, Tiling
from medray.systems.synthesis.generators import ResidualUNet, ResnetGenerator
from medray.systems.synthesis.slides import Pixels, color_augmented, tissue_pixels, to_image

_TISSUE_WINDOW_PX = 11
DIRECTIONS = ("b_to_a", "a_to_b")
"""Names of the generators, and what `predict` calls its directions."""


@dataclass(frozen=True, kw_only=True)
class StainConfig:
    """Two labs, a translator between them, and the segmentation network that judges it."""

    target: str = ""
    """Lab A: its folder; the other one's slides are made to look like its. The first in alphabetical order if left out
    (paper: RUMC, then AMC)."""
    swap: bool = False
    """Take the labs the other way round."""
    translator: Literal["gan", "reinhard", "none"] = "gan"
    """How slides are translated: the paper's networks, the mean and deviation of lightness and color matched (Reinhard
    et al. 2001, a linear normalizer), or not at all."""
    generator: Literal["unet", "resnet"] = "unet"
    """The paper's residual U-Net, or CycleGAN's generator with nine blocks."""
    depth: int = 3
    """Levels of the U-Net (paper 3, best of 1, 2, 3)."""
    width: int = 32
    """Channels at full size of a generator (paper 32)."""
    judge_width: int = 64
    """Channels of a discriminator's first layer (CycleGAN 64)."""
    judge_layers: int = 3
    """Strided layers of a discriminator (CycleGAN 3: it sees 70 x 70 px)."""
    patch_px: int = 256
    """Side of the training patches (paper 256)."""
    batch_size: int = 6
    """Patches of each lab in an update (paper 6, CycleGAN 1)."""
    learning_rate: float = 8e-4
    """Of Adam (paper 0.008 without naming the optimizer, CycleGAN 0.0002)."""
    lambda_cycle: float = 10.0
    """Weight of the cycle loss (not given; CycleGAN 10)."""
    identity: Literal["source", "target", "none"] = "source"
    """What a translation is held to at first: its own source (paper, eq. 1), images of the lab it leads to (CycleGAN's
    option), or nothing."""
    identity_weight: float = 5.0
    """Weight of that loss at the start (not given)."""
    identity_epochs: int = 20
    """Epochs over which it falls to 0 (paper 20)."""
    num_epochs: int = 100
    """Epochs of the translator (not given)."""
    updates_per_epoch: int = 500
    """Updates in an epoch; patches are drawn anew each time (not given)."""
    transductive: bool = False
    """Let the translator see the unlabelled test slides too, as the paper probably did."""
    segmenter_width: int = 32
    """Channels at full size of the segmentation U-Net."""
    segmenter_patch_px: int = 412
    """Side of its patches (paper 412)."""
    segmenter_updates: int = 4000
    """Its updates (not given)."""
    segmenter_rate: float = 5e-4
    """Its learning rate with Adam (not given)."""
    color_augmentation: bool = False
    """Train it with random brightness, contrast and color on top of flips and turns (paper: with and without)."""
    tile_px: int = 2048
    """What the generator sees at once on a slide (paper 2048; larger tiles have steadier statistics)."""
    kept_px: int = 1024
    """The middle of its answer that is used (paper 1024)."""
    step_px: int = 512
    """From tile to tile (paper 512: four answers for each pixel)."""
    blend: Blend = "pyramid"
    """How the answers are weighed; printed is eq. 2 to the letter."""
    test_fraction: float = 0.4
    """Share of the patients of each lab kept for testing."""

    def __post_init__(self) -> None:
        unit = 2**self.depth if self.generator == "unet" else 4
        for name in ("patch_px", "tile_px"):
            if getattr(self, name) % unit:
                raise ValueError(f"{name} must be a multiple of {unit} for this generator, got {getattr(self, name)}")
        if self.segmenter_patch_px % 4 or self.segmenter_patch_px < 16:
            raise ValueError(f"segmenter_patch_px must be a multiple of 4 from 16 on, got {self.segmenter_patch_px}")
        if self.patch_px < 2 ** (self.judge_layers + 2):
            raise ValueError(f"patches of {self.patch_px} px leave nothing to judge after {self.judge_layers} strides")
        self.tiling  # noqa: B018  refuses what cannot be cut

    @property
    def tiling(self) -> Tiling:
        """How slides are cut."""
        return Tiling(tile=self.tile_px, kept=self.kept_px, step=self.step_px, blend=self.blend)

    @property
    def multiple(self) -> int:
        """What the sides of a generator's input are multiples of."""
        return 2**self.depth if self.generator == "unet" else 4


# --- patches ---------------------------------------------------------------------------------------------------


class SlideReader:
    """Slides, their tissue and their labels, decoded once."""

    def __init__(self, cache: SampleCache | None = None) -> None:
        self.cache = cache

    def __call__(self, case: Case) -> Mapping[str, NDArray[Any]]:
        """``pixels`` (H, W, 3); ``tissue``, flat indices of pixels to center patches on; ``label`` (H, W) if any."""
        if self.cache is None:
            return self._read(case)
        used = [name for name in ("image", "label") if name in case.fields]
        return self.cache.get(("stain", case_fingerprint(case, used)), lambda: self._read(case))

    def _read(self, case: Case) -> dict[str, NDArray[Any]]:
        pixels = rgb_pixels(case.volume("image"), color=True)
        found: dict[str, NDArray[Any]] = {"pixels": pixels, "tissue": tissue_pixels(pixels, _TISSUE_WINDOW_PX)}
        if "label" in case.fields:
            found["label"] = case.volume("label").array[0]
        return found


def patch_at(array: NDArray[Any], center: int, side: int) -> NDArray[Any]:
    """The square around a pixel (its flat index), moved inside the image where it would leave it."""
    row, column = divmod(center, array.shape[1])
    top = min(max(row - side // 2, 0), array.shape[0] - side)
    left = min(max(column - side // 2, 0), array.shape[1] - side)
    return array[top : top + side, left : left + side]


def _draw(generator: torch.Generator, count: int) -> int:
    return int(torch.randint(count, (), generator=generator))


# --- the translator --------------------------------------------------------------------------------------------


def make_generator(config: StainConfig) -> nn.Module:
    """One generator."""
    if config.generator == "resnet":
        return ResnetGenerator(config.width)
    return ResidualUNet(config.depth, config.width)


def make_judge(config: StainConfig) -> nn.Module:
    """A PatchGAN discriminator with instance norm and leaky ReLU (Isola et al. 2017)."""
    from monai.networks.nets.patchgan_discriminator import (
        PatchDiscriminator,
    )  # 250 MB that a translation can do without

    return PatchDiscriminator(2, config.judge_width, 3, num_layers_d=config.judge_layers, norm="INSTANCE")


@dataclass(frozen=True)
class PatchPair:
    """Patches of the two labs, (B, 3, H, W) each; row i of one has nothing to do with row i of the other."""

    a: Tensor
    b: Tensor


class TranslatorLearner(Learner):
    """Two generators against two discriminators.

    Args:
        config: the method's settings.
        slides_a: of the target lab.
        slides_b: of the other one.
        cache: keeps decoded slides.
    """

    def __init__(
        self, config: StainConfig, slides_a: Sequence[Case], slides_b: Sequence[Case], cache: SampleCache | None = None
    ) -> None:
        super().__init__()
        self.config, self.slides = config, {"a": list(slides_a), "b": list(slides_b)}
        self.read = SlideReader(cache)
        self.networks = nn.ModuleDict(
            {
                "b_to_a": make_generator(config),
                "a_to_b": make_generator(config),
                "judge_a": make_judge(config),
                "judge_b": make_judge(config),
            }
        )
        self.schedule = Schedule(num_epochs=config.num_epochs, batch_size=config.batch_size, validate_every_epochs=0)

    def configure_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam for both generators together and for both discriminators together."""
        return {
            name: torch.optim.Adam(
                [p for part in parts for p in self.networks[part].parameters()],
                lr=self.config.learning_rate,
                betas=(0.5, 0.999),
            )
            for name, parts in (("generators", DIRECTIONS), ("judges", ("judge_a", "judge_b")))
        }

    def configure_schedulers(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Any]:
        """Constant for half of the epochs, then down to zero, as CycleGAN's."""
        last = self.config.num_epochs

        def factor(epoch: int) -> float:
            return min(1.0, 2 * (last - epoch) / max(1, last))

        return {name: torch.optim.lr_scheduler.LambdaLR(one, factor) for name, one in optimizers.items()}

    def num_samples(self) -> int:
        """Patches of an epoch; each is drawn anew in every epoch."""
        return self.config.updates_per_epoch * self.config.batch_size

    def collate(self, indices: Sequence[int], epoch: int) -> PatchPair:
        """A patch of each lab for each index, centered on tissue."""
        pairs = [self._patches(self.sample_generator(index, epoch)) for index in indices]
        return PatchPair(*(torch.stack(side) for side in zip(*pairs, strict=True)))

    def _patches(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        drawn = []
        for lab in ("a", "b"):
            found = self.read(self.slides[lab][_draw(generator, len(self.slides[lab]))])
            center = int(found["tissue"][_draw(generator, len(found["tissue"]))])
            drawn.append(to_image(patch_at(found["pixels"], center, self.config.patch_px)))
        return drawn[0], drawn[1]

    def identity_weight(self, epoch: int) -> float:
        """Falls to 0 over the first epochs."""
        config = self.config
        return config.identity_weight * max(0.0, 1 - epoch / config.identity_epochs) if config.identity_epochs else 0.0

    def training_step(self, batch: PatchPair, step: Step) -> Mapping[str, SumCount]:
        """Generators against frozen discriminators, then discriminators on what the generators made."""
        nets, config = self.networks, self.config
        for name in ("judge_a", "judge_b"):
            nets[name].requires_grad_(False)
        with step.autocast():
            fake_a, fake_b = nets["b_to_a"](batch.b), nets["a_to_b"](batch.a)
            cycled_a, cycled_b = nets["b_to_a"](fake_b), nets["a_to_b"](fake_a)
            said = [nets["judge_a"](fake_a)[-1], nets["judge_b"](fake_b)[-1]]
        adversarial = [_squares(one, 1.0) for one in said]
        cycle = _absolute(cycled_a, batch.a) + _absolute(cycled_b, batch.b)
        identity = self._identity(batch, fake_a, fake_b, step)
        weight = self.identity_weight(step.epoch) if config.identity != "none" else 0.0
        loss = sum((step.mean(part.total, part.count) for part in adversarial), start=torch.zeros(()))  # type: ignore[arg-type]
        loss = loss + 2 * config.lambda_cycle * _mean(step, cycle) + 2 * weight * _mean(step, identity)
        step.backward(loss)
        step.update("generators")

        for name in ("judge_a", "judge_b"):
            nets[name].requires_grad_(True)
        judged = SumCount(torch.zeros(()), 0.0)
        judge_loss = torch.zeros(())
        for name, real, fake in (("judge_a", batch.a, fake_a), ("judge_b", batch.b, fake_b)):
            with step.autocast():
                real_said, fake_said = nets[name](real)[-1], nets[name](fake.detach())[-1]
            part = _squares(real_said, 1.0) + _squares(fake_said, 0.0)
            judge_loss = judge_loss + _mean(step, part)
            judged = judged + _detached(part)
        step.backward(judge_loss)
        step.update("judges")
        return {
            "cycle_loss": _detached(cycle),
            "identity_loss": _detached(identity),
            "generator_loss": _detached(adversarial[0] + adversarial[1]),
            "judge_loss": judged,
        }

    def _identity(self, batch: PatchPair, fake_a: Tensor, fake_b: Tensor, step: Step) -> SumCount:
        if self.config.identity == "target":
            with step.autocast():
                same_a, same_b = self.networks["b_to_a"](batch.a), self.networks["a_to_b"](batch.b)
            return _absolute(same_a, batch.a) + _absolute(same_b, batch.b)
        return _absolute(fake_a, batch.b) + _absolute(fake_b, batch.a)  # eq. 1


def _squares(said: Tensor, wanted: float) -> SumCount:
    return SumCount((said.float() - wanted).square().sum(), float(said.numel()))


def _absolute(image: Tensor, other: Tensor) -> SumCount:
    return SumCount((image.float() - other).abs().sum(), float(other.numel()))


def _mean(step: Step, part: SumCount) -> Tensor:
    assert isinstance(part.total, Tensor)
    return step.mean(part.total, part.count)


def _detached(part: SumCount) -> SumCount:
    assert isinstance(part.total, Tensor)
    return SumCount(part.total.detach(), part.count)


# --- the frozen judge downstream -------------------------------------------------------------------------------


def make_segmenter(config: StainConfig, num_classes: int) -> nn.Module:
    """A plain U-Net without normalization (Ronneberger et al. 2015): nothing in it evens out another stain."""
    from monai.networks.nets.basic_unet import BasicUNet

    width = config.segmenter_width
    features = (width, width, 2 * width, 4 * width, 4 * width, width)
    return BasicUNet(2, 3, num_classes, features=features, norm=None, upsample="nontrainable")  # type: ignore[arg-type]


class SegmenterLearner(Learner):
    """The segmentation network of lab A, trained on its labels alone with cross-entropy.

    Args:
        config: the method's settings.
        slides: labelled ones of lab A.
        num_classes: background among them.
        cache: keeps decoded slides.
    """

    def __init__(
        self, config: StainConfig, slides: Sequence[Case], num_classes: int, cache: SampleCache | None = None
    ) -> None:
        super().__init__()
        self.config, self.slides, self.read = config, list(slides), SlideReader(cache)
        self.networks = nn.ModuleDict({"segmenter": make_segmenter(config, num_classes)})
        self.schedule = Schedule(num_epochs=_SEGMENTER_EPOCHS, batch_size=config.batch_size, validate_every_epochs=0)

    def configure_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam."""
        return {"segmenter": torch.optim.Adam(self.networks.parameters(), lr=self.config.segmenter_rate)}

    def configure_schedulers(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Any]:
        """Cosine to a hundredth."""
        rate = self.config.segmenter_rate / 100
        one = torch.optim.lr_scheduler.CosineAnnealingLR(optimizers["segmenter"], _SEGMENTER_EPOCHS, rate)
        return {"segmenter": one}

    def num_samples(self) -> int:
        """Patches of an epoch."""
        return max(1, self.config.segmenter_updates // _SEGMENTER_EPOCHS) * self.config.batch_size

    def collate(self, indices: Sequence[int], epoch: int) -> tuple[Tensor, Tensor]:
        """Patches (B, 3, H, W) and their labels (B, H, W), flipped and turned, recolored if asked for."""
        drawn = [self._patch(self.sample_generator(index, epoch)) for index in indices]
        images, labels = zip(*drawn, strict=True)
        return torch.stack(images), torch.stack(labels)

    def _patch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        found = self.read(self.slides[_draw(generator, len(self.slides))])
        center = _draw(generator, found["label"].size)
        side = min(self.config.segmenter_patch_px, *(n // 4 * 4 for n in found["label"].shape))
        pixels, label = (patch_at(found[name], center, side) for name in ("pixels", "label"))
        turns, flip = _draw(generator, 4), bool(_draw(generator, 2))
        pixels, label = np.rot90(pixels, turns), np.rot90(label, turns)
        if flip:
            pixels, label = np.flip(pixels, 1), np.flip(label, 1)
        if self.config.color_augmentation:
            pixels = color_augmented(pixels, torch.rand(5, generator=generator).tolist())
        return to_image(pixels), torch.from_numpy(label.astype(np.int64))

    def training_step(self, batch: tuple[Tensor, Tensor], step: Step) -> Mapping[str, SumCount]:
        """Cross-entropy."""
        images, labels = batch
        with step.autocast():
            logits = self.networks["segmenter"](images)
        loss = F.cross_entropy(logits.float(), labels, reduction="sum")
        step.backward(step.mean(loss, labels.numel()))
        step.update("segmenter", max_norm=1.0)
        return {"segmenter_loss": SumCount(loss.detach(), labels.numel())}


_SEGMENTER_EPOCHS = 10


@torch.no_grad()
def segment(network: nn.Module, pixels: Pixels, side: int) -> NDArray[np.uint8]:
    """Classes of a slide in memory, (H, W), by MONAI's overlapping windows."""
    from monai.inferers.utils import sliding_window_inference

    roi = tuple(min(side, -(-n // 16) * 16) for n in pixels.shape[:2])
    logits = sliding_window_inference(
        to_image(pixels)[None], roi, 4, network, overlap=0.25, mode="gaussian", padding_mode="reflect"
    )
    assert isinstance(logits, Tensor)
    return np.asarray(logits[0].argmax(0).numpy(), dtype=np.uint8)
