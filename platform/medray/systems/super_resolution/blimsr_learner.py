"""BliMSR's gradient loop: degrade crops, enlarge them, judge. One step of the generator, then one of its judge.

The epoch with the best SSIM on frozen degradations of the validation images is kept: with an adversarial loss the last
one need not be the best, PSNR prefers blur, and the perceptual distance is the loss's own measure. Epochs of a warm-up
do not compete: the content loss alone may well have the higher SSIM, and would then be what is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.errors import UserError
from medray.learner import Learner, Schedule, Step, SumCount, seed_of
from medray.systems.super_resolution.blimsr_config import BlimsrConfig
from medray.systems.super_resolution.blimsr_losses import (
    adversarial_loss,
    content_loss,
    discriminator_loss,
    dissimilarity_loss,
    gradient_loss,
    perceptual_loss,
)
from medray.systems.super_resolution.degradation import DegradationSettings, Plan, degrade, draw_plan
from medray.systems.super_resolution.high_res import HighResReader
from medray.systems.super_resolution.networks import make_discriminator, make_generator
from medray.systems.super_resolution.perceptual import block_weights, open_features
from medray.systems.super_resolution.scores import image_scores


@dataclass(frozen=True)
class Crops:
    """High-resolution crops (B, 1, H, W) in [0, 1] and what will be done to each."""

    high: Tensor
    plans: list[Plan]


class BlimsrLearner(Learner):
    """A generator against a discriminator, or alone where the adversarial loss has no weight.

    Args:
        config: the method's settings.
        train: cases with the field ``image``, at least ``crop_px`` on each side.
        validation: cases that decide which epoch counts; none keeps the last.
        cache: keeps decoded images.
    """

    def __init__(
        self, config: BlimsrConfig, train: Sequence[Case], validation: Sequence[Case], cache: SampleCache | None = None
    ) -> None:
        super().__init__()
        self.config, self.train, self.validation = config, list(train), list(validation)
        self.read = HighResReader(window=config.hu_window, scaling=config.scaling, cache=cache)
        self.degradation = DegradationSettings(kind=config.degradation, strength=config.degradation_strength)
        self._warming_up = False
        self.features = open_features(config)  # frozen: not in the checkpoints, and moved along by hand
        self.networks = nn.ModuleDict({"generator": make_generator(config)})
        if config.is_adversarial:
            self.networks["discriminator"] = make_discriminator(config)
        self.schedule = Schedule(
            num_epochs=config.num_epochs if config.learns else 0,
            batch_size=config.batch_size,
            monitor="ssim" if self.validation else None,
        )

    def configure_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam for each network."""
        if not self.config.learns:
            return {}
        return {
            name: torch.optim.Adam(network.parameters(), lr=self.config.lr, betas=self.config.betas)
            for name, network in self.networks.items()
        }

    def num_samples(self) -> int:
        """Crops of an epoch."""
        return len(self.train) * self.config.crops_per_image

    def sample_name(self, index: int) -> str:
        """The case's id."""
        return self.train[index // self.config.crops_per_image].id

    def collate(self, indices: Sequence[int], epoch: int) -> Crops:
        """A crop for each index, flipped and turned, with its degradation drawn.

        Raises:
            UserError: an image cannot be read or is smaller than a crop.
        """
        drawn = [self._crop(index, self.sample_generator(index, epoch)) for index in indices]
        return Crops(torch.stack([crop for crop, _ in drawn]), [plan for _, plan in drawn])

    def _crop(self, index: int, generator: torch.Generator) -> tuple[Tensor, Plan]:
        case, side = self.train[index // self.config.crops_per_image], self.config.crop_px
        image = self.read.image(case)
        _, rows, columns = image.shape
        if min(rows, columns) < side:
            raise UserError(
                f"{case.id}: the image of {rows} x {columns} pixels is smaller than --config.crop-px {side}"
            )
        top, left = (int(torch.randint(length - side + 1, (), generator=generator)) for length in (rows, columns))
        turns, flip = (int(torch.randint(count, (), generator=generator)) for count in (4, 2))
        crop = image[:, top : top + side, left : left + side].rot90(turns, (1, 2))
        crop = crop.flip(2) if flip else crop
        return crop.contiguous(), draw_plan(self.degradation, (side, side), generator)

    def training_step(self, batch: Crops, step: Step) -> Mapping[str, SumCount]:
        """The generator against the frozen discriminator, then the discriminator; at first the content loss alone."""
        low = degrade(batch.high, batch.plans)
        with step.autocast():
            enlarged = self.networks["generator"](low)
        enlarged = enlarged.float()
        warming_up = step.epoch < self.config.warmup_epochs
        losses = self._structure_losses(enlarged, batch.high)
        weights = {"content_loss": 1.0} if warming_up else self._weights()
        if weights.get("perceptual_loss"):
            losses["perceptual_loss"] = self._perceptual(enlarged, batch.high, step)
        if weights.get("adversarial_loss"):
            losses["adversarial_loss"] = self._adversarial(enlarged, low, step)
        each = torch.stack([weight * losses[name] for name, weight in weights.items() if weight]).sum(dim=0)
        step.backward(step.mean(each.sum(), len(each)))
        step.update("generator")
        losses["generator_loss"] = each
        if weights.get("adversarial_loss"):
            losses["discriminator_loss"] = self._judge_step(enlarged.detach(), batch.high, low, step)
        return {name: SumCount(one.detach().sum(), float(len(one))) for name, one in losses.items()}

    def _weights(self) -> dict[str, float]:
        config = self.config
        return {
            "perceptual_loss": config.lambda_perc,
            "adversarial_loss": config.lambda_adv,
            "content_loss": config.lambda_cont,
            "gradient_loss": config.lambda_grad,
            "dissimilarity_loss": config.lambda_dssim,
        }

    def _structure_losses(self, enlarged: Tensor, high: Tensor) -> dict[str, Tensor]:
        """The terms that compare images, (B,) each; they are logged whatever they weigh."""
        shape = enlarged.detach() if self.config.detached_structure_losses else enlarged
        return {
            "content_loss": content_loss(enlarged, high),
            "gradient_loss": gradient_loss(shape, high),
            "dissimilarity_loss": dissimilarity_loss(shape, high),
        }

    def _perceptual(self, enlarged: Tensor, high: Tensor, step: Step) -> Tensor:
        assert self.features is not None
        self.features.to(high.device)
        with step.autocast():
            mine = self.features(enlarged)
            with torch.no_grad():
                other = self.features(high)
        return perceptual_loss(
            [one.float() for one in mine], [one.float() for one in other], block_weights(self.config)
        )

    def _adversarial(self, enlarged: Tensor, low: Tensor, step: Step) -> Tensor:
        judge = self.networks["discriminator"].requires_grad_(False)
        with step.autocast():
            said = judge(enlarged, low)
        return adversarial_loss(said.float(), self.config.gan)

    def _judge_step(self, enlarged: Tensor, high: Tensor, low: Tensor, step: Step) -> Tensor:
        judge = self.networks["discriminator"].requires_grad_(True)
        with step.autocast():
            real, fake = judge(high, low), judge(enlarged, low)
        each = discriminator_loss(real.float(), fake.float(), self.config.gan)
        step.backward(step.mean(each.sum(), len(each)))
        step.update("discriminator")
        return each

    def begin_epoch(self, epoch: int) -> None:
        """Notes whether the epoch is part of a warm-up that something follows."""
        config = self.config
        self._warming_up = epoch < config.warmup_epochs < config.num_epochs

    def num_validation_samples(self) -> int:
        """Whole images; none while warming up."""
        return 0 if self._warming_up else len(self.validation)

    def validation_step(self, index: int) -> Mapping[str, SumCount]:
        """Scores of a validation image, degraded in the same way in every epoch and run."""
        high = self.read.image(self.validation[index])
        generator = torch.Generator().manual_seed(seed_of("blimsr validation", index))
        plan = draw_plan(self.degradation, (high.shape[1], high.shape[2]), generator)
        device = next(self.networks["generator"].parameters()).device
        high = high.to(device)
        enlarged = self.networks["generator"](degrade(high[None], [plan])).float().clamp(0, 1)[0]
        scores = image_scores(enlarged, high, self.features, brief=True)
        return {name: SumCount(value, 1.0) for name, value in scores.items()}
