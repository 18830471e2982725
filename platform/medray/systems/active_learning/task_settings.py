"""Which network a task of a campaign trains, and how; defaults are the paper's (M-VAAL, secs. 2.1 and 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_UNET_LEVELS = 5


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """The network that the labels are for."""

    task_size: int | None = None
    """Rows and columns of what the task network sees, px; the images' own, all alike, where None (paper 240, 256)."""
    unet_channels: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Channels of the U-Net's five levels, finest first (four steps down and up); the paper does not tell them."""
    task_network: Literal["resnet18", "small"] = "resnet18"
    """Classifier: ResNet-18 (paper), or four convolutions for images of 32 to 128 pixels."""
    task_weights: str = ""
    """File of torchvision's ResNet-18 weights to start a classifier from (paper: ImageNet's); random where empty."""
    task_batch_size: int = 32
    """Images per update (paper 32)."""
    task_epochs: int | None = None
    """Passes over the labelled images; the paper's 30 (segmentation) or 50 (classification) where None."""
    task_lr: float = 1e-5
    """Learning rate, delta_3 (paper 1e-5; the authors' code 5e-6)."""
    task_optimizer: Literal["rmsprop", "adam"] | None = None
    """The paper's where None: RMSprop for segmentation, Adam for classification."""

    def __post_init__(self) -> None:
        if len(self.unet_channels) != _UNET_LEVELS or min(self.unet_channels) < 1:
            raise ValueError(f"unet_channels are {_UNET_LEVELS} numbers from 1, got {self.unet_channels}")
        if self.task_batch_size < 1 or self.task_lr <= 0 or (self.task_epochs is not None and self.task_epochs < 1):
            raise ValueError(
                "task_batch_size and task_epochs are at least 1 and task_lr is above 0, got "
                f"{self.task_batch_size}, {self.task_epochs} and {self.task_lr:g}"
            )
        if self.task_weights and self.task_network != "resnet18":
            raise ValueError(
                f"task_weights are those of resnet18; the network {self.task_network} starts from random ones"
            )
