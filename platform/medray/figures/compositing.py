"""A small volume seen from outside: light from the viewer, front to back, tissue nearly transparent, heat less so."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medray.figures.heat import heat_colors
from medray.figures.scene import Scene

Array = NDArray[Any]
_TISSUE = 0.08
"""Opacity of the brightest tissue along a hundredth of the volume's diagonal."""
_HEAT = 0.4
"""And of the hottest place."""


def composite(scene: Scene, azimuth: float, elevation: float, *, width: int = 128) -> Array:
    """The scene as it looks from a direction, by emission and absorption along parallel rays.

    Args:
        scene: axes run down, away from the viewer and to the right.
        azimuth: the viewer's turn around the vertical axis, degrees; 0 is in front, 90 at the right end of the page.
        elevation: the viewer's height, degrees.
        width: of the picture in pixels, the same in mm for every azimuth.

    Returns:
        (rows, width, 3) in [0, 1]; black where a ray meets nothing.
    """
    gray, heat = (_seen(volume, scene, azimuth, elevation, width) for volume in (scene.image, scene.heat))
    edges, shaded = _surfaces(gray)
    colors = heat_colors(1.0)(np.arange(256))[:, :3].astype(np.float32)
    step = 100 / len(gray)
    tissue = 1 - (1 - _TISSUE) ** (step * gray * edges)
    hot = 1 - (1 - _HEAT) ** (step * np.clip(1.4 * heat - 0.2, 0, 1))  # a faint haze of heat would hide the volume
    light, left = np.zeros((*gray.shape[1:], 3), np.float32), np.ones(gray.shape[1:], np.float32)
    for place in range(len(gray)):
        opacity = hot[place] + tissue[place] - hot[place] * tissue[place]
        share = (hot[place] / np.maximum(hot[place] + tissue[place], 1e-9))[..., None]
        color = colors[np.rint(255 * heat[place]).astype(np.uint8)]
        light += (left * opacity)[..., None] * (share * color + (1 - share) * shaded[place][..., None])
        left *= 1 - opacity
    return np.clip(1.4 * light, 0, 1)


def _seen(volume: Array, scene: Scene, azimuth: float, elevation: float, width: int) -> Array:
    """The volume on the viewer's grid: along the ray, down, to the right."""
    spacing = np.asarray(scene.spacing)
    down, away, right = spacing * volume.shape
    up, flat = np.deg2rad(elevation), float(np.hypot(away, right))
    extent = np.array([flat * np.cos(up) + down * np.sin(up), down * np.cos(up) + flat * np.sin(up), flat])
    step = flat / width * np.array([1.5, 1.0, 1.0])
    shape = tuple(int(length) for length in np.ceil(extent / step))
    # Columns: where one step along the ray, down and to the right of the picture leads in the volume, in voxels.
    matrix = _directions(azimuth, elevation) * step / spacing[:, None]
    offset = (np.asarray(volume.shape) - 1) / 2 - matrix @ (np.asarray(shape) - 1) / 2
    return np.asarray(ndimage.affine_transform(np.float32(volume / 255), matrix, offset, shape, order=1))


def _directions(azimuth: float, elevation: float) -> Array:
    """Columns: the picture's away, down and right as unit vectors along the volume's axes down, away, right."""
    around, up = np.deg2rad(azimuth), np.deg2rad(elevation)
    right = np.array([0.0, np.sin(around), np.cos(around)])
    flat = np.array([0.0, np.cos(around), -np.sin(around)])  # away, for a viewer at the volume's own height
    lower = np.array([1.0, 0.0, 0.0])
    return np.stack([np.cos(up) * flat + np.sin(up) * lower, np.cos(up) * lower - np.sin(up) * flat, right], axis=1)


def _surfaces(gray: Array) -> tuple[Array, Array]:
    """How much of a surface each place is, 0 to 1, and how bright it is in the viewer's own light.

    Opacity that grows with the slope of the image lets the inside be seen: Levoy, IEEE CG&A 1988.
    """
    smooth = ndimage.gaussian_filter(gray, 1.2)
    slopes = np.gradient(smooth)
    steepness = np.sqrt(sum(slope**2 for slope in slopes))
    facing = np.abs(slopes[0]) / (steepness + 0.005)
    return np.clip(0.1 + 6 * steepness, 0, 1), smooth * (0.35 + 0.65 * facing)
