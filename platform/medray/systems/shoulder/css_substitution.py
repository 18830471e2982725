"""Substitution learning (sec. 2.4): the spectrum of the torn region becomes the spectrum of a whole tendon's.

Shape letters: B images, H rows, W columns. Images are in [0, 1]; masks are 0 or 1, of images' shape.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medray.systems.shoulder.css_networks import norm_relu

TENDON, TEAR = 1, 2
"""Values of a label map; 0 is background (sec. 2.2)."""
_HIDDEN = 16


class MagnitudeNet(nn.Module):
    """S on the magnitudes of a spectrum, whose phases stay: H x W numbers in and out, as in table 1.

    Every magnitude is multiplied by 1 plus what three convolutions say, at first 0. The place of a region is in the
    phases alone, so S does the same wherever a tear is, and nothing stays nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = _convolutions(1)

    def forward(self, spectrum: Tensor) -> Tensor:
        """(B, 2, H, W) to (B, 2, H, W)."""
        # the root of 0 has no derivative
        magnitude = (spectrum.square().sum(dim=1, keepdim=True) + 1e-12).sqrt()
        out: Tensor = spectrum * (1 + self.body(torch.log1p(magnitude)))
        return out


class ComplexNet(nn.Module):
    """S on real and imaginary part as two channels, beside an identity, which is all there is at first.

    The phases are the place of a region: this S does different things to equal tears in different places.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = _convolutions(2)

    def forward(self, spectrum: Tensor) -> Tensor:
        """(B, 2, H, W) to (B, 2, H, W)."""
        out: Tensor = spectrum + self.body(spectrum)
        return out


def _convolutions(channels: int) -> nn.Sequential:
    """Three, the last of which begins at 0. A spectrum has no border, so it is padded with its other side."""
    first, second, last = (
        nn.Conv2d(i, o, 3, padding=1, padding_mode="circular")
        for i, o in itertools.pairwise((channels, _HIDDEN, _HIDDEN, channels))
    )
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    return nn.Sequential(first, norm_relu(_HIDDEN), second, norm_relu(_HIDDEN), last)


def to_spectrum(region: Tensor) -> Tensor:
    """Real and imaginary part (B, 2, H, W) of the discrete Fourier transform of (B, 1, H, W), in float32.

    Eq. 1 divides by HW, which leaves nothing of a region of a few pixels; here both directions divide by its root.
    """
    found = torch.fft.fft2(region[:, 0].float(), norm="ortho")
    return torch.stack([found.real, found.imag], dim=1)


def from_spectrum(spectrum: Tensor) -> Tensor:
    """The inverse, (B, 2, H, W) to (B, 1, H, W); what is imaginary in the result is dropped."""
    two = spectrum.float()
    return torch.fft.ifft2(torch.complex(two[:, 0], two[:, 1]), norm="ortho").real[:, None]


def composite(images: Tensor, tear: Tensor, replacement: Tensor) -> Tensor:
    """I': the image without its torn region, plus what was made of that region, cut to [0, 1].

    The text's M_sl(I) is the replacement alone, which could never equal an image without tear as L4 wants.

    Args:
        images: (B, 1, H, W).
        tear: mask of the same shape.
        replacement: IDFT(S(DFT(images * tear))), same shape; it may reach beyond the mask.
    """
    return (images * (1 - tear) + replacement).clamp(0, 1)


def tendon_instead(labels: Tensor) -> Tensor:
    """The label map of a substituted image: what was torn is tendon."""
    return torch.where(labels == TEAR, torch.full_like(labels, TENDON), labels)


def content_loss(substituted: Tensor, tendon: Tensor, tear_px: Tensor, tendon_px: Tensor) -> Tensor:
    """L3 (table 2) of each image: logarithms of the two spectra's magnitudes, mean squared difference.

    Both are compared in the frequency domain, where the place of a region does not matter, and each is divided by the
    size of its region, since a tear is much smaller than a tendon: the magnitude at 0 is a region's mean intensity.

    Args:
        substituted: S(DFT(I * G(2))), (B, 2, H, W).
        tendon: DFT(I * G(1)), same shape.
        tear_px: pixels of G(2), (B,), at least 1 each.
        tendon_px: pixels of G(1), (B,), at least 1 each.

    Returns:
        (B,).
    """
    ours, theirs = _magnitude(substituted, tear_px), _magnitude(tendon, tendon_px)
    return F.mse_loss(ours, theirs, reduction="none").mean(dim=(1, 2))


def _magnitude(spectrum: Tensor, pixels: Tensor) -> Tensor:
    root = (spectrum.shape[-2] * spectrum.shape[-1]) ** 0.5  # undoes the transform's own
    power = spectrum.square().sum(dim=1)
    # the root of 0 has no derivative
    return torch.log1p((power + 1e-12).sqrt() * root / pixels.view(-1, 1, 1))
