"""A shoulder drawn wherever it is cut: skin, muscles, bones, the supraspinatus with its tendon, and fluid.

Fluid is drawn in one intensity wherever it is: in a tear, in the bursa, in the joint and in cysts and vessels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medray.data.phantoms.shoulder_anatomy import Band, Cut, Shoulder
from medray.data.phantoms.shoulder_scanner import FloatArray, paint, soft

_MUSCLE_FROM, _MUSCLE_TO = 22.0, 46.0  # the tendon's fibers become muscle between these, mm along
_DELTOID_MM = 12.0  # thick
_BELLY = ((15.0, 45.0, 80.0), (0.0, 3.0, 10.0))  # what the muscle is thicker than the tendon, on either side


def ellipsoid(
    cut: Cut, center: tuple[float, float, float], radii: tuple[float, float, float], tilt: float = 0.0
) -> FloatArray:
    """Signed distance from an ellipsoid, mm (exact along its shortest axis); tilted in the coronal plane."""
    dx, dy = cut.lateral - np.float32(center[0]), cut.up - np.float32(center[1])
    if tilt:
        cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
        dx, dy = dx * cos + dy * sin, dy * cos - dx * sin
    square = (dx / np.float32(radii[0])) ** 2 + (dy / np.float32(radii[1])) ** 2
    square = square + ((cut.anterior - np.float32(center[2])) / np.float32(radii[2])) ** 2
    return np.asarray((np.sqrt(square) - 1) * np.float32(min(radii)), dtype=np.float32)


def draw_shoulder(
    shoulder: Shoulder, cut: Cut, values: Mapping[str, float], fibers: FloatArray
) -> tuple[FloatArray, Band]:
    """The shoulder without a tear.

    Args:
        shoulder: whose.
        cut: where.
        values: intensity by tissue.
        fibers: texture of the muscles, mean 0 and variance 1, of the image's shape.

    Returns:
        The image without bias and noise, and the band's coordinates.
    """
    image = np.full(np.broadcast_shapes(*(x.shape for x in cut[:3])), values["air"], dtype=np.float32)
    muscle = np.float32(values["muscle"]) * (1 + np.float32(0.10) * fibers)
    band = shoulder.band(cut)
    _soft_tissue(image, shoulder, cut, values, muscle)
    _bones(image, shoulder, cut, values)
    _supraspinatus(image, shoulder, cut, band, values, muscle)
    _fluid(image, shoulder, cut, band, values)
    return image, band


def _soft_tissue(
    image: FloatArray, shoulder: Shoulder, cut: Cut, values: Mapping[str, float], muscle: FloatArray
) -> None:
    """Skin and the fat under it, deltoid, and fat between the muscles."""
    top = cut.up + np.float32(0.12) * cut.lateral - np.float32(shoulder.skin[1] - shoulder.corner)
    side = cut.lateral - np.float32(shoulder.skin[0] - shoulder.corner)
    skin = np.hypot(np.maximum(top, 0), np.maximum(side, 0)) - np.float32(shoulder.corner)
    skin = skin + np.float32(0.004) * cut.anterior**2  # the shoulder is round
    paint(image, soft(skin, cut.pixel_mm), values["muscle"] * 0.9)
    paint(image, soft(skin + 1.2, cut.pixel_mm), values["fat"])
    paint(image, soft(skin + np.float32(1.2 + shoulder.fat), cut.pixel_mm), muscle)
    head = shoulder.head
    pads = (
        ((-1.55 * head, -1.45 * head, 0.0), (13.0, 7.0, 60.0), 0.7),
        ((-0.7 * head, -2.7 * head, 0.0), (4.0, 20.0, 60.0), 0.1),
        ((-2.1 * head, head + 14.0, 0.0), (28.0, 3.0, 60.0), 0.15),
        ((0.9 * head, head + 6.0, 0.0), (9.0, 1.6, 30.0), -0.5),
    )
    thin = tuple(((x, y, 0.0), (length, 0.9, 40.0), slope) for x, y, length, slope in shoulder.planes)
    for center, radii, tilt in (*pads, *thin):
        paint(image, soft(ellipsoid(cut, center, radii, tilt), cut.pixel_mm), values["fat"])
    under = np.abs(skin + np.float32(shoulder.fat + _DELTOID_MM)) - np.float32(0.6)
    medial = np.maximum(-cut.lateral, -cut.up - np.float32(2.6 * head))
    paint(image, soft(np.maximum(under, medial), cut.pixel_mm), values["fat"])


def _bones(image: FloatArray, shoulder: Shoulder, cut: Cut, values: Mapping[str, float]) -> None:
    """Marrow with a dark cortex: humerus, glenoid with the neck of the scapula, acromion, clavicle."""
    head = shoulder.head
    ball = ellipsoid(cut, (0.0, 0.0, 0.0), (head, head, shoulder.depth))
    below = np.minimum(cut.up, 0.0)
    middle = np.float32(0.10 * head) - np.float32(shoulder.lean) * below
    wide = np.float32(shoulder.shaft) + np.float32(9.0) * np.exp((below + np.float32(0.6 * head)) / np.float32(12.0))
    shaft = np.maximum(np.hypot(cut.lateral - middle, cut.anterior) - np.minimum(wide, np.float32(0.95 * head)), cut.up)
    tuberosity = ellipsoid(cut, (0.58 * head, -0.02 * head, 0.0), (0.54 * head, 0.70 * head, 0.9 * shoulder.depth))
    cartilage = np.maximum(ball - np.float32(1.6), cut.lateral - np.float32(0.2 * head))
    paint(image, soft(cartilage, cut.pixel_mm), values["cartilage"])
    roof = head + 1 + 7.5 * shoulder.thickness + shoulder.roof + 4.5
    neck = np.maximum(
        np.abs(cut.up + np.float32(4.0) + np.float32(0.18) * (cut.lateral + head)) - np.float32(6.0),
        np.maximum(cut.lateral + np.float32(head + 10), np.abs(cut.anterior) - np.float32(14.0)),
    )
    glenoid = ellipsoid(cut, (-head - 12.0, -3.0, 0.0), (8.5, 0.72 * head, 18.0), -0.15)
    bones = (
        np.minimum(np.minimum(ball, shaft), tuberosity),
        np.minimum(glenoid, neck),
        ellipsoid(cut, (0.25 * head, roof, -6.0), (16.0, 4.8, 30.0), -0.12),
        ellipsoid(cut, (-1.25 * head, roof + 2.0, 4.0), (13.0, 5.8, 22.0), 0.10),
    )
    for bone in bones:
        paint(image, soft(bone, cut.pixel_mm), values["cortex"])
        paint(image, soft(bone + np.float32(1.3), cut.pixel_mm), values["marrow"])


def _supraspinatus(
    image: FloatArray, shoulder: Shoulder, cut: Cut, band: Band, values: Mapping[str, float], muscle: FloatArray
) -> None:
    """The dark tendon over the head, which becomes muscle toward the middle of the body."""
    belly = np.interp(band.along, *_BELLY).astype(np.float32)
    thick = np.maximum(-band.above - np.float32(0.7) * belly, band.above - band.thickness - belly)
    ends = np.maximum(np.float32(_MUSCLE_FROM) - band.along, np.abs(cut.anterior) - np.float32(shoulder.width))
    paint(image, soft(np.maximum(thick, ends), cut.pixel_mm), muscle)
    middle = (band.above / band.thickness - np.float32(0.5)) * 2
    fibrous = 1 - np.clip((band.along - _MUSCLE_FROM) / (_MUSCLE_TO - _MUSCLE_FROM), 0, 1) * np.clip(
        np.abs(middle) * 1.6 - 0.1, 0, 1
    )
    fibrous = fibrous * np.clip((shoulder.tendon + 10 - band.along) / 25, 0, 1)
    inside = soft(band.tendon, cut.pixel_mm)
    paint(image, inside * fibrous.astype(np.float32), values["tendon"])


def _fluid(image: FloatArray, shoulder: Shoulder, cut: Cut, band: Band, values: Mapping[str, float]) -> None:
    """Everything as bright as a tear that is none."""
    head = shoulder.head
    if shoulder.bursa:
        over = band.above - band.thickness - np.float32(1.2 + shoulder.bursa / 2)
        bursa = np.maximum(np.abs(over) - np.float32(shoulder.bursa / 2), np.abs(cut.anterior) - np.float32(20.0))
        ends = np.maximum(np.float32(shoulder.bursa_from) - band.along, band.along - np.float32(shoulder.bursa_to))
        paint(image, soft(np.maximum(bursa, ends), cut.pixel_mm), values["fluid"])
    if shoulder.effusion:
        joint = ellipsoid(cut, (0.0, 0.0, 0.0), (head + 2.6, head + 2.6, shoulder.depth + 2.6))
        crescent = np.maximum(np.abs(joint) - np.float32(shoulder.effusion / 2), cut.lateral + np.float32(0.55 * head))
        paint(image, soft(np.maximum(crescent, cut.up - np.float32(0.55 * head)), cut.pixel_mm), values["fluid"])
    apart = soft(np.float32(1.0) - band.tendon, cut.pixel_mm)
    for spot in shoulder.spots:
        paint(image, apart * soft(ellipsoid(cut, spot.center, spot.radii), cut.pixel_mm), values["fluid"])
