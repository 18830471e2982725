"""Warping images by dense displacement fields, and composing and inverting such fields.

The convention of the whole code base: a displacement is (B, D, *shape) in PIXELS, and component ``d`` moves along array
axis ``d`` (rows before columns, never x before y). A field lives on the fixed image's pixels and says where in the
moving image to look: ``warped(x) = moving(x + displacement(x))``. Beyond its edge an image repeats its border.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_grid(
    shape: Sequence[int], *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Tensor:
    """Pixel coordinates, (1, D, *shape): component ``d`` counts along array axis ``d``."""
    axes = [torch.arange(n, dtype=dtype, device=device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def sample(image: Tensor, positions: Tensor, mode: Literal["linear", "nearest"] = "linear") -> Tensor:
    """Read an image at pixel positions.

    Args:
        image: (B, C, *shape), 2D or 3D. Integer images are allowed with ``nearest`` and come back in their own type.
        positions: where to read, in pixels of ``image``, array-axis order, (B, D, *out_shape).
        mode: ``linear`` (bilinear or trilinear), or ``nearest`` for labels.

    Returns:
        Values (B, C, *out_shape); positions outside read the nearest border.

    Raises:
        ValueError: shapes that do not belong together, or linear interpolation of an integer image.
    """
    _check(image, positions, mode)
    coordinates = positions.flip(1).movedim(1, -1) * _units_per_pixel(image) - 1
    return _read(image, coordinates, mode)


def warp(image: Tensor, displacement: Tensor, mode: Literal["linear", "nearest"] = "linear") -> Tensor:
    """``warped(x) = image(x + displacement(x))``.

    Args:
        image: (B, C, *shape), 2D or 3D.
        displacement: (B, D, *shape) in pixels, array-axis order.
        mode: ``linear``, or ``nearest`` for labels.

    Returns:
        Warped image, shape and type of ``image`` on the displacement's pixels.

    Raises:
        ValueError: as `sample`.
    """
    _check(image, displacement, mode)
    if image.shape[2:] != displacement.shape[2:]:
        raise ValueError(
            f"image {tuple(image.shape)} and displacement {tuple(displacement.shape)} must have the same pixels; "
            f"read elsewhere with sample()"
        )
    identity = _identity(tuple(displacement.shape[2:]), displacement.dtype, displacement.device)
    units = _units_per_pixel(image).to(displacement.dtype)
    return _read(image, torch.addcmul(identity, displacement.flip(1).movedim(1, -1), units), mode)


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The field that warps by ``first`` and then by ``second``.

    ``warp(image, compose(first, second))`` is ``warp(warp(image, first), second)`` up to interpolation:
    ``u(x) = second(x) + first(x + second(x))``. Both are (B, D, *shape) in pixels, and so is the result.

    Raises:
        ValueError: as `sample`.
    """
    return second + warp(first, second)


def invert(displacement: Tensor, num_iterations: int = 30) -> Tensor:
    """The field v with ``v(x) = -u(x + v(x))``, by fixed-point iteration.

    Converges where the field changes by less than a pixel per pixel, which holds for any field far from folding.

    Args:
        displacement: u, (B, D, *shape) in pixels.
        num_iterations: fixed-point steps.

    Returns:
        v, same shape and unit.

    Raises:
        ValueError: as `sample`.
    """
    inverse = -displacement
    for _ in range(num_iterations):
        inverse = -warp(displacement, inverse)
    return inverse


def _check(image: Tensor, vectors: Tensor, mode: Literal["linear", "nearest"]) -> None:
    dims = image.ndim - 2
    if dims not in (2, 3) or vectors.ndim != image.ndim or vectors.shape[1] != dims:
        raise ValueError(
            f"image (B, C, *shape) and displacement (B, D, *shape) must be both 2D or both 3D, "
            f"got {tuple(image.shape)} and {tuple(vectors.shape)}"
        )
    if image.shape[0] != vectors.shape[0]:
        raise ValueError(f"image has {image.shape[0]} and displacement {vectors.shape[0]} batch entries; repeat one")
    if mode == "linear" and not image.is_floating_point():
        raise ValueError(f"linear interpolation of a {image.dtype} image would invent values; use mode='nearest'")


def _units_per_pixel(image: Tensor) -> Tensor:
    """Size of a pixel in the [-1, 1] coordinates of `grid_sample`, which names the last array axis first, (D,)."""
    return torch.tensor([2.0 / max(n - 1, 1) for n in reversed(image.shape[2:])], dtype=torch.float64).to(image.device)


@lru_cache(maxsize=16)
def _identity(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The `grid_sample` coordinates that read every pixel where it is, (1, *shape, D). Kept, because loops reuse it."""
    with torch.inference_mode(False):
        axes = [torch.linspace(-1, 1, n, dtype=dtype) if n > 1 else -torch.ones(1, dtype=dtype) for n in shape]
        return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)[None].to(device)


def _read(image: Tensor, coordinates: Tensor, mode: Literal["linear", "nearest"]) -> Tensor:
    values = image if image.is_floating_point() else image.double()  # exact for every integer label below 2**53
    warped = F.grid_sample(
        values,
        coordinates.to(values.dtype),
        mode="bilinear" if mode == "linear" else "nearest",
        padding_mode="border",
        align_corners=True,
    )
    return warped.to(image.dtype)
