"""Anatomy of a shoulder in mm, drawn wherever it is cut: humerus, glenoid, acromion, clavicle, cuff and fluid.

Coordinates of the patient's shoulder, the same for left and right: ``lateral`` (away from the body's middle), ``up``
and ``anterior``, in mm from the center of the humeral head. The head is an ellipsoid, so a coronal cut further from its
center shows a smaller one. The supraspinatus is a band with coordinates of its own (`Band`): ``along``, from its
insertion on the greater tuberosity over the head to the muscle, and ``above``, from the head's surface.

Fluid is drawn in one intensity wherever it is: in a tear, in the bursa, in the joint and in cysts and vessels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from medray.data.phantoms.shoulder_scanner import FloatArray, paint, soft

_THICKNESS = ((0.0, 10.0, 30.0, 45.0, 70.0), (4.0, 6.5, 7.5, 10.5, 15.0))  # of the band: mm along, mm
_MUSCLE_FROM, _MUSCLE_TO = 22.0, 46.0  # the tendon's fibers become muscle between these, mm along
_BELLY = ((15.0, 45.0, 80.0), (0.0, 3.0, 10.0))  # what the muscle is thicker than the tendon, on either side


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
    """Coordinates of the supraspinatus at every pixel, mm."""

    along: FloatArray
    above: FloatArray
    thickness: FloatArray


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
        return Band(along, above, np.interp(along, *_THICKNESS).astype(np.float32) * np.float32(self.thickness))

    def tendon_distance(self, band: Band, cut: Cut) -> FloatArray:
        """Signed distance from the tendon, mm."""
        inside = np.maximum(-band.along, band.along - self.tendon)
        inside = np.maximum(inside, np.maximum(-band.above, band.above - band.thickness))
        return np.asarray(np.maximum(inside, np.abs(cut.anterior) - self.width), dtype=np.float32)


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
        shaft=random.uniform(11.0, 14.0),
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


def ellipsoid(
    cut: Cut, center: tuple[float, float, float], radii: tuple[float, float, float], tilt: float = 0.0
) -> Any:
    """Signed distance from an ellipsoid, mm (exact along its shortest axis); tilted in the coronal plane."""
    dx, dy = cut.lateral - np.float32(center[0]), cut.up - np.float32(center[1])
    if tilt:
        cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
        dx, dy = dx * cos + dy * sin, dy * cos - dx * sin
    square = (dx / np.float32(radii[0])) ** 2 + (dy / np.float32(radii[1])) ** 2
    square = square + ((cut.anterior - np.float32(center[2])) / np.float32(radii[2])) ** 2
    return (np.sqrt(square) - 1) * np.float32(min(radii))


def tear_membership(tear: Tear, band: Band, cut: Cut, shoulder: Shoulder) -> FloatArray:
    """Membership of the gap, 0 to 1, never outside the tendon: an ellipse seen from above, ragged at its medial end."""
    across = np.clip((cut.anterior - np.float32(tear.middle_mm)) / np.float32(tear.length_mm / 2), -1, 1)
    half = np.float32(tear.gap_mm / 2) * np.sqrt(1 - across**2)
    ragged = np.float32(min(0.8, 0.1 * tear.gap_mm)) * np.sin(band.above * np.float32(2.1) + np.float32(tear.start_mm))
    distance = np.abs(band.along - np.float32(tear.start_mm + tear.gap_mm / 2)) - half + ragged
    deep = band.thickness * np.float32(tear.depth)
    floor = 0.0 if tear.articular else band.thickness - deep
    distance = np.maximum(distance, np.maximum(floor - band.above, band.above - floor - deep))
    distance = np.maximum(distance, np.abs(cut.anterior - np.float32(tear.middle_mm)) - np.float32(tear.length_mm / 2))
    return soft(np.maximum(distance, shoulder.tendon_distance(band, cut)), cut.pixel_mm)


def draw_shoulder(
    shoulder: Shoulder, cut: Cut, values: dict[str, float], fibers: FloatArray
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


def _soft_tissue(image: FloatArray, shoulder: Shoulder, cut: Cut, values: dict[str, float], muscle: FloatArray) -> None:
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
    for center, radii, tilt in pads:
        paint(image, soft(ellipsoid(cut, center, radii, tilt), cut.pixel_mm), values["fat"])


def _bones(image: FloatArray, shoulder: Shoulder, cut: Cut, values: dict[str, float]) -> None:
    """Marrow with a dark cortex: humerus, glenoid with the neck of the scapula, acromion, clavicle."""
    head = shoulder.head
    ball = ellipsoid(cut, (0.0, 0.0, 0.0), (head, head, shoulder.depth))
    below = np.minimum(cut.up, 0.0)
    middle = np.float32(0.10 * head) - np.float32(shoulder.lean) * below
    wide = np.float32(shoulder.shaft) + np.float32(8.0) * np.exp((below + np.float32(0.5 * head)) / np.float32(9.0))
    shaft = np.maximum(np.hypot(cut.lateral - middle, cut.anterior) - np.minimum(wide, np.float32(0.9 * head)), cut.up)
    tuberosity = ellipsoid(cut, (0.55 * head, 0.22 * head, 0.0), (0.45 * head, 0.55 * head, 0.9 * shoulder.depth))
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
        ellipsoid(cut, (0.25 * head, roof, -6.0), (15.0, 4.5, 22.0), -0.12),
        ellipsoid(cut, (-1.25 * head, roof + 2.0, 4.0), (13.0, 5.5, 12.0), 0.10),
    )
    for bone in bones:
        paint(image, soft(bone, cut.pixel_mm), values["cortex"])
        paint(image, soft(bone + np.float32(1.3), cut.pixel_mm), values["marrow"])


def _supraspinatus(
    image: FloatArray, shoulder: Shoulder, cut: Cut, band: Band, values: dict[str, float], muscle: FloatArray
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
    inside = soft(shoulder.tendon_distance(band, cut), cut.pixel_mm)
    paint(image, inside * fibrous.astype(np.float32), values["tendon"])


def _fluid(image: FloatArray, shoulder: Shoulder, cut: Cut, band: Band, values: dict[str, float]) -> None:
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
    for spot in shoulder.spots:
        off = soft(ellipsoid(cut, spot.center, spot.radii), cut.pixel_mm)
        apart = soft(-shoulder.tendon_distance(band, cut) + np.float32(1.0), cut.pixel_mm)
        paint(image, off * apart, values["fluid"])
