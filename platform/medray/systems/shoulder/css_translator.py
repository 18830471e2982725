"""The GAN that table 6 puts in the place of substitution learning: torn tendon translated to whole tendon.

The text names a medical style GAN without its networks. Here a U-Net repaints the torn region and a patch
discriminator compares the repainted places with tendons of real images, unpaired (least squares, Mao et al. 2017).
"""

from __future__ import annotations

import torch
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn
from torch.nn import functional as F

from medray.learner import Step, SumCount
from medray.nn.unet import UNet
from medray.systems.shoulder.css_substitution import TEAR, TENDON

_LAYERS = 2  # strides of the discriminator: 70 px see far more than a tendon


class Translator(nn.Module):
    """Image and tear mask to the image with its torn region repainted.

    Args:
        width: channels at full size.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.paint = UNet(2, 1, (width, 2 * width, 4 * width))

    def forward(self, images: Tensor, tear: Tensor) -> Tensor:
        """(B, 1, H, W) both to (B, 1, H, W) in [0, 1]; unchanged outside of the tear."""
        painted = self.paint(torch.cat([images, tear], dim=1)).float().sigmoid()
        return images * (1 - tear) + painted * tear


def make_judge(width: int) -> nn.Module:
    """Patches of (B, 1, H, W) to real or repainted."""
    return PatchDiscriminator(2, width, 1, num_layers_d=_LAYERS, norm="INSTANCE")


def fooling_loss(judge: nn.Module, repainted: Tensor, tear: Tensor) -> SumCount:
    """What the translator is taught by: patches on the former tear should look real. The judge is not taught here."""
    judge.requires_grad_(False)
    loss = _squares(judge, repainted, tear, 1.0)
    judge.requires_grad_(True)
    return loss


def judging_loss(judge: nn.Module, images: Tensor, labels: Tensor, repainted: Tensor, tear: Tensor) -> SumCount:
    """What the judge is taught by: patches on tendons of images without tear are real, on former tears they are not."""
    whole = ~(labels == TEAR).flatten(1).any(dim=1) & (labels == TENDON).flatten(1).any(dim=1)
    real = _squares(judge, images[whole], (labels[whole] == TENDON).float()[:, None], 1.0)
    return real + _squares(judge, repainted.detach(), tear, 0.0)


def _squares(judge: nn.Module, images: Tensor, mask: Tensor, wanted: float) -> SumCount:
    if not len(images):
        return SumCount(next(judge.parameters()).sum() * 0.0, 0.0)
    said = judge(images)[-1].float()
    inside = F.adaptive_max_pool2d(mask, said.shape[2:])
    return SumCount(((said - wanted).square() * inside).sum(), inside.sum().detach())


def judge_and_update(step: Step, loss: SumCount) -> None:
    """One step of the judge."""
    assert isinstance(loss.total, Tensor)
    step.backward(step.mean(loss.total, loss.count))
    step.update("judge")
