"""Oblique-coronal volumes of shoulders whose cuff is torn or not, for the VRN of Shim et al., Scientific Reports 2020.

Stands in for 2,124 private scans with the size of the tear found at arthroscopy. The class is the tear's length from
front to back: partial (of the tendon's thickness), small (below 1 cm), medium (1 to 3 cm) or large. What the scan shows
differs from what the surgeon measured by about 1.5 mm, so neighboring classes overlap. The field of view is larger
than the cube around the humeral head that the network takes, and the head is not in its middle.

Arrays are as a series of 4 mm slices gives them: (1, columns, rows, slices), uint16, anisotropic, not interpolated;
the slices are stacked from the patient's front to the back, turned toward the scapula's plane. Left shoulders mirror
right ones.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medray.data.case import Case, FieldRef, Volume
from medray.data.phantoms.shoulder_anatomy import Cut, Shoulder, Tear, drawn_shoulder, tear_membership
from medray.data.phantoms.shoulder_drawing import draw_shoulder
from medray.data.phantoms.shoulder_scanner import (
    FAT_BRIGHT,
    FAT_SUPPRESSED,
    FloatArray,
    bias_field,
    drawn_contrast,
    mask_of,
    paint,
    rician,
    stored,
    stream_of,
    texture,
)
from medray.data.phantoms.shoulder_tears import Size, drawn_size, drawn_tear

Name = Literal["image", "tear"]

FIELD_OF_VIEW_MM = 160.0
SLICE_MM = 4.0
_CUTS = 2  # drawn and averaged for each slice, so that a slice is as thick as it is
_WIDTH_MM = (24.0, 27.0)  # half the cuff, from front to back
_ERROR_MM = 1.5
_SUPPRESSED = 0.6
_FULL = 2400.0
_MIN_SIZE, _MIN_SLICES = 24, 16


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One scan; everything that its fields depend on.

    Attributes:
        seed: of the whole phantom.
        index: number of the patient.
        tear_size: class of the tear.
        size: rows and columns.
        slices: number of slices, 4 mm apart.
        noise: standard deviation of the noise; muscle is 0.2 to 0.5, fluid 0.8.
        bias: amplitude of the bias field.
    """

    seed: int
    index: int
    tear_size: Size
    size: int
    slices: int
    noise: float
    bias: float

    def random(self, stream: str) -> np.random.Generator:
        """One stream per ingredient: the anatomy does not depend on the tear."""
        return stream_of(self.seed, self.index, stream)


@dataclass(frozen=True)
class ScanField:
    """The scan or the mask of its tear, drawn when loaded."""

    scan: Scan
    name: Name

    def load(self) -> Volume:
        """(1, columns, rows, slices): the image uint16, the mask uint8."""
        image, tear = _drawn(self.scan)
        array = (tear if self.name == "tear" else image)[None]
        return Volume(array.copy(), _Pose.of(self.scan).affine, f"phantom:shoulder_3d {self.fingerprint()}")

    def fingerprint(self) -> str:
        """Every parameter by name."""
        return f"{self.name} " + " ".join(f"{f.name}={getattr(self.scan, f.name)}" for f in fields(self.scan))


def cases(
    n: int = 200, size: int = 48, slices: int = 32, seed: int = 0, noise: float = 0.04, bias: float = 0.25
) -> tuple[Case, ...]:
    """Scans of as many patients.

    Args:
        n: scans. Scan i does not depend on n.
        size: rows and columns of a slice, over 160 mm.
        slices: of 4 mm each.
        seed: of everything.
        noise: standard deviation of the scanner's noise; fluid is about 0.8, the tendon 0.1 to 0.2.
        bias: amplitude of the bias field, below 1.

    Returns:
        n cases with the fields ``image`` and ``tear``. Attributes: ``class`` (none, partial, small, medium, large, with
        the paper's shares), ``tear_mm`` (length of the tear from front to back, 0 for none), ``center_mm`` (``x y z``,
        world position of the humeral head's center, mm) and ``side`` (left, right).

    Raises:
        ValueError: a parameter is out of range.
    """
    if n < 1 or seed < 0:
        raise ValueError(f"n must be at least 1 and seed not negative, got {n} and {seed}")
    if size < _MIN_SIZE or slices < _MIN_SLICES:
        raise ValueError(f"size and slices must be at least {_MIN_SIZE} and {_MIN_SLICES}, got {size} and {slices}")
    if noise < 0 or not 0 <= bias < 1:
        raise ValueError(f"noise is not negative and bias lies in [0, 1), got {noise} and {bias}")
    made = []
    for index in range(n):
        kind = drawn_size(seed, index)
        scan = Scan(seed=seed, index=index, tear_size=kind, size=size, slices=slices, noise=noise, bias=bias)
        made.append(_case(scan))
    return tuple(made)


def _case(scan: Scan) -> Case:
    tear, pose = _tear(scan), _Pose.of(scan)
    attributes = {
        "class": scan.tear_size,
        "tear_mm": f"{tear.length_mm if tear else 0.0:.1f}",
        "center_mm": " ".join(f"{value:.1f}" for value in pose.center_mm),
        "side": "right" if pose.side > 0 else "left",
    }
    names: tuple[Name, ...] = ("image", "tear")
    refs: dict[str, FieldRef] = {name: ScanField(scan, name) for name in names}
    return Case(f"s{scan.index:04d}", f"s{scan.index:04d}", refs, attributes)


@dataclass(frozen=True)
class _Pose:
    """How the shoulder lies in the scanner.

    Attributes:
        side: 1 for a right shoulder, whose lateral is the patient's right, -1 for a left one.
        tilt: of the shoulder in the plane of the slices, rad.
        center: position of the head's center in the slab: mm along columns, rows and slices from the slab's middle.
        affine: index to mm, RAS+.
        center_mm: world position of the head's center.
    """

    side: float
    tilt: float
    center: tuple[float, float, float]
    affine: NDArray[np.float64]
    center_mm: NDArray[np.float64]

    @classmethod
    def of(cls, scan: Scan) -> _Pose:
        random = scan.random("pose")
        side = 1.0 if random.random() < 0.5 else -1.0
        turn = side * np.deg2rad(random.normal(30, 5))  # the scapula's plane
        tilt = float(random.normal(0, np.deg2rad(5)))
        away = random.normal(0, 5, size=3)
        center = (-side * 14.0 + away[0], -10.0 + away[1], away[2])
        spacing = FIELD_OF_VIEW_MM / scan.size
        columns = -np.array([np.cos(turn), -np.sin(turn), 0.0])  # to the patient's left
        through = -np.array([np.sin(turn), np.cos(turn), 0.0])  # to the back
        axes = np.stack([columns, np.array([0.0, 0.0, -1.0]), through], axis=1)
        affine = np.eye(4)
        affine[:3, :3] = axes * (spacing, spacing, SLICE_MM)
        middle = (np.array([scan.size, scan.size, scan.slices]) - 1) / 2
        isocenter = np.array([side * 150.0, -10.0, 0.0]) + random.normal(0, 10, size=3)
        affine[:3, 3] = isocenter - affine[:3, :3] @ middle
        return cls(side, tilt, center, affine, isocenter + axes @ np.array(center))


@lru_cache(maxsize=4096)
def _tear(scan: Scan) -> Tear | None:
    if scan.tear_size == "none":
        return None
    random = scan.random("tear")
    tear = drawn_tear(random, scan.tear_size, error_mm=_ERROR_MM)
    room = max(0.0, _shoulder(scan).width - tear.length_mm / 2 - 1.0)
    return replace(tear, middle_mm=random.uniform(-room, room))


def _shoulder(scan: Scan) -> Shoulder:
    return drawn_shoulder(scan.random("anatomy"), width=_WIDTH_MM)


@lru_cache(maxsize=4)
def _drawn(scan: Scan) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Image and mask; the last few are kept, since a mask is asked for right after its image."""
    shoulder, cut = _shoulder(scan), _cut(scan)
    random = scan.random("contrast")
    values = drawn_contrast(random, FAT_SUPPRESSED if random.random() < _SUPPRESSED else FAT_BRIGHT)
    shape = (scan.size, scan.size, scan.slices * _CUTS)
    fibers = texture(scan.random("fibers"), shape, (1.2, 0.4, 0.8))
    image, band = draw_shoulder(shoulder, cut, values, fibers)
    tear, mask = _tear(scan), np.zeros((scan.size, scan.size, scan.slices), dtype=np.uint8)
    if tear:
        gap = tear_membership(tear, band, cut)
        paint(image, gap, values["fluid"])
        mask = mask_of(_averaged(gap)).astype(np.uint8)
    image = _averaged(image)
    image = image * bias_field(scan.random("bias"), image.shape, scan.bias)
    return stored(rician(scan.random("noise"), image, scan.noise), _FULL, np.uint16), mask


def _averaged(fine: FloatArray) -> FloatArray:
    """Slices of 4 mm from the cuts within them."""
    return np.asarray(fine.reshape(*fine.shape[:2], -1, _CUTS).mean(axis=3))


def _cut(scan: Scan) -> Cut:
    pose = _Pose.of(scan)
    plane = ((np.arange(scan.size) + 0.5) / scan.size - 0.5) * FIELD_OF_VIEW_MM
    through = ((np.arange(scan.slices * _CUTS) + 0.5) / (scan.slices * _CUTS) - 0.5) * scan.slices * SLICE_MM
    left, down = (plane - pose.center[0])[:, None, None], (plane - pose.center[1])[None, :, None]
    lateral = -pose.side * left * np.cos(pose.tilt) + down * np.sin(pose.tilt)
    up = -down * np.cos(pose.tilt) - pose.side * left * np.sin(pose.tilt)
    anterior = (pose.center[2] - through)[None, None, :]
    axes = [x.astype(np.float32) for x in (lateral, up, anterior)]
    return Cut(axes[0], axes[1], axes[2], FIELD_OF_VIEW_MM / scan.size)
