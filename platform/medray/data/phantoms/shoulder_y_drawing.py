"""The shoulder in a Y-view: skin, chest, the scapula's Y and its muscles, each with streaks of fat.

Coordinates of a `Cut`: ``lateral`` is forward here, in mm from the fork of the Y.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medray.data.phantoms.shoulder_anatomy import Cut
from medray.data.phantoms.shoulder_drawing import ellipsoid
from medray.data.phantoms.shoulder_scanner import FloatArray, paint, soft, texture

Stream = Callable[[str], np.random.Generator]

_REFERENCE_SIZE = 96  # pixels at which textures are what they are
_OTHER_FAT = 0.5  # at most, in the other muscles
_WAVES_MM = 0.75


@dataclass(frozen=True)
class Oval:
    """A muscle: center and radii (forward, up) in mm from the Y's fork, its tilt in rad."""

    center: tuple[float, float]
    radii: tuple[float, float]
    tilt: float

    def distance(self, cut: Cut) -> FloatArray:
        """Signed, mm."""
        found = ellipsoid(cut, (*self.center, 0.0), (*self.radii, 1e6), self.tilt)
        return np.asarray(found, dtype=np.float32)


_OTHERS = {
    "infraspinatus": Oval((-22.0, -22.0), (13.0, 28.0), -0.25),
    "subscapularis": Oval((17.0, -26.0), (11.0, 29.0), 0.22),
    "teres": Oval((-10.0, -58.0), (16.0, 9.0), 0.1),
    "trapezius": Oval((-10.0, 41.0), (38.0, 7.0), 0.25),
}


def draw_body(
    image: FloatArray, cut: Cut, values: Mapping[str, float], random: np.random.Generator, stream: Stream
) -> None:
    """Skin, fat under it in a random amount, the chest, and the muscles around the scapula with fat of their own.

    Args:
        image: drawn upon in place.
        cut: where.
        values: intensity by tissue.
        random: of the anatomy.
        stream: makes the streams of the ingredients.
    """
    outline = Oval((10.0, -32.0), (78.0, 84.0), random.normal(0, 0.05)).distance(cut) + waves(
        stream("waves skin"), image.shape
    )
    fat_mm = random.uniform(3.0, 16.0)
    paint(image, soft(outline, cut.pixel_mm), values["muscle"])
    paint(image, soft(outline + np.float32(1.2), cut.pixel_mm), values["fat"])
    within = outline + np.float32(1.2 + fat_mm)
    fibers = texture(stream("body"), image.shape, (1.0, 2.5))
    paint(image, soft(within, cut.pixel_mm), np.float32(values["muscle"]) * (1 + np.float32(0.1) * fibers))
    _chest(image, cut, values)
    fossa = Oval((0.0, 18.0), (30.0, 17.0), 0.0).distance(cut) + waves(stream("waves fossa"), image.shape)
    paint(image, soft(np.maximum(fossa, within), cut.pixel_mm), values["fat"])
    for name, oval in _OTHERS.items():
        where = np.maximum(oval.distance(cut) + waves(stream(f"waves {name}"), image.shape), within)
        own = stream(f"fat {name}").uniform(0.0, _OTHER_FAT)
        between = np.maximum(where - np.maximum(waves(stream(f"waves {name} around"), image.shape), 0), within)
        paint(image, soft(between, cut.pixel_mm), values["fat"])
        fat = fat_streaks(stream(f"streaks {name}"), where < 0, own)
        paint_muscle(image, soft(where, cut.pixel_mm), fat, values, stream(f"fibers {name}"))


def _chest(image: FloatArray, cut: Cut, values: Mapping[str, float]) -> None:
    """The lung below and in front, and ribs around it."""
    center, radii = np.array([58.0, -78.0]), np.array([42.0, 62.0])
    lung = Oval((center[0], center[1]), (radii[0], radii[1]), 0.15).distance(cut)
    paint(image, soft(lung - 2.0, cut.pixel_mm), values["fat"])
    paint(image, soft(lung, cut.pixel_mm), values["air"] * 2)
    for angle in np.linspace(1.4, 3.1, 4):
        at = center + (radii + 6.0) * (np.cos(angle), np.sin(angle))
        rib = Oval((float(at[0]), float(at[1])), (5.0, 3.0), float(angle)).distance(cut)
        paint(image, soft(rib, cut.pixel_mm), values["cortex"])
        paint(image, soft(rib + np.float32(1.2), cut.pixel_mm), values["marrow"])


def waves(random: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """What makes an outline uneven, mm."""
    sigma = 5.0 * shape[0] / _REFERENCE_SIZE
    return np.asarray(np.float32(_WAVES_MM) * texture(random, shape, (sigma, sigma)))


def draw_scapula(image: FloatArray, cut: Cut, values: Mapping[str, float], random: np.random.Generator) -> None:
    """The Y: its body downward, the spine up and back, the coracoid up and forward; the clavicle above."""
    wide = random.uniform(3.0, 4.5)
    arms = (
        ((0.0, -2.0), (-2.0, -58.0), wide * 0.8),
        ((0.0, 0.0), (-26.0, 16.0), wide),
        ((0.0, 0.0), (24.0, 14.0), wide),
    )
    distance = np.minimum.reduce([_capsule(cut, start, end) - np.float32(half) for start, end, half in arms])
    clavicle = Oval((12.0, 40.0), (8.0, 5.5), 0.3).distance(cut)
    for bone in (distance, clavicle):
        paint(image, soft(bone, cut.pixel_mm), values["cortex"])
        paint(image, soft(bone + np.float32(1.4), cut.pixel_mm), values["marrow"])


def _capsule(cut: Cut, start: tuple[float, float], end: tuple[float, float]) -> FloatArray:
    """Distance from a line of finite length, mm."""
    dx, dy = cut.lateral - np.float32(start[0]), cut.up - np.float32(start[1])
    across, upward = end[0] - start[0], end[1] - start[1]
    part = np.clip((dx * across + dy * upward) / (across**2 + upward**2), 0, 1)
    return np.asarray(np.hypot(dx - part * across, dy - part * upward), dtype=np.float32)


def fat_streaks(random: np.random.Generator, muscle: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """The ``share`` of a muscle's pixels where oriented noise is highest."""
    scale = len(muscle) / _REFERENCE_SIZE
    noise = texture(random, muscle.shape, (0.7 * scale, 2.6 * scale))
    turned = ndimage.rotate(noise, random.uniform(-40, 40), reshape=False, order=1, mode="reflect")
    inside = turned[muscle]
    wanted = round(share * inside.size)
    if not wanted:
        return np.zeros_like(muscle)
    return np.asarray(muscle & (turned >= np.partition(inside, -wanted)[-wanted]))


def paint_muscle(
    image: FloatArray,
    where: FloatArray,
    fat: NDArray[np.bool_],
    values: Mapping[str, float],
    random: np.random.Generator,
) -> None:
    """A muscle with its fibers, and the fat in it."""
    fibers = 1 + np.float32(0.08) * texture(random, image.shape, (0.8, 1.6))
    inner = np.where(fat, np.float32(values["fat"]) * 0.92, np.float32(values["muscle"]) * fibers)
    paint(image, where, inner.astype(np.float32))
