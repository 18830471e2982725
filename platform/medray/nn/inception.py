"""Inception-v3 (Szegedy et al., CVPR 2016), named as torchvision's, so its published file loads as it is.

Without the auxiliary classifier, which serves training from scratch on ImageNet alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medray.nn.sample_dropout import SampleDropout

Size = int | tuple[int, int]


class BasicConv2d(nn.Module):
    """A convolution without bias, batch normalization and a ReLU that keeps the size unless it strides."""

    def __init__(self, before: int, after: int, kernel: Size, *, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (rows // 2, columns // 2) if padded else 0
        self.conv = nn.Conv2d(before, after, (rows, columns), stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) to (B, after, H', W')."""
        found: Tensor = self.relu(self.bn(self.conv(x)))
        return found


class InceptionA(nn.Module):
    """Figure 5: 1 x 1, 5 x 5, two 3 x 3, and a mean."""

    def __init__(self, before: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(before, 64, 1)
        self.branch5x5_1 = BasicConv2d(before, 48, 1)
        self.branch5x5_2 = BasicConv2d(48, 64, 5)
        self.branch3x3dbl_1 = BasicConv2d(before, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3)
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = BasicConv2d(before, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) to (B, 224 + pooled, H, W)."""
        twice = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        wide = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), wide, twice, self.branch_pool(self.pool(x))], 1)


class InceptionB(nn.Module):
    """Halves the grid of 35."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.branch3x3 = BasicConv2d(before, 384, 3, stride=2, padded=False)
        self.branch3x3dbl_1 = BasicConv2d(before, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2, padded=False)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) to (B, 480 + before, H / 2, W / 2)."""
        twice = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), twice, self.pool(x)], 1)


class InceptionC(nn.Module):
    """Figure 6 with n = 7: convolutions of 7 x 7 as rows and columns."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        row, column = (1, 7), (7, 1)
        self.branch1x1 = BasicConv2d(before, 192, 1)
        self.branch7x7_1 = BasicConv2d(before, width, 1)
        self.branch7x7_2 = BasicConv2d(width, width, row)
        self.branch7x7_3 = BasicConv2d(width, 192, column)
        self.branch7x7dbl_1 = BasicConv2d(before, width, 1)
        self.branch7x7dbl_2 = BasicConv2d(width, width, column)
        self.branch7x7dbl_3 = BasicConv2d(width, width, row)
        self.branch7x7dbl_4 = BasicConv2d(width, width, column)
        self.branch7x7dbl_5 = BasicConv2d(width, 192, row)
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = BasicConv2d(before, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) to (B, 768, H, W)."""
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), once, twice, self.branch_pool(self.pool(x))], 1)


class InceptionD(nn.Module):
    """Halves the grid of 17."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.branch3x3_1 = BasicConv2d(before, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2, padded=False)
        self.branch7x7x3_1 = BasicConv2d(before, 192, 1)
        self.branch7x7x3_2 = BasicConv2d(192, 192, (1, 7))
        self.branch7x7x3_3 = BasicConv2d(192, 192, (7, 1))
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2, padded=False)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) to (B, 512 + before, H / 2, W / 2)."""
        wide = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), wide, self.pool(x)], 1)


class InceptionE(nn.Module):
    """Figure 7: rows and columns of 3 side by side."""

    def __init__(self, before: int) -> None:
        super().__init__()
        row, column = (1, 3), (3, 1)
        self.branch1x1 = BasicConv2d(before, 320, 1)
        self.branch3x3_1 = BasicConv2d(before, 384, 1)
        self.branch3x3_2a = BasicConv2d(384, 384, row)
        self.branch3x3_2b = BasicConv2d(384, 384, column)
        self.branch3x3dbl_1 = BasicConv2d(before, 448, 1)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, row)
        self.branch3x3dbl_3b = BasicConv2d(384, 384, column)
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = BasicConv2d(before, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) to (B, 2048, H, W)."""
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [self.branch1x1(x), self.branch3x3_2a(once), self.branch3x3_2b(once)]
        parts += [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice), self.branch_pool(self.pool(x))]
        return torch.cat(parts, 1)


class InceptionV3(nn.Module):
    """Convolutions in three kinds of blocks, a mean over the grid, dropout and one fully connected layer.

    Args:
        num_outputs: of the last layer (ImageNet 1000).
        dropout: share of the 2048 features set to 0 while training; see `seed_dropout`.
    """

    def __init__(self, num_outputs: int = 1000, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2, padded=False)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3, padded=False)
        self.maxpool2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128)
        self.Mixed_6c = InceptionC(768, 160)
        self.Mixed_6d = InceptionC(768, 160)
        self.Mixed_6e = InceptionC(768, 192)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = SampleDropout(dropout)
        self.fc = nn.Linear(2048, num_outputs)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) of at least 75 pixels to logits (B, num_outputs)."""
        x = images
        for name, layer in self.named_children():
            if name == "avgpool":
                break
            x = layer(x)
        logits: Tensor = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return logits
