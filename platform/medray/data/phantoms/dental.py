"""A synthetic intra-oral scan: up to 16 crowns on a band of gingiva, as a triangle mesh with FDI numbers.

Stands in for the optical scans of Zanjani et al., MIDL 2019. Crowns are superquadrics on a parabola, sized by type:
incisors are thin wedges, canines pointed, premolars grooved, molars wide with cusps. Neighbors of one type look alike
(two premolars, three molars), so that a tooth's number follows from where it stands among the others. Widths, spacing,
crowding and rotation differ; up to four teeth are missing, most often third molars, and part of the gap they left is
closed. The scan is noisy, has holes, and lies anywhere. Vertices come from marching cubes of the union of the implicit
surfaces, and each has the label of the surface nearest to it.

Before it is posed the arch has its crowns up (+z) and its front towards +y, seen as on a cast on the table: then the
patient's right is at -x in an upper jaw and at +x in a lower one. All lengths are in mm.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from skimage.measure import marching_cubes

from medray.data.case import Case, Mesh

FloatArray = NDArray[np.float64]
Jaw = Literal["upper", "lower"]
Kind = Literal["incisor", "canine", "premolar", "molar"]

FDI: dict[Jaw, tuple[int, ...]] = {
    "upper": (*range(18, 10, -1), *range(21, 29)),
    "lower": (*range(48, 40, -1), *range(31, 39)),
}
"""FDI numbers from the patient's right to the left; 0 is gingiva."""
_KINDS: tuple[Kind, ...] = ("incisor", "incisor", "canine", "premolar", "premolar", "molar", "molar", "molar")
_WIDTHS: dict[Jaw, tuple[float, ...]] = {  # mesiodistal, from the midline back
    "upper": (8.4, 6.6, 7.6, 6.9, 6.9, 10.2, 10.0, 9.6),
    "lower": (5.4, 5.9, 6.9, 7.1, 7.1, 10.9, 10.6, 10.2),
}
_DEPTHS: dict[Kind, float] = {"incisor": 6.6, "canine": 7.8, "premolar": 8.8, "molar": 10.4}  # cheek to tongue
_HEIGHTS: dict[Kind, float] = {"incisor": 9.2, "canine": 9.8, "premolar": 8.0, "molar": 7.0}
_SCALE_SPREAD, _WIDTH_SPREAD, _TURN_SPREAD_DEG, _CROWDING = 0.06, 0.04, 8.0, 0.7
_CURVATURE, _CURVATURE_SPREAD = 0.050, 0.005  # of the parabola y = -c x^2, 1 / mm
_GUM_HALF_WIDTH, _GUM_TOP, _GUM_DEPTH, _BEYOND = 6.8, 1.0, 10.0, 4.0
_BOTTOM, _MARGIN = -4.0, 9.0
_THIRD_MOLAR_ODDS = 5.0
_HOLE_RADIUS = (0.8, 2.2)
_SHIFT_SPREAD = 20.0


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One scan and everything its fields depend on; see `cases` for the meaning and units."""

    seed: int
    index: int
    jaw: Jaw
    spacing: float
    missing: int
    pose: float
    noise: float
    holes: int

    def random(self, stream: str) -> np.random.Generator:
        """One stream per ingredient: turning the noise off leaves the anatomy as it is."""
        return np.random.default_rng([self.seed, self.index, self.jaw == "lower", *stream.encode()])


@dataclass(frozen=True)
class DentalField:
    """One field of a scan, generated when loaded."""

    scan: Scan
    name: Literal["mesh", "label"]

    def load(self) -> Mesh | NDArray[np.int64]:
        """The surface, or the FDI number of each of its vertices, (N,)."""
        mesh, label = _generate(self.scan)
        return mesh if self.name == "mesh" else label.copy()

    def fingerprint(self) -> str:
        """Every parameter by name."""
        return f"{self.name} " + " ".join(f"{f.name}={getattr(self.scan, f.name)}" for f in fields(self.scan))


def cases(
    n: int = 20,
    seed: int = 0,
    spacing: float = 0.8,
    jaw: Literal["upper", "lower", "both"] = "upper",
    missing: int = 4,
    pose: float = 180.0,
    noise: float = 0.05,
    holes: int = 2,
) -> tuple[Case, ...]:
    """Scans of patients.

    Args:
        n: patients; patient i does not depend on n.
        seed: of everything.
        spacing: edge of the marching cubes, mm; 0.8 gives about 9,000 vertices, 1.4 about 3,000, 0.2 about 140,000.
        jaw: which jaw of each patient is scanned.
        missing: teeth that may be missing at most, 0 to 8.
        pose: largest angle by which a scan is turned about a random axis, degrees; 180 is any pose.
        noise: standard deviation of the vertices' positions, mm.
        holes: patches that the scanner missed.

    Returns:
        Cases with the fields ``mesh`` (a `Mesh`) and ``label`` (FDI numbers, see `FDI`), the attribute ``jaw``.

    Raises:
        ValueError: a parameter is out of range.
    """
    if n < 1 or seed < 0:
        raise ValueError(f"n counts patients from 1 and seed from 0, got {n} and {seed}")
    if not 0.1 <= spacing <= 2.0:
        raise ValueError(f"spacing must lie between 0.1 and 2 mm for the teeth to show, got {spacing}")
    if not 0 <= missing <= 8:
        raise ValueError(f"missing must lie between 0 and 8 teeth, got {missing}")
    if not 0 <= pose <= 180 or noise < 0 or holes < 0:
        raise ValueError(f"pose lies in 0 to 180 degrees, noise and holes not below 0; got {pose}, {noise}, {holes}")
    jaws = cast("tuple[Jaw, ...]", ("upper", "lower") if jaw == "both" else (jaw,))
    return tuple(
        _case(Scan(seed=seed, index=i, jaw=side, spacing=spacing, missing=missing, pose=pose, noise=noise, holes=holes))
        for i in range(n)
        for side in jaws
    )


def _case(scan: Scan) -> Case:
    patient = f"patient{scan.index:03d}"
    names: tuple[Literal["mesh", "label"], ...] = ("mesh", "label")
    return Case(f"{patient}/{scan.jaw}", patient, {name: DentalField(scan, name) for name in names}, {"jaw": scan.jaw})


@dataclass(frozen=True)
class _Tooth:
    """A crown in its own frame: ``axes`` rows are along the arch, outwards and up."""

    fdi: int
    kind: Kind
    center: FloatArray
    axes: FloatArray
    half: tuple[float, float, float]

    def distance(self, points: FloatArray) -> FloatArray:
        """About the distance to the crown's surface, negative inside; points (K, 3)."""
        along, out, up = ((points - self.center) @ self.axes.T).T
        width, depth, height = self.half
        rise = np.clip(up / height, 0.0, 1.0)
        if self.kind == "incisor":
            depth = depth * (1.0 - 0.55 * rise)
        elif self.kind == "canine":
            width, depth = width * (1.0 - 0.45 * rise), depth * (1.0 - 0.4 * rise)
        else:  # a groove along the arch, and for molars cusps in front and behind
            height = height * (1.0 - 0.22 * np.exp(-((out / (0.35 * depth)) ** 2)))
            if self.kind == "molar":
                height = height * (1.0 - 0.14 * np.exp(-((along / (0.3 * width)) ** 2)))
        around = (np.abs(along / width) ** 3.5 + np.abs(out / depth) ** 3.5) ** (1 / 3.5)
        return np.asarray(((around**3 + np.abs(up / height) ** 3) ** (1 / 3) - 1.0) * min(self.half))


@dataclass(frozen=True)
class _Arch:
    """The curve the teeth stand on, as points with their distance from the midline along it."""

    points: FloatArray
    length: FloatArray

    @classmethod
    def of(cls, curvature: float) -> _Arch:
        x = np.linspace(-45.0, 45.0, 1801)
        points = np.stack([x, -curvature * x**2, np.zeros_like(x)], axis=1)
        length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        return cls(points, length - length[len(x) // 2])

    def at(self, length: float) -> tuple[FloatArray, FloatArray]:
        """Position and direction at a distance from the midline."""
        ends = [np.array([np.interp(s, self.length, c) for c in self.points.T]) for s in (length - 0.5, length + 0.5)]
        return (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])


@functools.lru_cache(maxsize=64)
def _generate(scan: Scan) -> tuple[Mesh, NDArray[np.int64]]:
    arch, teeth, ends = _anatomy(scan)
    reach = (arch.length >= ends[0] - _BEYOND) & (arch.length <= ends[1] + _BEYOND)
    gum = cKDTree(arch.points[reach, :2])
    vertices, faces = _surface(scan, gum, teeth)
    distances = np.stack([_gum_distance(gum, vertices), *(tooth.distance(vertices) for tooth in teeth)])
    label = np.array([0, *(tooth.fdi for tooth in teeth)])[distances.argmin(axis=0)]
    vertices, faces, label = _with_holes(scan, vertices, faces, label)
    vertices = _posed(scan, vertices + scan.random("noise").normal(scale=scan.noise, size=vertices.shape))
    return Mesh(vertices, faces, source=f"phantom:dental patient {scan.index} {scan.jaw}"), label


def _anatomy(scan: Scan) -> tuple[_Arch, list[_Tooth], tuple[float, float]]:
    random = scan.random("anatomy")
    arch = _Arch.of(random.normal(_CURVATURE, _CURVATURE_SPREAD))
    order = FDI[scan.jaw] if scan.jaw == "upper" else FDI[scan.jaw][::-1]  # from -x to +x
    places = [fdi % 10 - 1 for fdi in order]
    size = random.normal(1.0, _SCALE_SPREAD)
    widths = np.array([_WIDTHS[scan.jaw][p] for p in places]) * size * random.normal(1.0, _WIDTH_SPREAD, 16)
    odds = np.array([_THIRD_MOLAR_ODDS if p == 7 else 1.0 for p in places])
    gone = random.choice(16, size=random.integers(0, scan.missing + 1), replace=False, p=odds / odds.sum())
    room = widths + random.uniform(-0.1, 0.3, 16)
    room[gone] *= random.uniform(0.2, 1.0, len(gone))  # neighbors have moved into the gap
    starts = np.concatenate([[0.0], np.cumsum(room)])
    starts -= starts[8]  # the midline
    turns, steps = random.normal(0.0, _TURN_SPREAD_DEG, 16), random.normal(0.0, _CROWDING, 16)
    lifts = random.normal(1.0, 0.06, 16)
    teeth = []
    for i, (fdi, place) in enumerate(zip(order, places, strict=True)):
        if i in gone:
            continue
        kind = _KINDS[place]
        center, tangent = arch.at((starts[i] + starts[i + 1]) / 2)
        up = np.array([0.0, 0.0, 1.0])
        tangent = Rotation.from_rotvec(np.radians(turns[i]) * up).apply(tangent)
        outward = np.cross(up, tangent)
        half = (0.52 * widths[i], _DEPTHS[kind] / 2 * size, _HEIGHTS[kind] * size * lifts[i])
        teeth.append(_Tooth(fdi, kind, center + steps[i] * outward, np.stack([tangent, outward, up]), half))
    return arch, teeth, (float(starts[0]), float(starts[-1]))


def _gum_distance(gum: cKDTree, points: FloatArray) -> FloatArray:
    flat, where = np.unique(points[:, :2], axis=0, return_inverse=True)
    across = gum.query(flat)[0][where.reshape(-1)] / _GUM_HALF_WIDTH
    up = (points[:, 2] + _GUM_DEPTH) / (_GUM_DEPTH + _GUM_TOP)
    return np.asarray(((across**4 + np.abs(up) ** 4) ** 0.25 - 1.0) * _GUM_HALF_WIDTH)


def _surface(scan: Scan, gum: cKDTree, teeth: list[_Tooth]) -> tuple[FloatArray, NDArray[np.int64]]:
    """Marching cubes of the union, open below."""
    top = max((tooth.half[2] for tooth in teeth), default=2.0) + 1.5
    low = np.array([*(gum.data.min(axis=0) - _MARGIN), _BOTTOM])
    high = np.array([*(gum.data.max(axis=0) + _MARGIN), top])
    axes = [np.arange(a, b, scan.spacing) for a, b in zip(low, high, strict=True)]
    shape = tuple(len(axis) for axis in axes)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    values = _gum_distance(gum, grid.reshape(-1, 3)).reshape(shape)
    for tooth in teeth:
        reach = max(tooth.half) + 2.0
        box = tuple(
            slice(*np.searchsorted(axis, (middle - reach, middle + reach)))
            for axis, middle in zip(axes, tooth.center, strict=True)
        )
        inside = grid[box]
        values[box] = np.minimum(values[box], tooth.distance(inside.reshape(-1, 3)).reshape(inside.shape[:3]))
    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=(scan.spacing,) * 3, gradient_direction="descent")
    return vertices.astype(np.float64) + low, faces.astype(np.int64)


def _with_holes(
    scan: Scan, vertices: FloatArray, faces: NDArray[np.int64], label: NDArray[np.int64]
) -> tuple[FloatArray, NDArray[np.int64], NDArray[np.int64]]:
    random = scan.random("holes")
    lost = np.zeros(len(vertices), dtype=bool)
    for _ in range(scan.holes):
        middle = vertices[random.integers(len(vertices))]
        lost |= np.linalg.norm(vertices - middle, axis=1) < random.uniform(*_HOLE_RADIUS)
    faces = faces[~lost[faces].any(axis=1)]
    kept = np.unique(faces)
    renumbered = np.full(len(vertices), -1)
    renumbered[kept] = np.arange(len(kept))
    return vertices[kept], renumbered[faces], label[kept]


def _posed(scan: Scan, vertices: FloatArray) -> FloatArray:
    random = scan.random("pose")
    axis = random.normal(size=3)
    angle = np.radians(random.uniform(0.0, scan.pose)) if scan.pose < 180 else None
    turn = Rotation.random(rng=random) if angle is None else Rotation.from_rotvec(angle * axis / np.linalg.norm(axis))
    return np.asarray(turn.apply(vertices - vertices.mean(axis=0)) + random.normal(scale=_SHIFT_SPREAD, size=3))
