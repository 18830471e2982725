"""Hybrid cascade: undersampled MR k-space to images by CNN blocks in both domains. Souza et al., MIDL 2019.

Six residual CNN blocks, four on images (I) and two on k-space (K) in the order IKIKII; after each one what was measured
is put back (data consistency), the Fourier transforms between them are fixed, and everything is trained end to end on
the mean squared error. Peers are the same cascade in another order of domains, with U-Nets as blocks, without data
consistency, or against a critic.

The text is the default where the authors' code differs from it; what the code does are variants of the system
(`hybrid_cascade_system`). One exception: the text's 3x3 last layer contradicts its own count of 380,172 weights, which
a 1x1 layer gives.
Shape letters: B slices, H rows, W columns; channels are real and imaginary part.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from monai.networks.nets.basic_unet import BasicUNet
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, softplus
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.data.kspace import RawReader, gaussian_mask
from medray.errors import UserError
from medray.learner import Learner, Schedule, Step, SumCount
from medray.nn.kspace import Convention, consistent, magnitude, mask_in, to_image, to_kspace

POOL = 100
"""Masks in the pool of the variant pool100."""


@dataclass(frozen=True, kw_only=True)
class HybridConfig:
    """The method's settings; defaults are the paper's."""

    domains: str = "IKIKII"
    """Domain of each block, I for images and K for k-space (paper IKIKII; KIKI-net-like is KIKIKI)."""
    num_blocks: int = 6
    """Takes the first of these domains only, for smaller runs (paper 6)."""
    block: Literal["cnn", "unet"] = "cnn"
    """What a block is: the paper's residual CNN, or a U-Net (W-net is KI of U-Nets without data consistency)."""
    block_depth: int = 4
    """Hidden 3x3 layers of a CNN block (paper 4; default of the authors' code 5)."""
    filters: int = 48
    """Channels of the hidden layers (paper 48), or of a U-Net's first level."""
    last_kernel: Literal[1, 3] = 1
    """Kernel of a block's last layer; the text says 3, its number of weights says 1."""
    data_consistency: bool = True
    """Put the measured samples back after each block (paper)."""
    final_dc: bool = True
    """Also after the last block (the figure is not readable; the authors' code does)."""
    sampling: float = 0.25
    """Share of k-space that is measured (paper 0.25 and 0.20, a model for each)."""
    mask: Literal["fixed", "pool100"] = "fixed"
    """One Gaussian pattern for all slices (paper), or another of 100 at each presentation (authors' code)."""
    mask_seed: int = 0
    """Of the sampling pattern."""
    fft: Convention = "centered"
    """Orthonormal with zero frequency in the middle, or raw as in the authors' code."""
    augment: bool = False
    """Rotate, shift, zoom and flip training images (authors' code; the paper does not say)."""
    loss: Literal["complex", "magnitude"] = "complex"
    """What the squared error is taken of (paper complex; magnitude in the authors' first code)."""
    adversary: float = 0.0
    """Weight of a critic's verdict in the loss (paper 0); above it the network is a stand-in for DAGAN or RefineGAN."""
    cycle: float = 0.0
    """Weight of the error at measured samples (RefineGAN's cycle, in brief)."""
    shape: tuple[int, ...] = ()
    """Rows and columns that images are cropped or padded to (paper 256 256); their own if left out."""
    modality: str = ""
    """Which images to take where the data has several per patient (paper T1); all if left out."""
    min_object: float = 0.05
    """Share of pixels above background that slices simulated from magnitude images must have to train on."""
    every: int = 1
    """Takes each n-th slice of a volume to train and to score on (paper 1)."""
    batch_size: int = 16
    """Slices per update (the paper does not say)."""
    num_epochs: int = 50
    """Passes over the training slices (the paper does not say; the authors' code 50)."""
    lr: float = 1e-3
    """Adam's learning rate; a tenth of it in the last third (the paper does not say)."""
    validation_fraction: float = 0.2
    """Share of the patients whose error picks the best epoch (paper 10 of 45)."""
    test_fraction: float = 0.2
    """Share of the patients kept for testing (paper 10 of 45)."""

    def __post_init__(self) -> None:
        if not self.domains or set(self.domains) - set("IK"):
            raise ValueError(f"domains is a row of I (image) and K (k-space), got {self.domains!r}; try IKIKII")
        if self.shape and (len(self.shape) != 2 or min(self.shape) < 8):
            raise ValueError(f"shape takes rows and columns of at least 8 pixels, got {self.shape}")
        if not 0 < self.sampling < 1:
            raise ValueError(f"sampling is a share between 0 and 1, got {self.sampling}; 0.25 is fourfold acceleration")
        for name in ("num_blocks", "block_depth", "filters", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, got {getattr(self, name)}")

    @property
    def order(self) -> str:
        """Domain of each block there is."""
        return self.domains[: self.num_blocks]

    @property
    def crop(self) -> tuple[int, int] | None:
        """Rows and columns, or None for the images' own."""
        return (self.shape[0], self.shape[1]) if self.shape else None


def sampling_mask(config: HybridConfig, shape: tuple[int, int], number: int = 0) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mask ``number`` of the pool for images of a shape; number 0 is the fixed one and the one tested with."""
    return gaussian_mask(shape, config.sampling, 1000 * config.mask_seed + number)


class CnnBlock(nn.Module):
    """Hidden 3x3 layers with leaky ReLU, a linear layer to two channels, and a skip (sec. 3). Same for both domains."""

    def __init__(self, depth: int, filters: int, last_kernel: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (2, *[filters] * (depth - 1)):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.LeakyReLU(0.1)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(filters, 2, last_kernel, padding=last_kernel // 2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2, H, W) to the same."""
        out: Tensor = x + self.layers(x)
        return out


class UNetBlock(nn.Module):
    """A residual U-Net without normalization, which would take the scale of k-space away."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        f = filters
        self.unet = BasicUNet(2, 2, 2, features=(f, f, 2 * f, 4 * f, 8 * f, f), norm=None)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2, H, W) to the same."""
        out: Tensor = x + self.unet(x)
        return out


class Cascade(nn.Module):
    """Blocks in the domains of a string such as IKIKII, transforms and data consistency between them (figure 1)."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.config = config
        make = {
            "cnn": lambda: CnnBlock(config.block_depth, config.filters, config.last_kernel),
            "unet": lambda: UNetBlock(config.filters),
        }[config.block]
        self.blocks = nn.ModuleList(make() for _ in config.order)

    def forward(self, image: Tensor, mask: Tensor) -> list[Tensor]:
        """Undersample and reconstruct.

        Args:
            image: what is seen of it is its k-space under the mask, (B, 2, H, W).
            mask: (B, 1, H, W), zero frequency in the middle.

        Returns:
            The zero-filled image and the image after each block, each (B, 2, H, W); the last is the result.
        """
        convention, config = self.config.fft, self.config
        laid = mask_in(mask, convention)
        measured = to_kspace(image, convention) * laid
        images, kspace = [to_image(measured, convention)], measured
        for number, (domain, block) in enumerate(zip(config.order, self.blocks, strict=True), start=1):
            kspace = block(kspace).float() if domain == "K" else to_kspace(block(images[-1]), convention)
            if config.data_consistency and (config.final_dc or number < len(config.order)):
                kspace = consistent(kspace, measured, laid)
            images.append(to_image(kspace, convention))
        return images


class Critic(nn.Module):
    """Tells reconstructed magnitudes from fully sampled ones; for the adversarial peers only."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        widths = (1, filters, 2 * filters, 4 * filters)
        self.layers = nn.Sequential(
            *(
                layer
                for first, second in itertools.pairwise(widths)
                for layer in (nn.Conv2d(first, second, 4, 2, 1), nn.LeakyReLU(0.2))
            ),
            nn.Conv2d(widths[-1], 1, 3, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Complex images (B, 2, H, W) to scores (B,)."""
        scores: Tensor = self.layers(magnitude(image)[:, None])
        return scores.flatten(1).mean(1)


def scale_of(image: Tensor, mask: Tensor) -> Tensor:
    """Largest magnitude of the zero-filled image of each slice, (B, 1, 1, 1): known when a scan is reconstructed."""
    zero_filled = magnitude(to_image(to_kspace(image) * mask))
    return zero_filled.flatten(1).amax(1).clamp_min(1e-12).view(-1, 1, 1, 1)


def two_channels(image: np.ndarray[Any, Any]) -> Tensor:
    """Complex (..., H, W) to real (..., 2, H, W)."""
    return torch.from_numpy(np.stack([image.real, image.imag], axis=-3).astype(np.float32))


class HybridLearner(Learner):
    """Trains a cascade end to end on fully sampled slices, undersampled as they are presented.

    Args:
        config: settings.
        train: cases with fully sampled k-space, or magnitude images that it is simulated from. Each coil's image of a
            slice is a sample.
        validation: likewise.
        cache: keeps what was decoded.

    Raises:
        UserError: images of different size without a common ``shape``, or no slice.
    """

    def __init__(
        self,
        config: HybridConfig,
        train: Sequence[Case],
        validation: Sequence[Case] = (),
        cache: SampleCache | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.reader = RawReader(config.crop, min_object=config.min_object, cache=cache)
        self.samples, self.held_out = self._samples(train), self._samples(validation)
        self.size = self._common_size([*train, *validation])
        self.networks = nn.ModuleDict({"cascade": Cascade(config)})
        if config.adversary:
            self.networks["critic"] = Critic(config.filters)
        self.schedule = Schedule(
            num_epochs=config.num_epochs,
            batch_size=config.batch_size,
            monitor="mse" if self.held_out else None,
            mode="min",
        )

    def _samples(self, cases: Sequence[Case]) -> list[tuple[Case, int, int]]:
        samples = []
        for case in cases:
            scan = self.reader.read(case)
            listed = scan.listed[:: self.config.every]
            samples += [(case, z, coil) for z in listed for coil in range(scan.kspace.shape[1])]
        if cases and not samples:
            raise UserError(f"none of the {len(cases)} training scans has a slice that shows something")
        return samples

    def _common_size(self, cases: Sequence[Case]) -> tuple[int, int]:
        sizes = [(case.id, self.reader.read(case).kspace.shape[-2:]) for case in cases]
        first, size = sizes[0]
        for name, other in sizes:
            if other != size:
                raise UserError(
                    f"case {name} has images of {other[0]} x {other[1]} pixels and {first} of {size[0]} x {size[1]}; "
                    f"give a common size, --config.shape {size[0]} {size[1]}"
                )
        return size[0], size[1]

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Adam, one for each network."""
        return {name: Adam(net.parameters(), lr=self.config.lr) for name, net in self.networks.items()}

    def configure_schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, LRScheduler]:
        """A tenth of the rate in the last third of the epochs."""
        milestone = max(1, round(2 * self.config.num_epochs / 3))
        return {name: MultiStepLR(optimizer, [milestone], 0.1) for name, optimizer in optimizers.items()}

    def num_samples(self) -> int:
        """Slices times coils."""
        return len(self.samples)

    def sample_name(self, index: int) -> str:
        """Case and slice."""
        case, z, _ = self.samples[index]
        return f"{case.id}/z={z}"

    def collate(self, indices: Sequence[int], epoch: int) -> dict[str, Tensor]:
        """Images (B, 2, H, W), scaled by their zero-filled magnitude, and masks (B, 1, H, W)."""
        parts = []
        for index in indices:
            generator = self.sample_generator(index, epoch)
            number = 0
            if self.config.mask == "pool100":
                number = int(torch.randint(POOL, (1,), generator=generator))
            image, mask = self._sample(self.samples[index], number)
            parts.append((augmented(image, generator) if self.config.augment else image, mask))
        images, masks = (torch.cat(part) for part in zip(*parts, strict=True))
        return {"image": images / scale_of(images, masks), "mask": masks}

    def _sample(self, sample: tuple[Case, int, int], mask_number: int) -> tuple[Tensor, Tensor]:
        case, z, coil = sample
        image = two_channels(self.reader.image(case, z, coil))[None]
        mask = torch.from_numpy(_pooled_mask(self.config, self.size, mask_number)).float()[None, None]
        return image, mask

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, SumCount]:
        """One update of the cascade, and of the critic where there is one."""
        reference, mask = batch["image"], batch["mask"]
        with step.autocast():
            made = self.networks["cascade"](reference, mask)[-1]
        error = self._error(made, reference)
        loss = step.mean(error.sum(), error.numel())
        if self.config.cycle:
            missed = (to_kspace(made) - to_kspace(reference)).square() * mask
            loss = loss + self.config.cycle * step.mean(missed.sum(), missed.numel())
        if self.config.adversary:
            critic = self.networks["critic"].requires_grad_(False)
            verdict = softplus(-critic(made)).sum()
            critic.requires_grad_(True)
            loss = loss + self.config.adversary * step.mean(verdict, len(made))
        step.backward(loss)
        step.update("cascade")
        metrics = {"loss": SumCount(error.detach().sum(), error.numel())}
        if self.config.adversary:
            told = softplus(-self.networks["critic"](reference)) + softplus(self.networks["critic"](made.detach()))
            step.backward(step.mean(told.sum(), len(made)))
            step.update("critic")
            metrics["critic"] = SumCount(told.detach().sum(), len(made))
        return metrics

    def _error(self, made: Tensor, reference: Tensor) -> Tensor:
        if self.config.loss == "magnitude":
            return (magnitude(made) - magnitude(reference)).square()
        return (made - reference).square()

    def num_validation_samples(self) -> int:
        """Held-out slices times coils."""
        return len(self.held_out)

    def validation_step(self, index: int) -> dict[str, SumCount]:
        """Squared error of one slice; with a pool of masks each slice has its own, the same in every epoch."""
        image, mask = self._sample(self.held_out[index], index % POOL if self.config.mask == "pool100" else 0)
        device = next(self.networks.parameters()).device
        image, mask = (image / scale_of(image, mask)).to(device), mask.to(device)
        error = self._error(self.networks["cascade"](image, mask)[-1], image)
        return {"mse": SumCount(error.sum(), error.numel())}


@functools.lru_cache(maxsize=2 * POOL)
def _pooled_mask(config: HybridConfig, shape: tuple[int, int], number: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return sampling_mask(config, shape, number)


def augmented(image: Tensor, generator: torch.Generator) -> Tensor:
    """Rotated by up to 20 degrees, shifted and zoomed by up to 5 %, mirrored along both axes; edges continued.

    Args:
        image: (1, 2, H, W); both channels move together, and k-space is made from the result.
        generator: of the draws.
    """
    angle, shift_x, shift_y, zoom = (2 * torch.rand(4, generator=generator) - 1).tolist()
    flips = (2.0 * torch.randint(2, (2,), generator=generator) - 1).tolist()
    turn = np.deg2rad(20.0) * angle
    aspect = image.shape[-2] / image.shape[-1]  # grid coordinates run from -1 to 1 along both axes
    matrix = torch.tensor(
        [
            [flips[0] * np.cos(turn), -flips[0] * np.sin(turn) * aspect, 0.1 * shift_x],
            [flips[1] * np.sin(turn) / aspect, flips[1] * np.cos(turn), 0.1 * shift_y],
        ]
    ).float()
    matrix[:, :2] *= 1 + 0.05 * zoom
    grid = affine_grid(matrix[None], list(image.shape), align_corners=False)
    return grid_sample(image, grid, padding_mode="border", align_corners=False)
