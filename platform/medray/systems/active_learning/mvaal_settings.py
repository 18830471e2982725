"""M-VAAL's sampler in numbers: networks, weights of the losses, schedule; defaults are the paper's (sec. 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medray.systems.active_learning.mvaal_networks import COPIES, Latent, Norm


@dataclass(frozen=True, kw_only=True)
class MvaalSettings:
    """The sampler's networks, losses and schedule."""

    sampler_size: int = 128
    """Rows and columns that the sampler sees, px (paper 128)."""
    sampler_crop: int = 0
    """Side of the middle square that is cut out before that, px (paper 210 of BraTS' 240); 0 takes the whole image."""
    latent: int = 64
    """Dimensions of z (paper 64)."""
    channels: tuple[int, ...] = (128, 256, 512, 1024)
    """Of the encoder's convolutions, each of which halves the image; decoders mirror them (paper: as VAAL's, these;
    the authors' code 64 128 256 512 1024)."""
    gray_channels: Literal[1, 3] = 1
    """Feed the gray image once, or three times as the paper does. Once costs less and learns the same."""
    gamma_1: float = 1.0
    """Weight of the adversarial loss, eq. 4 (paper 1)."""
    gamma_2: float = 1.0
    """Weight of the main modality's reconstruction, eq. 1 (paper 1)."""
    gamma_3: float = 1.0
    """Weight of the auxiliary modality's, eq. 2 (paper: 1 is best for both classification tasks, 0.2 for segmentation,
    of 0.2, 0.4, 0.8 and 1); 0 leaves its decoder out, which is VAAL."""
    kl_weight: float = 1.0
    """Weight of the KL divergence, eq. 3 (paper 1)."""
    kl_reduction: Literal["pixels", "mean", "sum"] = "pixels"
    """What the divergence, summed over latents, is divided by: the values of an image, as the squared error is, which
    makes the whole an evidence lower bound; the latents; or nothing, with the sum over the batch (the authors' code,
    where it outweighs reconstruction by far)."""
    adversarial: Literal["wgan_gp", "bce"] = "wgan_gp"
    """Wasserstein with gradient penalty (paper), or VAAL's binary cross-entropy."""
    gradient_penalty: float = 1.0
    """Lambda of eq. 5 (paper 1)."""
    critic_channels: tuple[int, ...] = (512, 512)
    """Hidden layers of the critic (paper: as VAAL's, these; the authors' code 128 256 512 256 128)."""
    critic_norm: Norm = "batch"
    """Normalization after each hidden layer of the critic (paper: batch)."""
    sigmoid_critic: bool = False
    """End the critic in a sigmoid, as the authors' code does in spite of the Wasserstein loss."""
    decode: Latent = "sample"
    """Decode a z drawn from q(z|x) (eqs. 1 and 2), or its mean (the authors' code for VAAL, not for M-VAAL)."""
    critic_sees: Latent = "sample"
    """Train the critic on drawn z, whose expectation over q(z|x) eqs. 4 and 5 name, or on means (the authors' code).
    It ranks by means either way."""
    vae_steps: int = 1
    """Updates of the VAE for each batch (paper 1; the authors' code 2)."""
    critic_steps: int = 1
    """Updates of the critic for each batch (paper and code 1; Wasserstein critics usually take 5). With 1 a small VAE
    at a high rate gets ahead of its critic, and unlabelled images end up scored above labelled ones."""
    lr_vae: float = 1e-4
    """Learning rate of the VAE, delta_1 (paper 1e-4)."""
    lr_critic: float = 1e-4
    """Learning rate of the critic, delta_2 (paper 1e-4)."""
    sampler_batch_size: int = 16
    """Labelled and as many unlabelled images in an update (paper 16)."""
    sampler_epochs: int = 100
    """Passes over the unlabelled images in a round (paper 100)."""

    def __post_init__(self) -> None:
        for name in (
            "sampler_size",
            "latent",
            "vae_steps",
            "critic_steps",
            "sampler_batch_size",
            "sampler_epochs",
            "lr_vae",
            "lr_critic",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0, got {getattr(self, name)}")
        for name in ("sampler_crop", "gamma_1", "gamma_2", "gamma_3", "kl_weight", "gradient_penalty"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not self.channels or min((*self.channels, *self.critic_channels)) < 1:
            raise ValueError("channels wants at least one number, and all of them and of critic_channels at least 1")
        if self.sampler_size % 2 ** len(self.channels):
            unit = 2 ** len(self.channels)
            raise ValueError(
                f"sampler_size must be a multiple of {unit}, since {len(self.channels)} convolutions halve it, got "
                f"{self.sampler_size}; try {unit * -(-self.sampler_size // unit)}, or fewer channels"
            )
        if self.sigmoid_critic and self.adversarial == "bce":
            raise ValueError("bce has a sigmoid of its own; leave sigmoid_critic off, or take wgan_gp")

    @property
    def kl_factor(self) -> float:
        """What the divergence of an image, summed over latents, is multiplied with before the mean over pairs."""
        reduced = {
            "pixels": 1 / (COPIES * self.sampler_size**2),
            "mean": 1 / self.latent,
            "sum": self.sampler_batch_size,
        }
        return self.kl_weight * reduced[self.kl_reduction]
