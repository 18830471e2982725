"""CSS-Net's gradient loop: segmentation, classification and substitution on the same batch, one step for all.

Substituted images are made of the torn images of a batch. They are learnt from as they are (no gradient reaches S
through them), while L5 teaches S by a classifier that is held still, so that it cannot win by forgetting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.learner import Learner, Schedule, Step, SumCount, seed_of
from medray.systems.shoulder.css_building import make_networks
from medray.systems.shoulder.css_config import CssConfig
from medray.systems.shoulder.css_features import SpectrumFeatures, vgg_content_loss
from medray.systems.shoulder.css_losses import (
    LossWeights,
    absence_loss,
    classification_loss,
    identity_loss,
    segmentation_loss,
)
from medray.systems.shoulder.css_reading import SliceSquares
from medray.systems.shoulder.css_scores import slice_scores
from medray.systems.shoulder.css_substitution import (
    TEAR,
    TENDON,
    composite,
    content_loss,
    from_spectrum,
    tendon_instead,
    to_spectrum,
)
from medray.systems.shoulder.css_translator import (
    Translator,
    fooling_loss,
    judge_and_update,
    judging_loss,
    make_judge,
)

_GAN_BETAS = (0.5, 0.999)


@dataclass(frozen=True)
class Slices:
    """Images (B, 1, H, W) in [0, 1] and their label maps (B, H, W) int64."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Substituted:
    """Torn images (N, 1, H, W) of a batch without their tears, and the losses of what made them."""

    images: Tensor
    labels: Tensor
    losses: Mapping[str, SumCount]


class CssLearner(Learner):
    """M_seg with what helps it.

    Args:
        config: the method's settings.
        train: slices with ``image`` and ``label``.
        validation: slices that decide which epoch counts; without a tear among them the last one does.
        cache: keeps decoded slices.
    """

    def __init__(
        self, config: CssConfig, train: Sequence[Case], validation: Sequence[Case], cache: SampleCache | None = None
    ) -> None:
        super().__init__()
        self.config, self.train, self.validation = config, list(train), list(validation)
        self.read = SliceSquares(config.size_px, config.normalize, cache)
        self.networks = make_networks(config)
        if config.substitute == "gan":
            self.networks["translator"] = Translator(config.translator_width)
            self.networks["judge"] = make_judge(config.translator_width)
        # frozen: not in the checkpoints, and moved along by hand
        needed = config.substitute == "sl" and config.content != "log_magnitude"
        self.features = SpectrumFeatures(config.vgg19_weights) if needed else None
        decides = any(self._kind(case) == TEAR for case in self.validation)
        self.schedule = Schedule(
            num_epochs=config.num_epochs, batch_size=config.batch_size, monitor="iou_tear" if decides else None
        )

    def _kind(self, case: Case) -> int:
        """0 nothing, 1 tendon, 2 tear."""
        label = self.read.read(case).label
        return 0 if label is None else int(label.max())

    def configure_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam for all that learns together, the factors too; of a GAN one for each side."""
        config, nets = self.config, self.networks
        alone = ("translator", "judge")
        together = [p for name, net in nets.items() if name not in alone for p in net.parameters() if p.requires_grad]
        found: dict[str, torch.optim.Optimizer] = {
            "adam": torch.optim.Adam(together, lr=config.lr, betas=config.betas, eps=config.eps)
        }
        for name in ("translator", "judge"):
            if name in nets:
                found[name] = torch.optim.Adam(nets[name].parameters(), lr=config.lr, betas=_GAN_BETAS)
        return found

    def configure_schedulers(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, LRScheduler]:
        """Down to 0 along a cosine."""
        return {name: CosineAnnealingLR(one, self.config.num_epochs) for name, one in optimizers.items()}

    def num_samples(self) -> int:
        """Slices."""
        return len(self.train)

    def sample_name(self, index: int) -> str:
        """The case's id."""
        return self.train[index].id

    def order(self, epoch: int, seed: int) -> Sequence[int]:
        """A permutation, or with ``balance`` as many draws, of which each kind of image has the same share."""
        if self.config.balance == "none":
            return super().order(epoch, seed)
        kinds = torch.tensor([self._kind(case) for case in self.train])
        weights = 1.0 / torch.bincount(kinds, minlength=3).clamp_min(1).float()[kinds]
        generator = torch.Generator().manual_seed(seed_of("balanced order", seed, epoch))
        drawn: list[int] = torch.multinomial(weights, len(kinds), True, generator=generator).tolist()
        return drawn

    def collate(self, indices: Sequence[int], epoch: int) -> Slices:
        """Slices, each mirrored or not (table 4: flip)."""
        drawn = [self._slice(index, self.sample_generator(index, epoch)) for index in indices]
        images, labels = zip(*drawn, strict=True)
        return Slices(torch.stack(images), torch.stack(labels))

    def _slice(self, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        found = self.read.read(self.train[index])
        assert found.label is not None
        image, label = torch.from_numpy(found.image), torch.from_numpy(found.label.astype(np.int64))
        return (image.flip(2), label.flip(1)) if torch.rand((), generator=generator) < 0.5 else (image, label)

    def training_step(self, batch: Slices, step: Step) -> Mapping[str, SumCount]:
        """Table 2's total over real and substituted images, then the GAN's judge if there is one."""
        torn = (batch.labels == TEAR).flatten(1).any(dim=1)
        made = self._substituted(batch, torn, step) if self.config.substitute != "none" else None
        losses = dict(made.losses) if made else {}
        learnt = made if made and step.epoch >= self.config.augment_from_epoch else None
        losses |= self._supervised(batch, torn, learnt, step)
        weights = self.networks["weights"]
        assert isinstance(weights, LossWeights)
        fooling = losses.pop("translator_loss", None)
        total = weights.total(losses, step)
        if fooling is not None:
            assert isinstance(fooling.total, Tensor)
            total = total + step.mean(fooling.total, fooling.count)
        step.backward(total)
        step.update("adam")
        if fooling is not None and made is not None:
            step.update("translator")
            tear = (batch.labels[torn] == TEAR).float()[:, None]
            judged = judging_loss(self.networks["judge"], batch.images, batch.labels, made.images, tear)
            judge_and_update(step, judged)
            losses |= {"translator_loss": fooling, "judge_loss": judged}
        return {name: SumCount(torch.as_tensor(one.total).detach(), one.count) for name, one in losses.items()}

    def _supervised(self, batch: Slices, torn: Tensor, made: Substituted | None, step: Step) -> dict[str, SumCount]:
        """L1 and L2, on the real images and on what was substituted."""
        images, labels, present = batch.images, batch.labels, torn.long()
        num_segmented = len(images)
        if made is not None:
            images = torch.cat([images, made.images.detach()])
            labels = torch.cat([labels, made.labels])
            present = torch.cat([present, present.new_zeros(len(made.images))])
            num_segmented = len(images) if self.config.augment == "both" else num_segmented
        segmenter = self.networks["segmenter"]
        if not self.config.classify:
            with step.autocast():
                logits = segmenter(images[:num_segmented])
            return {"segmentation_loss": self._pixels(logits, labels[:num_segmented])}
        with step.autocast():
            features = segmenter.get_submodule("encoder")(images)
            logits = segmenter.get_submodule("decoder")([level[:num_segmented] for level in features])
            said = self.networks["classifier"](features)
        return {
            "classification_loss": _summed(classification_loss(said, present)),
            "segmentation_loss": self._pixels(logits, labels[:num_segmented]),
        }

    def _pixels(self, logits: Tensor, labels: Tensor) -> SumCount:
        return _summed(segmentation_loss(logits, labels, self.config.pixel_loss))

    def _substituted(self, batch: Slices, torn: Tensor, step: Step) -> Substituted:
        images, labels = batch.images[torn], batch.labels[torn]
        tear = (labels == TEAR).float()[:, None]
        if self.config.substitute == "gan":
            if not len(images):
                return Substituted(images, labels, {"translator_loss": SumCount(batch.images.sum() * 0.0, 0.0)})
            repainted = self.networks["translator"](images, tear)
            losses = {"translator_loss": fooling_loss(self.networks["judge"], repainted, tear)}
            return Substituted(repainted, tendon_instead(labels), losses)
        # the empty spectrum comes along, for L4
        regions = torch.cat([images * tear, torch.zeros_like(batch.images[:1])])
        spectra = self.networks["substitution"](to_spectrum(regions))
        replaced = from_spectrum(spectra)
        made = composite(images, tear, replaced[:-1])
        whole = (~torn).sum()
        losses = {
            "content_loss": self._content(images, labels, spectra[:-1]),
            "identity_loss": SumCount(identity_loss(replaced[-1:]).sum() * whole, whole.float()),
        }
        if self.config.classify:
            losses["absence_loss"] = self._absence(made, step)
        return Substituted(made, tendon_instead(labels), losses)

    def _content(self, images: Tensor, labels: Tensor, spectra: Tensor) -> SumCount:
        """L3, of images that show tendon and tear."""
        both = (labels == TENDON).flatten(1).any(dim=1)
        if not both.any():
            return SumCount(spectra.sum() * 0.0, 0.0)
        labels, tendon = labels[both], (labels[both] == TENDON).float()[:, None]
        wanted = to_spectrum(images[both] * tendon)
        if self.features is not None:
            self.features.to(images.device)
            signed = self.config.content == "signed_vgg"
            return _summed(vgg_content_loss(self.features, spectra[both], wanted, signed=signed))
        tear_px = (labels == TEAR).flatten(1).sum(dim=1)
        return _summed(content_loss(spectra[both], wanted, tear_px, tendon.flatten(1).sum(dim=1)))

    def _absence(self, made: Tensor, step: Step) -> SumCount:
        """L5; the classifier's own weights get nothing from it."""
        if not len(made):
            return SumCount(made.sum() * 0.0, 0.0)
        encoder, head = self.networks["segmenter"].get_submodule("encoder"), self.networks["classifier"]
        for part in (encoder, head):
            part.requires_grad_(False)
        with step.autocast():
            said = head(encoder(made))
        for part in (encoder, head):
            part.requires_grad_(True)
        return _summed(absence_loss(said))

    def num_validation_samples(self) -> int:
        """Slices."""
        return len(self.validation)

    def validation_step(self, index: int) -> Mapping[str, SumCount]:
        """IoU of each class in a slice that shows it."""
        found = self.read.read(self.validation[index])
        assert found.label is not None
        segmenter: nn.Module = self.networks["segmenter"]
        device = next(segmenter.parameters()).device
        with torch.no_grad():
            labels = segmenter(torch.from_numpy(found.image)[None].to(device))[0].float().argmax(0).cpu().numpy()
        scores = slice_scores(labels, found.label)
        kept = {name: scores[name] for name in ("iou_tendon", "iou_tear", "tear_sensitivity")}
        return {name: SumCount(value, 1.0) if value == value else SumCount(0.0, 0.0) for name, value in kept.items()}


def _summed(each: Tensor) -> SumCount:
    return SumCount(each.sum(), float(len(each)))
