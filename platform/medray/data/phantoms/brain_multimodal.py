"""Brain slices in two modalities with a lesion of one of three kinds, for active learning over several modalities.

After the stand-in for BraTS2018 that M-VAAL (Khanal et al., MIUA 2023) needs: ``image`` looks like contrast-enhanced
T1, ``auxiliary`` like T2-FLAIR, ``label`` has the sub-regions of BraTS: 1 necrosis (NCR), 2 edema (ED), 4 enhancing
(ET). A pool of scans is dominated by one kind, with many near copies; rare kinds hardly show in the main modality, and
all of them show in the auxiliary one:

``A``   80 % of the pool: a bright ring or blob (ET), mostly around a dark core (NCR) and within edema (ED).
``B``   12 %: edema that is faint in the main modality and a bright ring in the auxiliary one, some with a core.
``C``   8 %: a small lesion in the back of the brain, of low contrast in the main modality, bright in the auxiliary one.

Validation and test sets are balanced over the kinds, since a picking rule that looks for what is rare can only pay off
there. Arrays are (1, X, Y) and run to the patient's Right and Anterior side; lengths without a unit are in half fields
of view.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medray.data.case import Case, FieldRef, Volume
from medray.data.phantoms.imbalanced import drawn_sets, stream_of

FloatArray = NDArray[np.float64]
Kind = Literal["A", "B", "C"]
Part = Literal["ED", "ET", "NCR"]
Name = Literal["image", "auxiliary", "label"]

SHARES: Mapping[Kind, float] = {"A": 0.80, "B": 0.12, "C": 0.08}
"""Of the pool."""
LABELS: Mapping[Part, int] = {"NCR": 1, "ED": 2, "ET": 4}
"""As in BraTS."""

_MODALITIES = ("image", "auxiliary")
_TISSUE: Mapping[str, tuple[float, float]] = {"csf": (0.20, 0.12), "grey": (0.50, 0.50), "white": (0.62, 0.42)}
_LESION: Mapping[Kind, Mapping[Part, tuple[float, float]]] = {
    "A": {"ED": (0.42, 0.85), "ET": (0.95, 0.70), "NCR": (0.22, 0.40)},
    "B": {"ED": (0.46, 0.95), "NCR": (0.32, 0.30)},
    "C": {"ED": (0.42, 0.90), "ET": (0.78, 0.80)},
}
"""Mean intensity of sub-regions in the two modalities."""
_HOLLOW = 0.55  # of the middle of a B in the auxiliary modality, so that it is a ring without a core too
_MIXES: Mapping[Kind, tuple[tuple[float, tuple[Part, ...]], ...]] = {
    "A": ((0.60, ("ED", "ET", "NCR")), (0.25, ("ED", "ET")), (0.15, ("ET", "NCR"))),
    "B": ((0.50, ("ED",)), (0.50, ("ED", "NCR"))),
    "C": ((0.50, ("ED",)), (0.50, ("ED", "ET"))),
}
"""Sub-regions that a lesion has, from the outside in, and how often."""
_RADIUS: Mapping[Kind, tuple[float, float]] = {"A": (0.24, 0.36), "B": (0.18, 0.28), "C": (0.10, 0.14)}
_BARE_RADIUS = (0.15, 0.22)  # of an A without edema
_INNER: Mapping[Part, tuple[float, float]] = {"ED": (1.0, 1.0), "ET": (0.5, 0.65), "NCR": (0.45, 0.6)}
_TURN_DEG: Mapping[Kind, tuple[float, float]] = {"A": (-25.0, 205.0), "B": (-25.0, 205.0), "C": (-125.0, -55.0)}
_REACH: Mapping[Kind, tuple[float, float]] = {"A": (0.25, 0.50), "B": (0.25, 0.50), "C": (0.55, 0.72)}
"""Where a lesion's middle is, as an angle from Right to Anterior and a part of the brain's radius."""
_BRAIN_RADII = (0.70, 0.86)
_FIELD_OF_VIEW_MM = 220.0
_TEMPLATES = 20
_OWN = -1
_JITTER = 0.012
_SPREAD = 0.05  # of intensities between patients, relative
_EDGE_PX = 0.5
_UNITS = 1000.0
_MIN_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One slice of one patient in both modalities; everything that its fields depend on.

    Attributes:
        seed: of the whole phantom.
        split: train, validation or test.
        index: number of the scan in its split.
        kind: of the lesion.
        template: that this scan is a near copy of; -1 for none.
        size: pixels along both axes.
        noise: standard deviation of the noise; white matter is 0.62 in the main modality.
        bias: amplitude of the multiplicative bias field.
        texture: amplitude of fine tissue texture.
    """

    seed: int
    split: str
    index: int
    kind: Kind
    template: int
    size: int
    noise: float
    bias: float
    texture: float

    def random(self, stream: str) -> np.random.Generator:
        """Of this scan alone; one stream per ingredient."""
        return stream_of(self.seed, self.index, self.split, stream)

    def shared_random(self, stream: str) -> np.random.Generator:
        """Of all near copies of one template."""
        if self.template == _OWN:
            return self.random(stream)
        return np.random.default_rng([self.seed, self.template, *f"template {stream}".encode()])

    def parts(self) -> tuple[Part, ...]:
        """Sub-regions of the lesion, from the outside in."""
        shares, mixes = zip(*_MIXES[self.kind], strict=True)
        return mixes[int(self.shared_random("parts").choice(len(mixes), p=shares))]

    @property
    def pixel(self) -> float:
        """Pixel size in half fields of view."""
        return 2.0 / self.size


@dataclass(frozen=True)
class ScanField:
    """One field of a scan, generated when loaded."""

    scan: Scan
    name: Name

    def load(self) -> Volume:
        """An image (1, X, Y), float32 in scanner units and 0 outside the brain; or the label map, uint8."""
        if self.name == "label":
            array: NDArray[np.float32] | NDArray[np.uint8] = _scene(self.scan).label
        else:
            array = _image(self.scan, _MODALITIES.index(self.name))
        return Volume(array[None], _affine(self.scan.size), source=f"phantom:brain_multimodal {self.fingerprint()}")

    def fingerprint(self) -> str:
        """Every parameter by name."""
        values = (f"{f.name}={getattr(self.scan, f.name)}" for f in fields(self.scan))
        return f"{self.name} {' '.join(values)}"


def cases(
    n: int = 600,
    validation: int = 90,
    test: int = 150,
    seed: int = 0,
    size: int = 64,
    noise: float = 0.06,
    bias: float = 0.1,
    texture: float = 0.04,
    duplicates: float = 0.75,
    start: Literal["any", "A"] = "any",
) -> tuple[Case, ...]:
    """Slices of as many patients in two modalities.

    Args:
        n: of the pool, with the shares of `SHARES`. Scan i does not depend on n.
        validation: of the validation set, balanced over the kinds.
        test: of the test set, likewise.
        seed: of everything.
        size: pixels along both axes, over a field of view of 220 mm.
        noise: standard deviation of the noise; white matter is 0.62 in the main modality.
        bias: amplitude of the bias field, below 1.
        texture: amplitude of fine texture that no model can predict, below 1.
        duplicates: share of the pool's scans of kind A that are near copies of 20 templates. There are none in the
            other sets.
        start: with A, scans of the pool say in the attribute ``labelled`` (yes, no) that those of kind A may be the
            first to be labelled, as where annotation began before the rare kinds were known.

    Returns:
        Cases with the fields ``image``, ``auxiliary`` and ``label``. Attributes: split (train, validation, test), kind
        (A, B, C), classes, the sub-regions with a semicolon between them, and maybe labelled.

    Raises:
        ValueError: a parameter is out of range.
    """
    if size < _MIN_SIZE:
        raise ValueError(f"size must be at least {_MIN_SIZE} pixels for small lesions to show, got {size}")
    for name, value in (("noise", noise), ("bias", bias), ("texture", texture)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} must lie in [0, 1), got {value}")
    if not 0 <= duplicates <= 1:
        raise ValueError(f"duplicates is a share, from 0 to 1, got {duplicates}")
    scans = [
        Scan(
            seed=seed,
            split=split,
            index=index,
            kind=kind,
            template=_template(seed, index, duplicates) if (split, kind) == ("train", "A") else _OWN,
            size=size,
            noise=noise,
            bias=bias,
            texture=texture,
        )
        for split, index, kind in drawn_sets(n, validation, test, seed, SHARES, "kinds")
    ]
    return tuple(_case(scan, start) for scan in scans)


def _template(seed: int, index: int, duplicates: float) -> int:
    random = np.random.default_rng([seed, index, *b"template"])
    return int(random.integers(_TEMPLATES)) if random.random() < duplicates else _OWN


def _case(scan: Scan, start: Literal["any", "A"]) -> Case:
    patient = f"{scan.split}{scan.index:05d}"
    names: tuple[Name, ...] = ("image", "auxiliary", "label")
    refs: dict[str, FieldRef] = {name: ScanField(scan, name) for name in names}
    present = scan.parts()
    classes = ";".join(name for name in ("ET", "ED", "NCR") if name in present)
    attributes = {"split": scan.split, "kind": scan.kind, "classes": classes}
    if start == "A" and scan.split == "train":
        attributes["labelled"] = "yes" if scan.kind == start else "no"
    return Case(patient, patient, refs, attributes)


def _affine(size: int) -> FloatArray:
    """Index to mm, RAS+, world zero in the middle."""
    spacing = _FIELD_OF_VIEW_MM / size
    affine = np.diag([spacing, spacing, 1.0, 1.0])
    affine[:2, 3] = -spacing * (size - 1) / 2
    return affine


@dataclass(frozen=True)
class _Scene:
    """What is drawn of a scan before noise.

    Attributes:
        brain: membership, (X, Y).
        clean: intensities of both modalities, (2, X, Y).
        label: (X, Y) with the values of `LABELS`.
    """

    brain: FloatArray
    clean: FloatArray
    label: NDArray[np.uint8]


@lru_cache(maxsize=8)
def _scene(scan: Scan) -> _Scene:
    """The last few are kept: the fields of a scan are asked for one after the other."""
    x, y = _positions(scan)
    brain, clean = _anatomy(scan, x, y)
    spread = scan.random("lesion intensity")
    label = np.zeros(x.shape, dtype=np.uint8)
    values = _LESION[scan.kind]
    for part, depth in _depths(scan, x, y):
        level = np.array(values[part]) * spread.normal(1.0, _SPREAD, size=2)
        clean += _soft(depth, scan) * brain * (level[:, None, None] - clean)
        label[(depth > 0) & (brain > 0.5)] = LABELS[part]
        if scan.kind == "B" and part == "ED":
            clean[1] += _soft(depth - 0.5 * depth.max(), scan) * brain * (_HOLLOW - clean[1])
    return _Scene(brain, clean, label)


def _positions(scan: Scan) -> tuple[FloatArray, FloatArray]:
    """Atlas position of every pixel: a smooth warp, a turn, a scale and a shift; near copies differ by a jitter."""
    random, jitter = scan.shared_random("shape"), scan.random("jitter")
    line = (np.arange(scan.size) + 0.5) * scan.pixel - 1.0
    x, y = np.meshgrid(line, line, indexing="ij")
    angle = random.normal(0.0, 0.05) + jitter.normal(0.0, _JITTER)
    scale = random.normal(1.0, 0.04, size=2) + jitter.normal(0.0, _JITTER, size=2)
    shift = random.normal(0.0, 0.015, size=2) + jitter.normal(0.0, _JITTER, size=2)
    turned = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    waves = random.uniform(-2.5, 2.5, size=(2, 3, 2)), random.uniform(0, 2 * np.pi, size=(2, 3))
    warped = []
    for axis in range(2):
        moved = turned[axis] * scale[axis] + shift[axis]
        for (along_x, along_y), phase in zip(waves[0][axis], waves[1][axis], strict=True):
            moved = moved + 0.015 * np.sin(along_x * x + along_y * y + phase)
        warped.append(moved)
    return warped[0], warped[1]


def _soft(depth: FloatArray, scan: Scan) -> FloatArray:
    """From 0 outside to 1 inside across a border, given the depth in half fields of view."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(depth / (_EDGE_PX * scan.pixel), -30, 30))))


def _noise(random: np.random.Generator, size: int, sigma_px: float) -> FloatArray:
    """Gaussian-smoothed white noise of mean 0 and variance 1."""
    smooth = ndimage.gaussian_filter(random.normal(size=(size, size)), sigma_px, mode="wrap")
    return np.asarray((smooth - smooth.mean()) / smooth.std())


def _anatomy(scan: Scan, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Membership in the brain, (X, Y), and the healthy tissue's intensities, (2, X, Y)."""
    random, scale_px, width = scan.shared_random("tissue"), scan.size / 64, _BRAIN_RADII[0]
    radius = np.hypot(x / _BRAIN_RADII[0], y / _BRAIN_RADII[1])
    brain = _soft((1.0 - radius) * width, scan)
    folds = _noise(random, scan.size, 1.8 * scale_px)
    white = _soft((0.80 + 0.08 * folds - radius) * width, scan)
    rim = _soft((0.94 + 0.02 * folds - radius) * width, scan)
    swelling = np.exp(random.normal(0.0, 0.2))
    bend = np.abs(x) - (0.13 + 0.10 * (y - 0.05) ** 2)
    ventricles = _soft((1.0 - np.hypot(bend / 0.065, (y - 0.05) / 0.30) / swelling) * 0.065, scan)
    csf = np.maximum(1.0 - rim, ventricles)
    texture = scan.texture * _noise(scan.shared_random("texture"), scan.size, 0.8 * scale_px)
    spread = scan.random("intensity").normal(1.0, _SPREAD, size=(3, 2))
    clean = np.empty((2, *x.shape))
    for number in range(2):
        level = {name: value[number] * spread[row, number] for row, (name, value) in enumerate(_TISSUE.items())}
        solid = level["grey"] + white * (level["white"] - level["grey"])
        clean[number] = brain * (solid + csf * (level["csf"] - solid) + texture)
    return brain, clean


def _depths(scan: Scan, x: FloatArray, y: FloatArray) -> Iterator[tuple[Part, FloatArray]]:
    """The lesion's sub-regions from the outside in, and how deep every pixel lies in each, in half fields of view."""
    parts, random = scan.parts(), scan.shared_random("lesion")
    angle = np.deg2rad(random.uniform(*_TURN_DEG[scan.kind]))
    reach = random.uniform(*_REACH[scan.kind]) * np.array(_BRAIN_RADII)
    radius = random.uniform(*(_BARE_RADIUS if parts[0] == "ET" else _RADIUS[scan.kind]))
    radius *= 1.0 + scan.random("size").normal(0.0, 2 * _JITTER)
    right, front = x - reach[0] * np.cos(angle), y - reach[1] * np.sin(angle)
    distance, around = np.hypot(right, front), np.arctan2(front, right)
    for number, part in enumerate(parts):
        shrink = random.uniform(*_INNER[part])
        still_inside = len(parts) - number  # each sub-region is a pixel wide at least
        radius = max(radius * shrink if number else radius, 1.25 * scan.pixel * still_inside)
        yield part, radius * _outline(random, around) - distance


def _outline(random: np.random.Generator, around: FloatArray) -> FloatArray:
    """Radius by direction relative to a circle's, 0.9 to 1.1."""
    phases = random.uniform(0, 2 * np.pi, size=2)
    return np.asarray(1.0 + 0.06 * np.cos(2 * around + phases[0]) + 0.04 * np.cos(3 * around + phases[1]))


def _image(scan: Scan, modality: int) -> NDArray[np.float32]:
    """With bias field and Rician noise, and nothing but 0 outside the brain, as after skull stripping."""
    scene, random = _scene(scan), scan.random(f"noise {modality}")
    line = np.linspace(-1, 1, scan.size)
    slope, phase = random.uniform(-1.5, 1.5, size=2), random.uniform(0, 2 * np.pi)
    field = np.sin(slope[0] * line[:, None] + slope[1] * line[None, :] + phase)
    first, second = scan.noise * random.normal(size=(2, scan.size, scan.size))
    noisy = np.hypot(np.maximum(scene.clean[modality], 0.0) * (1.0 + scan.bias * field) + first, second)
    return np.asarray(_UNITS * noisy * (scene.brain > 0.5), dtype=np.float32)
