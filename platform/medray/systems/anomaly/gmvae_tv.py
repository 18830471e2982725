"""GMVAE(TV): lesions are what changes when a scan is restored under a prior of healthy brains. You et al., MIDL 2019.

A variational autoencoder with a Gaussian mixture as latent prior learns slices of healthy brains. A new slice Y is
restored by gradient ascent on ELBO(X) - lambda TV(X - Y) from X = Y; the residual |Y - X| is the lesion map. lambda and
the threshold come from healthy scans alone. Peers: the plain VAE, reconstruction instead of restoration, codes of fixed
length, adversarial autoencoder and AnoGAN (`medray.systems.anomaly.adversarial`).

The text is the default where the authors' code differs from it; what the code does are variants of the system
(`gmvae_tv_system`). Departs from both: the predicted sigma of X has a floor (`min_sigma`), without which a background
of exact zeros diverges.
Shape letters: B slices, H rows, W columns, h and w their latent map, K clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.data.slices import SliceGrid
from medray.learner import Learner, Schedule, Step, SumCount
from medray.systems.anomaly.scans import HealthySlices

_LOG_VARIANCE = 8.0  # latent log variances stay within +-8


@dataclass(frozen=True, kw_only=True)
class GmvaeConfig:
    """The method's settings; defaults are the paper's text."""

    prior: Literal["gmvae", "vae", "aae", "gan"] = "gmvae"
    """What learns healthy slices: Gaussian-mixture VAE (paper), plain VAE, adversarial autoencoder or GAN."""
    detection: Literal["restoration", "reconstruction", "search"] = "restoration"
    """What makes the healthy version: TV-regularised restoration (paper), the autoencoder's output, or the closest
    image a GAN can make (AnoGAN)."""
    code_length: int = 0
    """Latent numbers per slice; 0 for a latent map of a third of the size (paper), else a vector (VAE-256, VAE-128)."""
    num_clusters: int = 9
    """Components of the mixture, K (paper 9, chosen on test data; the authors' code has 6)."""
    width: int = 64
    """Channels of every hidden layer (paper 64)."""
    shape: tuple[int, int] = (158, 198)
    """Pixels slices are cropped or padded to (paper 158 198). Sides of 2 mod 4 keep the unpadded layers exact."""
    spacing_mm: tuple[float, ...] = ()
    """Pixel size slices are resampled to, two values; the scans' own if left out (paper)."""
    modality: str = ""
    """Which images to take where the data has several per subject (paper T2); all if left out."""
    min_brain: float = 0.02
    """Share of pixels above background that a slice must have to be used (paper: more than none)."""
    every: int = 1
    """Takes each n-th slice of a volume to train on and to set thresholds (paper 1)."""
    match_histogram: bool = True
    """Match the histogram of scans to be judged to that of a healthy training scan (paper)."""
    batch_size: int = 16
    """Slices per update (the authors' code; the text says nothing)."""
    num_steps: int = 1_600_000
    """Updates (the authors' code; the text says nothing)."""
    lr: float = 5e-5
    """Adam's learning rate (paper 5e-5)."""
    min_sigma: float = 0.01
    """Floor of the predicted standard deviation of X; the ceiling is 1."""
    resp: Literal["density", "authors"] = "density"
    """How p(c|z,w) weighs variances: by the Gaussian density (paper), or as the authors' code, which favours broad
    clusters."""
    c_free_nats: float = 0.0
    """KL of c below which it costs nothing, per latent pixel (paper 0; the authors' code 0.5)."""
    latent: Literal["mean", "sample"] = "mean"
    """z while restoring: the mean of q(z|X), or drawn anew at each step (the authors' code)."""
    restore_steps: int = 500
    """Gradient steps of a restoration, n (paper 500)."""
    alpha: tuple[float, ...] = (1e-3,)
    """Step size of the restoration (paper 1e-3); of two values the second counts after 100 steps (code 5e-3 2e-3)."""
    clip: float = 0.0
    """Largest gradient per pixel while restoring; 0 for no limit (paper; the authors' code 100)."""
    masked: bool = False
    """Restore brain pixels only (the authors' code)."""
    lambdas: tuple[float, ...] = tuple(round(0.6 + 0.2 * i, 1) for i in range(18))
    """TV weights to choose from by the least change of held-out healthy scans (paper 0.6 to 4.0; 1.8 was chosen)."""
    validation_fraction: float = 0.08
    """Share of the healthy subjects held out for lambda and thresholds (paper 52 of 652)."""

    def __post_init__(self) -> None:
        if any(side % 4 != 2 or side < 38 for side in self.shape):
            raise ValueError(f"shape takes sides of 2 mod 4 from 38 on, got {self.shape}; try (62, 62) or (158, 198)")
        if self.spacing_mm and len(self.spacing_mm) != 2:
            raise ValueError(f"spacing_mm takes two values, got {self.spacing_mm}")
        if self.prior in ("aae", "gan") and not self.code_length:
            raise ValueError(f"prior {self.prior} needs a code_length; try 128")
        if (self.prior == "gan") != (self.detection == "search"):
            raise ValueError("detection search belongs to prior gan, and prior gan knows no other")
        if self.prior == "aae" and self.detection == "restoration":
            raise ValueError("prior aae has no ELBO to restore under; use detection reconstruction")
        if self.prior == "gmvae" and self.code_length:
            raise ValueError("prior gmvae has a latent map; leave code_length at 0 or use prior vae")
        if not self.lambdas or not 1 <= len(self.alpha) <= 2:
            raise ValueError("lambdas takes at least one value, alpha one or two")

    @property
    def grid(self) -> SliceGrid:
        """How slices are cut."""
        spacing = (self.spacing_mm[0], self.spacing_mm[1]) if self.spacing_mm else None
        return SliceGrid(spacing, self.shape, "unit", self.min_brain)


def latent_shape(config: GmvaeConfig) -> tuple[int, ...]:
    """Of one slice's z: (1, h, w), or (code_length,). 158 x 198 gives 32 x 42 (table 3)."""
    side = [((n - 3) // 2 + 1 - 4 - 3) // 2 + 1 - 4 for n in config.shape]
    return (config.code_length,) if config.code_length else (1, side[0], side[1])


def map_shape(config: GmvaeConfig) -> tuple[int, int]:
    """Rows and columns of the latent map, also where it is squeezed into a code."""
    _, rows, columns = latent_shape(GmvaeConfig(shape=config.shape))
    return rows, columns


def trunk(width: int) -> nn.Sequential:
    """The six unpadded 3x3 layers that q(z|X) and q(w|X) share (table 3)."""
    layers: list[nn.Module] = []
    for channels, stride in zip((1, *[width] * 5), (2, 1, 1, 2, 1, 1), strict=True):
        layers += [nn.Conv2d(channels, width, 3, stride), nn.ReLU()]
    return nn.Sequential(*layers)


class Decoder(nn.Module):
    """p(X|z): mean and log inverse variance of every pixel, (B, 1, H, W) each (table 3).

    The table's sizes close only if each 3x3 layer grows the map by two: transposed without padding, or padded by two.
    """

    def __init__(self, config: GmvaeConfig) -> None:
        super().__init__()
        width = config.width
        self.map_shape = map_shape(config)
        self.from_code = (
            nn.Linear(config.code_length, self.map_shape[0] * self.map_shape[1]) if config.code_length else None
        )
        self.body = nn.Sequential(
            nn.ConvTranspose2d(1, width, 1),
            nn.ReLU(),
            *(layer for _ in range(2) for layer in (nn.ConvTranspose2d(width, width, 3), nn.ReLU())),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, width, 3, padding=2),
            nn.ReLU(),
            *(layer for _ in range(2) for layer in (nn.ConvTranspose2d(width, width, 3), nn.ReLU())),
            nn.Upsample(scale_factor=2),
        )
        self.mean = nn.Conv2d(width, 1, 3, padding=2)
        self.log_precision = nn.Conv2d(width, 1, 3, padding=2)
        self.most = -2 * float(np.log(config.min_sigma))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of B slices to mean and log inverse variance."""
        if self.from_code is not None:
            z = self.from_code(z).view(-1, 1, *self.map_shape)
        features = self.body(z)
        return self.mean(features).float(), self.log_precision(features).float().clamp(0.0, self.most)


class Encoder(nn.Module):
    """Mean and log variance of q(z|X), for the GMVAE also of q(w|X): (B, heads, *latent)."""

    def __init__(self, config: GmvaeConfig) -> None:
        super().__init__()
        self.latent = latent_shape(config)
        self.heads = 4 if config.prior == "gmvae" else 2
        rows, columns = map_shape(config)
        self.trunk = trunk(config.width)
        self.head: nn.Module = nn.Conv2d(config.width, self.heads, 1)
        if config.code_length:
            size = config.width * rows * columns
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(size, self.heads * config.code_length))

    def forward(self, x: Tensor) -> Tensor:
        """Slices (B, 1, H, W) to the heads, in the order mean and log variance of z, then of w."""
        out: Tensor = self.head(self.trunk(x)).float()
        return out.view(len(x), self.heads, *self.latent)


@dataclass(frozen=True)
class Elbo:
    """Terms of equation 2 for each slice, (B,): what is maximised is likelihood - kl_z - kl_w - kl_c."""

    likelihood: Tensor
    kl_z: Tensor
    kl_w: Tensor
    kl_c: Tensor

    @property
    def total(self) -> Tensor:
        """The evidence lower bound in nats, summed over pixels, (B,)."""
        return self.likelihood - self.kl_z - self.kl_w - self.kl_c


class Prior(nn.Module):
    """The VAE or GMVAE of healthy slices."""

    def __init__(self, config: GmvaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        if config.prior == "gmvae":  # p(z|w,c): means and log inverse variances of K clusters at every latent pixel
            layers = (nn.Conv2d(1, config.width, 1), nn.ReLU(), nn.Conv2d(config.width, 2 * config.num_clusters, 1))
            self.mixture = nn.Sequential(*layers)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Decoded mean of q(z|X), (B, 1, H, W)."""
        mean: Tensor = self.decoder(self.encoder(x)[:, 0])[0]
        return mean

    def forward(self, x: Tensor, noise: Tensor | None = None, *, fixed_sigma: bool = False) -> Elbo:
        """Equation 1 or 2.

        Args:
            x: slices, (B, 1, H, W).
            noise: standard normal, (B, 2, *latent), for the samples of z and w; None takes their means.
            fixed_sigma: take sigma_X as 1/sqrt(2) and drop constants, as while restoring.
        """
        stats = self.encoder(x)
        mu_z, log_z = stats[:, 0], stats[:, 1].clamp(-_LOG_VARIANCE, _LOG_VARIANCE)
        z = mu_z if noise is None else mu_z + (0.5 * log_z).exp() * noise[:, 0]
        mu_x, log_precision = self.decoder(z)
        error = (x - mu_x).square()
        if fixed_sigma:  # the density of N(X; mu_X, 1/2), up to a constant (sec. 2.2)
            density = -error
        else:
            density = 0.5 * (log_precision - log_precision.exp() * error - float(np.log(2 * np.pi)))
        likelihood = density.flatten(1).sum(1)
        if self.config.prior != "gmvae":
            nothing = torch.zeros_like(likelihood)
            return Elbo(likelihood, standard_kl(mu_z, log_z).flatten(1).sum(1), nothing, nothing)
        mu_w, log_w = stats[:, 2], stats[:, 3].clamp(-_LOG_VARIANCE, _LOG_VARIANCE)
        w = mu_w if noise is None else mu_w + (0.5 * log_w).exp() * noise[:, 1]
        mu_k, log_precision_k = self.mixture(w).float().chunk(2, dim=1)  # (B, K, h, w)
        log_precision_k = log_precision_k.clamp(-_LOG_VARIANCE, _LOG_VARIANCE)
        log_p = log_responsibilities(z, mu_k, log_precision_k, self.config.resp)
        kl_z = (log_p.exp() * gaussian_kl(mu_z, log_z, mu_k, -log_precision_k)).sum(1)
        kl_c = cluster_kl(log_p)
        if self.config.c_free_nats:
            kl_c = kl_c.clamp_min(self.config.c_free_nats)
        parts = (kl_z, standard_kl(mu_w, log_w), kl_c)
        return Elbo(likelihood, *(part.flatten(1).sum(1) for part in parts))


def standard_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL[N(mean, variance) || N(0, 1)] of each element, nats."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1)


def gaussian_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL[N(mean, variance) || N(other)] of each element, nats; broadcasts."""
    ratio = (log_variance - other_log_variance).exp()
    distance = (mean - other_mean).square() * (-other_log_variance).exp()
    return 0.5 * (ratio + distance - 1 - log_variance + other_log_variance)


def log_responsibilities(z: Tensor, mean: Tensor, log_precision: Tensor, kind: str = "density") -> Tensor:
    """Log of p(c|z,w) at every latent pixel (uniform p(c) cancels).

    Args:
        z: (B, 1, h, w).
        mean: of each cluster, (B, K, h, w).
        log_precision: log inverse variance of each cluster, same shape.
        kind: ``density``, or ``authors``: their code subtracts the log inverse variance instead of adding half of it.

    Returns:
        (B, K, h, w); its exponentials sum to 1 over K.
    """
    weight = 0.5 if kind == "density" else -1.0
    log_density = weight * log_precision - 0.5 * log_precision.exp() * (z - mean).square()
    return log_density.log_softmax(dim=1)


def cluster_kl(log_p: Tensor) -> Tensor:
    """KL[p(c|z,w) || uniform] at every latent pixel, (B, h, w), nats: 0 where all clusters share, log K at most.

    Of logarithms, since the gradient of p log p is not finite where p has become 0.
    """
    return (log_p.exp() * log_p).sum(1) + float(np.log(log_p.shape[1]))


def total_variation(x: Tensor) -> Tensor:
    """Anisotropic: absolute differences along both axes, summed over the slice, (B,)."""
    return x.diff(dim=-1).abs().flatten(1).sum(1) + x.diff(dim=-2).abs().flatten(1).sum(1)


def restore(prior: Prior, y: Tensor, tv_weight: float, *, seed: int = 0) -> Tensor:
    """Algorithm 1: climb ELBO(X) - lambda TV(X - Y) from X = Y.

    Args:
        prior: trained on healthy slices.
        y: slices, (B, 1, H, W).
        tv_weight: lambda.
        seed: of the samples of z, where the config asks for them.

    Returns:
        X after ``restore_steps`` steps, same shape.
    """
    config = prior.config
    brain = (y > 0).to(y.dtype)
    generator = torch.Generator().manual_seed(seed)
    x = y.clone()
    for step in range(config.restore_steps):
        noise = None
        if config.latent == "sample":
            noise = torch.randn((len(y), 2, *prior.encoder.latent), generator=generator).to(y)
        x.requires_grad_(True)
        objective = prior(x, noise, fixed_sigma=True).total - tv_weight * total_variation(x - y)
        (gradient,) = torch.autograd.grad(objective.sum(), x)
        if config.clip:
            gradient = gradient.clamp(-config.clip, config.clip)
        if config.masked:
            gradient = gradient * brain
        x = x.detach() + config.alpha[0 if step < 100 else -1] * gradient
    return x


class SliceLearner(Learner):
    """What the learners of this file and of `adversarial` share: slices of healthy scans as samples."""

    def __init__(self, config: GmvaeConfig, cases: Sequence[Case], cache: SampleCache | None = None) -> None:
        super().__init__()
        self.config = config
        self.slices = HealthySlices(config.grid, cases, config.every, cache)
        per_epoch = -(-len(self.slices) // config.batch_size)
        epochs = max(1, round(config.num_steps / per_epoch))
        self.schedule = Schedule(num_epochs=epochs, batch_size=config.batch_size, validate_every_epochs=0)

    def num_samples(self) -> int:
        """Slices with brain in them."""
        return len(self.slices)

    def sample_name(self, index: int) -> str:
        """Case and slice."""
        return self.slices.name(index)

    def collate(self, indices: Sequence[int], epoch: int) -> dict[str, Tensor]:
        """Slices (B, 1, H, W) with their numbers; the paper does not augment."""
        return {"x": self.slices.batch(indices), "index": torch.tensor(list(indices))}


def sample_noise(step: Step, batch: Mapping[str, Tensor], shape: Sequence[int], key: str = "z") -> Tensor:
    """Standard normal numbers for each slice of a batch, (B, *shape), the same on any number of workers."""
    drawn = [torch.randn(*shape, generator=step.generator(key, int(index))) for index in batch["index"]]
    return torch.stack(drawn).to(batch["x"].device)


class PriorLearner(SliceLearner):
    """Maximises the ELBO on slices of healthy scans."""

    def __init__(self, config: GmvaeConfig, cases: Sequence[Case], cache: SampleCache | None = None) -> None:
        super().__init__(config, cases, cache)
        self.networks = nn.ModuleDict({"prior": Prior(config)})

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Adam with its default moments (appendix B)."""
        return {"prior": Adam(self.networks.parameters(), lr=self.config.lr)}

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, SumCount]:
        """One update on -ELBO, summed over pixels and averaged over slices."""
        x = batch["x"]
        noise = sample_noise(step, batch, (2, *latent_shape(self.config)))
        with step.autocast():
            elbo: Elbo = self.networks["prior"](x, noise)
        loss = -elbo.total.sum()
        step.backward(step.mean(loss, len(x)))
        step.update("prior")
        terms = {"loss": loss, "kl_z": elbo.kl_z.sum(), "kl_w": elbo.kl_w.sum(), "kl_c": elbo.kl_c.sum()}
        return {name: SumCount(term.detach(), len(x)) for name, term in terms.items()}
