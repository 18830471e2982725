"""Anatomy of a shoulder in mm: its bones, the band of the supraspinatus, tears in it, and fluid elsewhere.

Coordinates of the patient's shoulder, the same for left and right: ``lateral`` (away from the body's middle), ``up``
and ``anterior``, in mm from the center of the humeral head. The head is an ellipsoid, so a coronal cut further from its
center shows a smaller one. The supraspinatus is a band with coordinates of its own (`Band`): ``along``, from its
insertion on the greater tuberosity over the head to the muscle, and ``above``, from the head's surface.

`medray.data.phantoms.shoulder_drawing` draws it wherever it is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from medray.data.phantoms.shoulder_scanner import FloatArray, soft

_THICKNESS = ((0.0, 10.0, 30.0, 45.0, 70.0), (4.0, 6.5, 7.5, 10.5, 15.0))  # of the band: mm along, mm


class Cut(NamedTuple):
    """Where an image lies in the shoulder: coordinates in mm that broadcast to its shape, and the pixel size."""

    lateral: FloatArray
    up: FloatArray
    anterior: FloatArray
    pixel_mm: float


class Spot(NamedTuple):
    """An ellipsoid of fluid: center and radii (lateral, up, anterior), mm."""

    center: tuple[float, float, float]
    radii: tuple[float, float, float]


class Band(NamedTuple):
    """Coordinates of the supraspinatus at every pixel, its thickness there and the signed distance from the tendon."""

    along: FloatArray
    above: FloatArray
    thickness: FloatArray
    tendon: FloatArray


@dataclass(frozen=True, kw_only=True)
class Tear:
    """A gap in the tendon, full of fluid.

    Attributes:
        start_mm: from the insertion to the gap, along the tendon.
        gap_mm: of the gap, along the tendon (retraction).
        middle_mm: anterior position of its middle.
        length_mm: from front to back.
        depth: share of the tendon's thickness that is torn; 1 for full thickness.
        articular: whether a partial tear is at the lower surface.
    """

    start_mm: float
    gap_mm: float
    middle_mm: float
    length_mm: float
    depth: float = 1.0
    articular: bool = True


@dataclass(frozen=True, kw_only=True)
class Shoulder:
    """One patient's shoulder. Lengths in mm, angles in rad.

    Attributes:
        head: radius of the humeral head in a coronal plane.
        depth: its half extent from front to back.
        shaft: half width of the humeral shaft; lean: its slope.
        skin: distances of the lateral and the upper skin; corner: radius of the shoulder's curve between them.
        fat: thickness of the fat under the skin.
        insertion: angle of the tendon's insertion, from straight up toward lateral; leave: where it leaves the head.
        thickness: factor of the tendon's.
        tendon: length of what is called tendon, from the insertion.
        width: half the tendon's extent from front to back.
        roof: height of the acromion's middle above the tendon.
        bursa: thickness of the fluid in the bursa, may be 0; bursa_from, bursa_to: mm along.
        effusion: thickness of the fluid in the joint.
        spots: fluid elsewhere.
        planes: fat between muscles, thin and flat: center (lateral, up), half length, slope in rad.
    """

    head: float
    depth: float
    shaft: float
    lean: float
    skin: tuple[float, float]
    corner: float
    fat: float
    insertion: float
    leave: float
    thickness: float
    tendon: float
    width: float
    roof: float
    bursa: float
    bursa_from: float
    bursa_to: float
    effusion: float
    spots: tuple[Spot, ...]
    planes: tuple[tuple[float, float, float, float], ...]

    def band(self, cut: Cut) -> Band:
        """Coordinates along and above the supraspinatus: around the head first, then straight."""
        surface = self.head * np.sqrt(np.maximum(1 - (cut.anterior / self.depth) ** 2, 0.05)) + 1.0
        angle = np.arctan2(cut.lateral, cut.up)
        radius = np.hypot(cut.lateral, cut.up)
        off = self.leave - angle
        straight = off > 0
        around = (self.insertion - self.leave) * surface
        along = np.where(straight, around + radius * np.sin(off), (self.insertion - angle) * surface)
        above = np.where(straight, radius * np.cos(np.minimum(off, np.pi / 2)), radius) - surface
        above = np.where(off > np.pi / 2, np.float32(-1e3), above)  # below the head there is no band
        thickness = np.interp(along, *_THICKNESS).astype(np.float32) * np.float32(self.thickness)
        ends = np.maximum(np.maximum(-along, along - self.tendon), np.abs(cut.anterior) - self.width)
        tendon = np.maximum(ends, np.maximum(-above, above - thickness))
        return Band(along, above, thickness, tendon.astype(np.float32))


def drawn_shoulder(random: np.random.Generator, *, width: tuple[float, float]) -> Shoulder:
    """A patient's anatomy.

    Args:
        random: its stream.
        width: range of half the tendon's extent from front to back, mm.
    """
    head = random.uniform(21.5, 25.5)
    bursitis, effused = random.random() < 0.6, random.random() < 0.6
    return Shoulder(
        head=head,
        depth=head * random.uniform(1.35, 1.5),
        shaft=random.uniform(12.0, 15.0),
        lean=random.uniform(-0.05, 0.10),
        skin=(head + random.uniform(19, 27), head + random.uniform(31, 38)),
        corner=random.uniform(38, 50),
        fat=random.uniform(3.0, 9.0),
        insertion=random.uniform(0.95, 1.15),
        leave=random.uniform(-0.22, -0.05),
        thickness=random.uniform(0.85, 1.2),
        tendon=random.uniform(50, 64),
        width=random.uniform(*width),
        roof=random.uniform(4.0, 7.0),
        bursa=random.uniform(0.8, 2.6) if bursitis else 0.0,
        bursa_from=random.uniform(-16, 2),
        bursa_to=random.uniform(12, 38),
        effusion=random.uniform(0.8, 2.2) if effused else 0.0,
        spots=_drawn_spots(random, head),
        planes=tuple(
            (random.uniform(-75, -15), random.uniform(-75, -25), random.uniform(8, 28), random.normal(0.5, 0.25))
            for _ in range(random.integers(3, 7))
        ),
    )


def _drawn_spots(random: np.random.Generator, head: float) -> tuple[Spot, ...]:
    """Vessels in the armpit, recesses of the joint, fluid between acromion and clavicle, cysts in the humerus."""
    places = (  # lateral, up, spread, smallest and largest radius, how often
        (-0.65 * head, -1.15 * head, 3.0, (1.8, 4.5), 0.7),
        (-1.5 * head, -2.0 * head, 8.0, (1.5, 3.0), 0.8),
        (-1.1 * head, -2.6 * head, 8.0, (1.5, 3.0), 0.8),
        (-0.75 * head, 1.0 * head + 19, 3.0, (1.5, 4.0), 0.6),
        (0.45 * head, 0.45 * head, 4.0, (1.5, 3.0), 0.4),
        (-1.6 * head, 0.45 * head, 4.0, (2.0, 4.5), 0.5),
        (1.05 * head, -1.2 * head, 4.0, (1.2, 2.5), 0.4),
    )
    spots = []
    for lateral, up, spread, (low, high), share in places:
        there = random.random() < share
        center = random.normal(lateral, spread), random.normal(up, spread), random.normal(0, 12.0)
        small, stretch = random.uniform(low, high), random.uniform(1.0, 2.2)
        radii = (small * stretch, small, random.uniform(8, 25))
        radii = radii if random.random() < 0.5 else (radii[1], radii[0], radii[2])
        if there:
            spots.append(Spot(center, radii))
    return tuple(spots)


def tear_membership(tear: Tear, band: Band, cut: Cut) -> FloatArray:
    """Membership of the gap, 0 to 1, never outside the tendon: an ellipse seen from above, ragged at its medial end."""
    across = np.clip((cut.anterior - np.float32(tear.middle_mm)) / np.float32(tear.length_mm / 2), -1, 1)
    half = np.float32(tear.gap_mm / 2) * np.sqrt(1 - across**2)
    ragged = np.float32(min(1.0, 0.1 * tear.gap_mm)) * np.sin(band.above * np.float32(0.8) + np.float32(tear.start_mm))
    distance = np.abs(band.along - np.float32(tear.start_mm + tear.gap_mm / 2)) - half + ragged
    deep = band.thickness * np.float32(tear.depth)
    floor = 0.0 if tear.articular else band.thickness - deep
    distance = np.maximum(distance, np.maximum(floor - band.above, band.above - floor - deep))
    distance = np.maximum(distance, np.abs(cut.anterior - np.float32(tear.middle_mm)) - np.float32(tear.length_mm / 2))
    return soft(np.maximum(distance, band.tendon), cut.pixel_mm)
