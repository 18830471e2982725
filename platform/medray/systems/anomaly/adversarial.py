"""Adversarial peers of GMVAE(TV): an autoencoder whose codes a critic compares with noise, and AnoGAN.

Compact readings of Chen et al. 2018 (AAE) and Schlegl et al., IPMI 2017 (AnoGAN) on the layers of GMVAE(TV); the paper
compares with both without telling their sizes. Losses are the non-saturating ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam, Optimizer

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.learner import Step, SumCount
from medray.nn.weights import load_network
from medray.systems.anomaly.gmvae_tv import (
    Decoder,
    GmvaeConfig,
    Prior,
    SliceLearner,
    map_shape,
    sample_noise,
    trunk,
)

_ADVERSARIAL_WEIGHT = 1.0
_GAN_BETAS = (0.5, 0.999)
_FEATURE_WEIGHT = 0.1  # of the critic's features in AnoGAN's search; Schlegl et al., eq. 5
_SEARCH_LR = 0.05


class SliceCritic(nn.Module):
    """Tells real slices from generated ones: the encoder's trunk and one number."""

    def __init__(self, config: GmvaeConfig) -> None:
        super().__init__()
        rows, columns = map_shape(config)
        self.features = trunk(config.width)
        self.score = nn.Sequential(nn.Flatten(), nn.Linear(config.width * rows * columns, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Slices (B, 1, H, W) to scores (B, 1)."""
        score: Tensor = self.score(self.features(x))
        return score


class Autoencoder(Prior):
    """The same layers with codes that are not sampled."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Slices (B, 1, H, W) to their reconstructions and codes."""
        code = self.encoder(x)[:, 0]
        return self.decoder(code)[0], code


class AaeLearner(SliceLearner):
    """Squared error of the reconstruction, and codes that a critic cannot tell from a standard normal."""

    def __init__(self, config: GmvaeConfig, cases: Sequence[Case], cache: SampleCache | None = None) -> None:
        super().__init__(config, cases, cache)
        hidden = 4 * config.width
        critic = nn.Sequential(
            *(nn.Linear(config.code_length, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)),
        )
        self.networks = nn.ModuleDict({"prior": Autoencoder(config), "critic": critic})

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """One for the autoencoder, one for the critic."""
        return {name: Adam(self.networks[name].parameters(), lr=self.config.lr) for name in ("prior", "critic")}

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, SumCount]:
        """The autoencoder first, then the critic on the codes it gave."""
        x, critic = batch["x"], self.networks["critic"]
        with step.autocast():
            made, code = self.networks["prior"](x)
            error = (made - x).float().square().sum()
            critic.requires_grad_(False)
            fooled = softplus(-critic(code)).float().sum()
            critic.requires_grad_(True)
        step.backward(step.mean(error + _ADVERSARIAL_WEIGHT * fooled, len(x)))
        step.update("prior")
        noise = sample_noise(step, batch, (self.config.code_length,))
        with step.autocast():
            told = (softplus(-critic(noise)) + softplus(critic(code.detach()))).float().sum()
        step.backward(step.mean(told, len(x)))
        step.update("critic")
        terms = {"loss": error, "fooled": fooled, "critic": told}
        return {name: SumCount(term.detach(), len(x)) for name, term in terms.items()}


class GanLearner(SliceLearner):
    """A decoder as generator against a critic of slices."""

    def __init__(self, config: GmvaeConfig, cases: Sequence[Case], cache: SampleCache | None = None) -> None:
        super().__init__(config, cases, cache)
        self.networks = nn.ModuleDict({"generator": Decoder(config), "critic": SliceCritic(config)})

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """One for each."""
        nets = self.networks
        return {name: Adam(nets[name].parameters(), lr=self.config.lr, betas=_GAN_BETAS) for name in nets}

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, SumCount]:
        """The critic first, then the generator on the same noise."""
        x, generator, critic = batch["x"], self.networks["generator"], self.networks["critic"]
        noise = sample_noise(step, batch, (self.config.code_length,))
        with step.autocast():
            fake = generator(noise)[0]
            told = (softplus(-critic(x)) + softplus(critic(fake.detach()))).float().sum()
        step.backward(step.mean(told, len(x)))
        step.update("critic")
        critic.requires_grad_(False)
        with step.autocast():
            fooled = softplus(-critic(fake)).float().sum()
        step.backward(step.mean(fooled, len(x)))
        critic.requires_grad_(True)
        step.update("generator")
        return {name: SumCount(t.detach(), len(x)) for name, t in {"loss": fooled, "critic": told}.items()}


def load_searcher(config: GmvaeConfig, weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A trained GAN as a function from slices (B, 1, H, W) to the closest ones it makes."""
    generator, critic = Decoder(config), SliceCritic(config)
    load_network(generator, weights, prefix="generator.")
    load_network(critic, weights, prefix="critic.")
    for network in (generator, critic):
        network.to(device).eval().requires_grad_(False)
    return lambda y: closest(generator, critic, y.to(device), config).cpu()


def closest(generator: Decoder, critic: SliceCritic, y: Tensor, config: GmvaeConfig) -> Tensor:
    """AnoGAN's search: codes from 0 by Adam on the absolute residual and the difference of the critic's features.

    Args:
        generator: makes slices.
        critic: its features are compared.
        y: slices, (B, 1, H, W).
        config: ``restore_steps`` steps are taken.

    Returns:
        The closest slices, same shape.
    """
    code = torch.zeros(len(y), config.code_length, device=y.device, requires_grad=True)
    optimizer = Adam([code], lr=_SEARCH_LR)
    target = critic.features(y)
    for _ in range(config.restore_steps):
        made = generator(code)[0]
        residual = (made - y).abs().sum()
        features = (critic.features(made) - target).abs().sum()
        optimizer.zero_grad()
        ((1 - _FEATURE_WEIGHT) * residual + _FEATURE_WEIGHT * features).backward()
        optimizer.step()
    with torch.no_grad():
        found: Tensor = generator(code)[0]
    return found
