"""Synthetic axial CT slices of the thorax, in HU: a stand-in for LIDC-IDRI in BliMSR (Dey et al., MIUA 2023).

An elliptical body with fat under the skin, ribs and a vertebra; two dark lungs with faint texture, fissures, nodules
and vessels that branch from the hilum, 1 to 3 px wide at any size: what is lost when the image is made four times
smaller, and what super-resolution is to bring back. Slices of one patient share the anatomy, not the vessels.

Arrays are as CT files give them: (1, x, y), int16, HU; x grows to the patient's right, y to the front.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medray.data.case import Case, Volume

FloatArray = NDArray[np.float64]

FIELD_OF_VIEW_MM = 360.0
_MIN_SIZE = 32
_HU = {
    "air": -1000.0,
    "fat": -95.0,
    "muscle": 55.0,
    "lung": -860.0,
    "fissure": -640.0,
    "vessel": 30.0,
    "nodule": 20.0,
    "heart": 45.0,
    "aorta": 160.0,
    "marrow": 220.0,
    "cortex": 700.0,
    "canal": 20.0,
}
_TRUNK_PX, _TIP_PX = (2.2, 3.0), 1.0  # widths of vessels
_NARROWING = (0.62, 0.82)  # from a vessel to its branches
_TRUNKS = (3, 5)  # in each lung
_SHORTEST_PX = 4.0  # a vessel that would be shorter is left out
_TEXTURE_HU = 28.0
_RIBS = 9  # pairs that a slice may cut


@dataclass(frozen=True, kw_only=True)
class ThoraxSlice:
    """One slice; everything that its image depends on.

    Attributes:
        seed: of the whole phantom.
        patient: number of the patient.
        number: of the slice in the patient.
        size: pixels along both axes.
        noise: standard deviation of the scanner's noise, HU.
    """

    seed: int
    patient: int
    number: int
    size: int
    noise: float

    def anatomy(self) -> np.random.Generator:
        """What all slices of the patient share."""
        return np.random.default_rng([self.seed, self.patient])

    def random(self, stream: str) -> np.random.Generator:
        """One stream per ingredient of this slice."""
        return np.random.default_rng([self.seed, self.patient, self.number, *stream.encode()])


@dataclass(frozen=True)
class ThoraxField:
    """The slice, drawn when loaded."""

    slice: ThoraxSlice

    def load(self) -> Volume:
        """(1, size, size), int16, HU."""
        spacing = FIELD_OF_VIEW_MM / self.slice.size
        affine = np.diag([spacing, spacing, 5.0, 1.0])
        affine[:3, 3] = (spacing - FIELD_OF_VIEW_MM) / 2, (spacing - FIELD_OF_VIEW_MM) / 2, 5.0 * self.slice.number
        return Volume(_slice(self.slice)[None], affine, source=f"phantom:thorax_ct {self.fingerprint()}")

    def fingerprint(self) -> str:
        """Every parameter by name."""
        return " ".join(f"{f.name}={getattr(self.slice, f.name)}" for f in fields(self.slice))


def cases(n: int = 40, slices: int = 2, seed: int = 0, size: int = 128, noise: float = 8.0) -> tuple[Case, ...]:
    """Slices of as many patients, each a case of its own.

    Args:
        n: patients. Patient i does not depend on n.
        slices: of each patient.
        seed: of everything.
        size: pixels along both axes of a slice, over 360 mm.
        noise: standard deviation of the scanner's noise, HU; vessels stand out of the lungs by 900.

    Returns:
        n times ``slices`` cases with the field ``image``.

    Raises:
        ValueError: a parameter is out of range.
    """
    if n < 1 or slices < 1 or seed < 0:
        raise ValueError(f"n and slices must be at least 1 and seed not negative, got {n}, {slices} and {seed}")
    if size < _MIN_SIZE:
        raise ValueError(f"size must be at least {_MIN_SIZE} pixels for vessels to show, got {size}")
    if noise < 0:
        raise ValueError(f"noise must not be negative, got {noise}")
    return tuple(
        Case(
            f"ct{patient:04d}-{number:02d}",
            f"patient{patient:04d}",
            {"image": ThoraxField(ThoraxSlice(seed=seed, patient=patient, number=number, size=size, noise=noise))},
        )
        for patient in range(n)
        for number in range(slices)
    )


@dataclass(frozen=True)
class _Canvas:
    """An image in HU to paint on, -1 to 1 along both axes; memberships have borders of one pixel."""

    image: FloatArray
    x: FloatArray
    y: FloatArray

    @property
    def pixels(self) -> float:
        """In one unit of length."""
        return len(self.image) / 2

    def paint(self, where: FloatArray, tissue: str) -> None:
        self.image[...] += (_HU[tissue] - self.image) * where

    def ellipse(self, center: tuple[float, float], radii: tuple[float, float], angle: float = 0.0) -> FloatArray:
        """Membership of an ellipse, (size, size)."""
        dx, dy = self.x - center[0], self.y - center[1]
        along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        beyond = (np.hypot(along / radii[0], across / radii[1]) - 1) * min(radii) * self.pixels
        return np.clip(0.5 - beyond, 0.0, 1.0)


def _slice(one: ThoraxSlice) -> NDArray[np.int16]:
    axis = (np.arange(one.size) + 0.5) * 2 / one.size - 1
    x, y = np.meshgrid(axis, axis, indexing="ij")
    canvas = _Canvas(np.full((one.size, one.size), _HU["air"]), x, y)
    anatomy = one.anatomy()
    zoom, tilt = anatomy.normal(0.97, 0.03), anatomy.normal(0, 0.04)
    canvas.paint(canvas.ellipse((0, 0), (0.94 * zoom, 0.70 * zoom), tilt), "fat")
    canvas.paint(canvas.ellipse((0, 0), (0.87 * zoom, 0.62 * zoom), tilt), "muscle")
    _bones(canvas, one, zoom)
    lungs = _lungs(canvas, one, anatomy, zoom)
    for side, lung in zip((-1, 1), lungs, strict=True):
        canvas.paint(lung, "lung")
        _parenchyma(canvas, one.random(f"lung{side}"), lung, side)
    _mediastinum(canvas, anatomy, zoom)
    canvas.image[...] += one.random("noise").normal(0, 1, size=canvas.image.shape) * one.noise
    return np.clip(np.rint(canvas.image), -1024, 3071).astype(np.int16)


def _lungs(canvas: _Canvas, one: ThoraxSlice, anatomy: np.random.Generator, zoom: float) -> list[FloatArray]:
    """Memberships of the two lungs; their size goes from apex to base over the slices of a patient."""
    heights = anatomy.uniform(0.85, 1.0, size=2)
    breadth = one.random("level").uniform(0.82, 1.0)
    return [
        canvas.ellipse((side * 0.41 * zoom, 0.02), (0.33 * zoom * breadth, 0.50 * zoom * heights[i]), side * 0.12)
        for i, side in enumerate((-1, 1))
    ]


def _parenchyma(canvas: _Canvas, random: np.random.Generator, lung: FloatArray, side: int) -> None:
    """Texture, a fissure, vessels and nodules of one lung."""
    size = len(lung)
    coarse = ndimage.gaussian_filter(random.normal(size=(size, size)), size / 32)
    fine = ndimage.gaussian_filter(random.normal(size=(size, size)), 0.8)
    canvas.image[...] += _TEXTURE_HU * lung * (coarse / coarse.std() + 0.5 * fine / fine.std())
    bend, height, slope = random.uniform(-0.6, 0.6), random.uniform(-0.25, 0.15), random.uniform(-0.5, 0.5)
    outward = canvas.x * side - 0.4
    off_px = np.abs(canvas.y - height - slope * outward - bend * outward**2) * canvas.pixels
    canvas.paint(np.clip(1.2 - off_px, 0.0, 1.0) * lung, "fissure")
    canvas.paint(_vessels(canvas, random, lung, side) * lung, "vessel")
    there = np.argwhere(lung > 0.9)
    for _ in range(int(random.integers(0, 3))):
        radius = random.uniform(2.0, 5.0) / canvas.pixels
        canvas.paint(
            canvas.ellipse(_inside(random, canvas, there), (radius, radius * random.uniform(0.8, 1.0))) * lung, "nodule"
        )


def _inside(random: np.random.Generator, canvas: _Canvas, there: NDArray[np.intp]) -> tuple[float, float]:
    i, j = there[random.integers(len(there))]
    return float(canvas.x[i, j]), float(canvas.y[i, j])


def _vessels(canvas: _Canvas, random: np.random.Generator, lung: FloatArray, side: int) -> FloatArray:
    """Membership of trees that grow outward from the hilum, and of vessels that cross the slice."""
    where = np.zeros_like(lung)
    num_trunks = int(random.integers(_TRUNKS[0], _TRUNKS[1] + 1))
    outward = 0.0 if side > 0 else np.pi
    for angle in np.linspace(-1.25, 1.25, num_trunks) + random.normal(0, 0.12, size=num_trunks):
        hilum = (side * random.uniform(0.12, 0.18), random.uniform(-0.1, 0.1))
        width, length = random.uniform(*_TRUNK_PX), random.uniform(0.14, 0.22)
        for piece in _branches(random, hilum, outward + angle, width, length, _SHORTEST_PX / canvas.pixels):
            _draw_piece(canvas, where, *piece)
    there = np.argwhere(lung > 0.9)
    for _ in range(round(random.uniform(0.0008, 0.0016) * len(where) ** 2)):
        point = _inside(random, canvas, there)
        _draw_piece(canvas, where, point, point, random.uniform(1.2, 3.0))
    return where


Point = tuple[float, float]


def _branches(
    random: np.random.Generator, start: Point, angle: float, width: float, length: float, shortest: float
) -> Iterator[tuple[Point, Point, float]]:
    """Straight pieces of a vessel and of what branches from it: start, end, width in px; recursive."""
    for _ in range(2):  # a bend in the middle
        angle += random.normal(0, 0.18)
        end = (start[0] + length / 2 * np.cos(angle), start[1] + length / 2 * np.sin(angle))
        yield start, end, width
        start = end
    for turn in (-1, 1):
        thinner, shorter = width * random.uniform(*_NARROWING), length * random.uniform(0.65, 0.95)
        if thinner >= _TIP_PX and shorter >= shortest:
            turned = angle + turn * random.uniform(0.25, 0.7)
            yield from _branches(random, start, turned, thinner, shorter, shortest)


def _draw_piece(canvas: _Canvas, where: FloatArray, start: Point, end: Point, width: float) -> None:
    """A straight line with round ends, on the part of the image that it can reach."""
    size, reach = len(where), width / 2 + 1
    ends = (np.array([start, end]) + 1) * canvas.pixels - 0.5  # in pixels
    low = np.clip(np.floor(ends.min(axis=0) - reach), 0, size).astype(int)
    high = np.clip(np.ceil(ends.max(axis=0) + reach) + 1, 0, size).astype(int)
    i, j = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]), indexing="ij")
    step = ends[1] - ends[0]
    along = np.clip(((i - ends[0, 0]) * step[0] + (j - ends[0, 1]) * step[1]) / max(step @ step, 1e-9), 0, 1)
    distance = np.hypot(i - ends[0, 0] - along * step[0], j - ends[0, 1] - along * step[1])
    part = where[low[0] : high[0], low[1] : high[1]]
    np.maximum(part, np.clip(width / 2 + 0.5 - distance, 0, 1), out=part)


def _bones(canvas: _Canvas, one: ThoraxSlice, zoom: float) -> None:
    """Ribs around the chest where the slice happens to cut them, and a vertebra."""
    random = one.random("bones")
    for side in (-1, 1):
        for at in np.linspace(-1.2, 1.25, _RIBS) + random.normal(0, 0.08, size=_RIBS):
            center = (side * 0.80 * zoom * np.cos(at), 0.58 * zoom * np.sin(at))
            along = np.arctan2(0.58 * np.cos(at), -side * 0.80 * np.sin(at))
            length = random.uniform(0.05, 0.13)
            canvas.paint(canvas.ellipse(center, (length, 0.034), along), "cortex")
            canvas.paint(canvas.ellipse(center, (length * 0.75, 0.018), along), "marrow")
    center = (0.0, -0.36 * zoom)
    canvas.paint(canvas.ellipse((0.0, -0.56 * zoom), (0.030, 0.07)), "cortex")
    canvas.paint(canvas.ellipse(center, (0.145, 0.115)), "cortex")
    canvas.paint(canvas.ellipse(center, (0.125, 0.095)), "marrow")
    canvas.paint(canvas.ellipse((0.0, -0.49 * zoom), (0.055, 0.045)), "canal")


def _mediastinum(canvas: _Canvas, anatomy: np.random.Generator, zoom: float) -> None:
    """Heart to the patient's left (x < 0) and aorta beside the spine, in front of what lungs they displace."""
    heart = (-0.10 + anatomy.normal(0, 0.02), 0.16 + anatomy.normal(0, 0.02))
    canvas.paint(canvas.ellipse((0.0, 0.0), (0.10, 0.52 * zoom)), "muscle")
    canvas.paint(canvas.ellipse(heart, (0.26, 0.20), anatomy.normal(-0.4, 0.1)), "heart")
    canvas.paint(canvas.ellipse((-0.16, -0.22), (0.065, 0.065)), "aorta")
    canvas.paint(canvas.ellipse((0.0, -0.36 * zoom), (0.145, 0.115)), "cortex")
    canvas.paint(canvas.ellipse((0.0, -0.36 * zoom), (0.125, 0.095)), "marrow")
