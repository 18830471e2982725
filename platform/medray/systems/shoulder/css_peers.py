"""DeepLabV3+ (Chen et al., ECCV 2018), a peer of table 5, on MONAI's ResNet."""

from __future__ import annotations

import torch
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from medray.systems.shoulder.css_networks import NUM_CLASSES, NUM_GROUPS, norm_relu

_RATES = (6, 12, 18)  # at a stride of 16
_LAYERS = (2, 2, 2, 2)  # ResNet-18


def _separable(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    depth = nn.Conv2d(in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=False)
    return nn.Sequential(depth, nn.Conv2d(in_channels, out_channels, 1, bias=False), norm_relu(out_channels))


class _Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: 1 x 1, three rates, and the image's mean."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.plain = nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), norm_relu(channels))
        self.rates = nn.ModuleList(_separable(in_channels, channels, rate) for rate in _RATES)
        self.mean = nn.Sequential(nn.Conv2d(in_channels, channels, 1), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(5 * channels, channels, 1, bias=False), norm_relu(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mean(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        out: Tensor = self.last(torch.cat([self.plain(x), *(rate(x) for rate in self.rates), mean], dim=1))
        return out


class DeepLabV3Plus(nn.Module):
    """ResNet-18 at a stride of 16, a pyramid of dilations, and a decoder that adds features of stride 4.

    Group normalization in place of batch normalization, as in its rival, and no pretrained weights.

    Args:
        width: channels of the first stage (ResNet-18: 64), a multiple of 16.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        norm = ("group", {"num_groups": NUM_GROUPS})
        stages = [width, 2 * width, 4 * width, 8 * width]
        self.backbone = ResNet("basic", list(_LAYERS), stages, spatial_dims=2, n_input_channels=1, conv1_t_stride=2,
                               feed_forward=False, norm=norm)  # fmt: skip
        _dilate(self.backbone.layer4)
        self.pyramid = _Pyramid(8 * width, 4 * width)
        self.low = nn.Sequential(nn.Conv2d(width, NUM_GROUPS, 1, bias=False), norm_relu(NUM_GROUPS))
        self.refine = nn.Sequential(_separable(4 * width + NUM_GROUPS, 4 * width), _separable(4 * width, 4 * width))
        self.last = nn.Conv2d(4 * width, NUM_CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W), multiples of 16, to logits (B, 3, H, W)."""
        net = self.backbone
        low = net.layer1(net.maxpool(net.act(net.bn1(net.conv1(images)))))
        deep = self.pyramid(net.layer4(net.layer3(net.layer2(low))))
        deep = F.interpolate(deep, size=low.shape[2:], mode="bilinear", align_corners=False)
        logits = self.last(self.refine(torch.cat([deep, self.low(low)], dim=1)))
        return F.interpolate(logits, size=images.shape[2:], mode="bilinear", align_corners=False)


def _dilate(stage: nn.Module) -> None:
    """Dilation in place of a stride, so that the stage keeps the size of its input."""
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            if module.kernel_size == (3, 3) and module.stride == (1, 1):
                module.dilation, module.padding = (2, 2), (2, 2)
            module.stride = (1, 1)
