"""Small learners of the shapes systems have: one network, two networks that compete, state that belongs to samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medray.errors import UserError
from medray.learner import Learner, Schedule, Step, SumCount, seed_of


def _data(num: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(num, 4, generator=generator)
    return x, x @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]]) + 0.1 * torch.randn(num, 1, generator=generator)


class Regression(Learner):
    """A small network with dropout, a schedule and a validation set. Batches do not divide the data evenly."""

    def __init__(
        self, *, num_samples: int = 11, batch_size: int = 4, num_epochs: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.x, self.y = _data(num_samples)
        layers = [nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)]
        self.networks = nn.ModuleDict({"net": nn.Sequential(*layers)})
        self.schedule = Schedule(num_epochs=num_epochs, batch_size=batch_size, monitor="mse", mode="min")
        self.visited: list[list[int]] = []

    def configure_optimizers(self) -> dict[str, Optimizer]:
        return {"net": Adam(self.networks.parameters(), lr=0.05)}

    def configure_schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, Any]:
        return {"net": torch.optim.lr_scheduler.ExponentialLR(optimizers["net"], 0.9)}

    def num_samples(self) -> int:
        return len(self.x)

    def collate(self, indices: Sequence[int], epoch: int) -> dict[str, Tensor]:
        self.visited.append(list(indices))
        return {"x": self.x[list(indices)], "y": self.y[list(indices)], "index": torch.tensor(indices)}

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, SumCount]:
        with step.autocast():
            error = (self.networks["net"](batch["x"]).float() - batch["y"]).square()
        step.backward(step.mean(error.sum(), error.numel()))
        step.update("net", max_norm=1.0)
        return {"loss": SumCount(error.detach().sum(), error.numel())}

    def num_validation_samples(self) -> int:
        return 5

    def validation_step(self, index: int) -> dict[str, SumCount]:
        error = (self.networks["net"](self.x[index : index + 1]) - self.y[index]).square()
        return {"mse": SumCount(error.sum(), error.numel())}


class Unreadable(Regression):
    """Some samples turn out to be damaged while training."""

    def __init__(self, bad: Sequence[int]) -> None:
        super().__init__()
        self.bad = set(bad)

    def collate(self, indices: Sequence[int], epoch: int) -> dict[str, Tensor]:
        for index in indices:
            if index in self.bad:
                raise UserError(f"/scans/{index}.nii.gz is truncated")
        return super().collate(indices, epoch)


class Rivals(Learner):
    """A GAN in miniature: two networks, two optimizers, one frozen while the other moves, an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.x, _ = _data(10)
        self.networks = nn.ModuleDict(
            {
                "generator": nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4)),
                "critic": nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1)),
                "unused": nn.Linear(2, 2),
            }
        )
        self.schedule = Schedule(num_epochs=2, batch_size=4, validate_every_epochs=0)

    def configure_optimizers(self) -> dict[str, Optimizer]:
        generator = [*self.networks["generator"].parameters(), *self.networks["unused"].parameters()]
        return {
            "generator": Adam(generator, lr=0.01, weight_decay=0.1),
            "critic": Adam(self.networks["critic"].parameters(), lr=0.01),
        }

    def num_samples(self) -> int:
        return len(self.x)

    def collate(self, indices: Sequence[int], epoch: int) -> Tensor:
        noise = [torch.randn(4, generator=torch.Generator().manual_seed(seed_of(i, epoch))) for i in indices]
        return torch.stack([self.x[list(indices)], torch.stack(noise)])

    def training_step(self, batch: Tensor, step: Step) -> dict[str, SumCount]:
        real, noise = batch
        generator, critic = self.networks["generator"], self.networks["critic"]
        fake = generator(noise)
        gap = critic(fake.detach()).sum() - critic(real).sum()
        step.backward(step.mean(gap, len(real)))
        step.update("critic")
        critic.requires_grad_(False)
        score = -critic(fake).sum()
        step.backward(step.mean(score, len(real)))
        critic.requires_grad_(True)
        step.update("generator")
        return {"gap": SumCount(gap.detach(), len(real))}


class Diary(Regression):
    """Each sample remembers how often it was seen and the last error made on it."""

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, SumCount]:
        for index in batch["index"].tolist():
            before = self.sample_state.get(index, {"visits": torch.zeros(1), "order": torch.zeros(1)})
            self.sample_state[index] = {
                "visits": before["visits"] + 1,
                "order": before["order"] * 0.5 + float(self.networks["net"][0].weight.detach().sum()),
            }
        return super().training_step(batch, step)


class Normed(Regression):
    """With batch normalization, whose running statistics see every batch."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.networks["net"][1] = nn.Sequential(nn.BatchNorm1d(8), nn.Tanh())


class Autoencoder(Learner):
    """A variational autoencoder with a discriminator, gradients accumulated over halves of a batch, an averaged copy
    of the weights, and a frozen part that only passes gradients on."""

    def __init__(self) -> None:
        super().__init__()
        self.x, _ = _data(10)
        encoder = nn.Linear(4, 4)
        self.networks = nn.ModuleDict(
            {
                "encoder": encoder,
                "decoder": nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 4)),
                "discriminator": nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1)),
                "perceptual": nn.Linear(4, 3).requires_grad_(False),
                "average": AveragedModel(encoder, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
            }
        )
        self.schedule = Schedule(num_epochs=3, batch_size=4, validate_every_epochs=0)

    def configure_optimizers(self) -> dict[str, Optimizer]:
        parts = [*self.networks["encoder"].parameters(), *self.networks["decoder"].parameters()]
        return {
            "autoencoder": Adam(parts, lr=0.02),
            "discriminator": Adam(self.networks["discriminator"].parameters(), lr=0.01),
        }

    def num_samples(self) -> int:
        return len(self.x)

    def collate(self, indices: Sequence[int], epoch: int) -> Tensor:
        noise = [torch.randn(2, generator=self.sample_generator(i, epoch)) for i in indices]
        return torch.cat([self.x[list(indices)], torch.stack(noise)], dim=1)

    def training_step(self, batch: Tensor, step: Step) -> dict[str, SumCount]:
        nets, total, made = self.networks, SumCount(0.0, 0.0), []
        for half in batch.tensor_split(2):  # gradient accumulation: two parts on every worker, one may be empty
            x, noise = half[:, :4], half[:, 4:]
            mean, log_variance = nets["encoder"](x).chunk(2, dim=1)
            y = nets["decoder"](mean + (0.5 * log_variance).exp() * noise)
            error = (nets["perceptual"](y) - nets["perceptual"](x)).square().sum() + (y - x).square().sum()
            divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()
            loss = error + 0.1 * divergence + nn.functional.softplus(-nets["discriminator"](y)).sum()
            step.backward(step.mean(loss, len(batch)))
            total += SumCount(loss.detach(), len(half))
            made.append(y.detach())
        step.update("autoencoder", max_norm=5.0)
        nets["discriminator"].zero_grad()  # what came through it on the way to the decoder is not its own
        scores = nets["discriminator"](torch.cat([batch[:, :4], *made]))
        sign = torch.ones_like(scores)
        sign[len(batch) :] = -1
        step.backward(step.mean(nn.functional.softplus(-sign * scores).sum(), len(scores)))
        step.update("discriminator")
        nets["average"].update_parameters(nets["encoder"])
        return {"loss": total}


class Segmenter(Learner):
    """A U-Net on bright discs in noise, soft Dice over all pixels of the batch.

    Args:
        norm: normalization layer of MONAI's U-Net.
        frozen_statistics: normalize by running statistics, as at inference, also while training.
    """

    def __init__(self, norm: str = "instance", *, frozen_statistics: bool = False, num_samples: int = 7) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(
            {"unet": UNet(spatial_dims=2, in_channels=1, out_channels=1, channels=(4, 8), strides=(2,), norm=norm)}
        )
        self.frozen_statistics = frozen_statistics
        self.schedule = Schedule(num_epochs=2, batch_size=3, monitor="dice")
        rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
        generator = torch.Generator().manual_seed(3)
        centers = torch.rand(num_samples, 2, generator=generator) * 8 + 4
        self.masks = torch.stack([((rows - y) ** 2 + (columns - x) ** 2 < 9).float() for y, x in centers])[:, None]
        self.images = self.masks + 0.3 * torch.randn(self.masks.shape, generator=generator)

    def configure_optimizers(self) -> dict[str, Optimizer]:
        # Not Adam: a bias in front of a normalization has no gradient but rounding, which Adam would blow up.
        return {"unet": SGD(self.networks.parameters(), lr=0.1, momentum=0.9)}

    def num_samples(self) -> int:
        return len(self.images)

    def collate(self, indices: Sequence[int], epoch: int) -> tuple[Tensor, Tensor]:
        return self.images[list(indices)], self.masks[list(indices)]

    def training_step(self, batch: tuple[Tensor, Tensor], step: Step) -> dict[str, SumCount]:
        if self.frozen_statistics:
            for layer in self.networks.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        with step.autocast():
            logits = self.networks["unet"](batch[0])
        error = nn.functional.binary_cross_entropy_with_logits(logits.float(), batch[1], reduction="none")
        step.backward(step.mean(error.sum(), error.numel()))
        step.update("unet", max_norm=1.0)
        return {"loss": SumCount(error.detach().sum(), error.numel())}

    def num_validation_samples(self) -> int:
        return 3

    def validation_step(self, index: int) -> dict[str, SumCount]:
        found = self.networks["unet"](self.images[index : index + 1]) > 0
        mask = self.masks[index : index + 1] > 0
        return {"dice": SumCount(2 * (found & mask).sum(), found.sum() + mask.sum())}


class Breaks(Regression):
    """A mistake in the code, met in the second epoch."""

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, SumCount]:
        if step.epoch == 1:
            raise ZeroDivisionError("the learner's own mistake")
        return super().training_step(batch, step)


def disc_learner() -> Learner:
    """The real thing in small: SUTS on four pairs of discs in opposite contrast, whose grids live in sample state."""
    from medray.systems.registration.pair_reader import ImagePair
    from medray.systems.registration.suts import SutsConfig
    from medray.systems.registration.suts_learner import SutsLearner

    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    pairs = []
    for shift in (2.0, -3.0, 4.0, 1.0, -2.0):
        moving, fixed = (((rows - 16 - move) ** 2 + (columns - 16) ** 2).sqrt() for move in (shift, 0.0))
        images = (8 - moving).tanh(), (fixed - 8).tanh()
        labels = (moving < 8).long(), (fixed < 8).long()
        pairs.append(
            ImagePair(
                id=str(shift),
                moving=images[0].numpy(),
                fixed=images[1].numpy(),
                spacing_mm=(1.0, 1.0),
                affine=np.eye(4),
                moving_label=labels[0].numpy(),
                fixed_label=labels[1].numpy(),
            )
        )
    config = SutsConfig(
        grid_spacing=(12, 8), smooth_weights=(0.01, 0.01), strides=(2, 1), iterations_per_scale=10, subintervals=2
    )
    return SutsLearner(config, pairs, pairs[:2])
