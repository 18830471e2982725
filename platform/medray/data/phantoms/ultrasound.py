"""Breast ultrasound of several hospitals: layered tissue under speckle, with benign, malignant or no lesions.

Stands in for the two public data sets that the federated system (Gad et al., MIUA 2023) spreads over three clients:
hospitals differ in what they see (north: benign and normal, east: malignant and normal, south: both kinds) and in their
scanner (north and east share one). Benign lesions are smooth ellipses with brighter tissue behind them; malignant ones
are irregular with spikes, and cast a shadow. Normal tissue has dark fat lobules that are no lesions.

Rows run from the skin into depth, columns across. Lengths are in pixels of an image of 64 pixels and scale with it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medray.data.case import Case, Volume

FloatArray = NDArray[np.float64]
Diagnosis = Literal["benign", "malignant", "normal"]
SITES = ("north", "east", "south")

_SEEN: dict[str, tuple[tuple[Diagnosis, float], ...]] = {  # the paper's fig. 2: 400 + 50, 200 + 50, 110 + 53
    "north": (("benign", 0.8), ("normal", 0.2)),
    "east": (("malignant", 0.8), ("normal", 0.2)),
    "south": (("benign", 0.67), ("malignant", 0.33)),
}
_OVERALL: tuple[tuple[Diagnosis, float], ...] = (("benign", 0.5), ("malignant", 0.35), ("normal", 0.15))
_REFERENCE_SIZE = 64
_FIELD_OF_VIEW_MM = 40.0
_MIN_SIZE = 32


@dataclass(frozen=True)
class Scanner:
    """How a machine shows tissue.

    Attributes:
        speckle: standard deviation of the point spread along depth and across, px.
        dynamic_range_db: what the gray values span.
        gain_db: added to everything.
        depth_gain_db: added at the bottom, growing from the top; attenuation that was not compensated is negative.
        blur: of the finished image, px.
    """

    speckle: tuple[float, float]
    dynamic_range_db: float
    gain_db: float
    depth_gain_db: float
    blur: float


_SCANNERS = {
    "a": Scanner(speckle=(0.6, 1.2), dynamic_range_db=50.0, gain_db=-4.0, depth_gain_db=-6.0, blur=0.0),
    "b": Scanner(speckle=(1.0, 2.2), dynamic_range_db=34.0, gain_db=-5.0, depth_gain_db=5.0, blur=0.6),
}


@dataclass(frozen=True)
class Scan:
    """One image of one woman; everything that its fields depend on.

    Attributes:
        seed: of the whole phantom.
        site: where it was taken.
        index: number within the site.
        size: pixels along both axes.
        diagnosis: what is in it.
        scanner: a key of the two machines, a or b.
    """

    seed: int
    site: str
    index: int
    size: int
    diagnosis: Diagnosis
    scanner: str

    def random(self, stream: str) -> np.random.Generator:
        """One stream per ingredient."""
        return np.random.default_rng([self.seed, SITES.index(self.site), self.index, *stream.encode()])


@dataclass(frozen=True)
class ScanField:
    """One field of a scan, generated when loaded."""

    scan: Scan
    name: Literal["image", "label"]

    def load(self) -> Volume:
        """The image (1 channel, uint8) or the lesion (1 channel, uint8; all 0 in normal tissue)."""
        lesion = _lesion(self.scan)
        array = _image(self.scan, lesion) if self.name == "image" else (lesion < 0).astype(np.uint8)
        spacing = _FIELD_OF_VIEW_MM / self.scan.size
        return Volume(array[None], np.diag([spacing, spacing, 1.0, 1.0]), f"phantom:ultrasound {self.fingerprint()}")

    def fingerprint(self) -> str:
        """Every parameter by name."""
        values = (f"{f.name}={getattr(self.scan, f.name)}" for f in fields(self.scan))
        return f"{self.name} {' '.join(values)}"


def cases(n: int = 40, seed: int = 0, size: int = 64, skew: float = 1.0) -> tuple[Case, ...]:
    """Images of three hospitals.

    Args:
        n: images per hospital. Image i of a hospital does not depend on n.
        seed: of everything.
        size: pixels along both axes, over 40 mm.
        skew: 1 for hospitals that differ in pathology and scanner as above, 0 for hospitals that all see the same mix
            on either scanner at random; between them, the share of images that follow their hospital's way.

    Returns:
        3 n cases with the fields ``image`` and ``label`` (1 where the lesion is) and the attributes ``site``,
        ``diagnosis`` and ``scanner``; one patient per case.

    Raises:
        ValueError: a parameter is out of range.
    """
    if n < 1:
        raise ValueError(f"n counts images per hospital and must be at least 1, got {n}")
    if size < _MIN_SIZE:
        raise ValueError(f"size must be at least {_MIN_SIZE} pixels for lesions to show, got {size}")
    if not 0 <= skew <= 1:
        raise ValueError(f"skew must lie in [0, 1], got {skew}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    return tuple(_case(site, index, seed, size, skew) for site in SITES for index in range(n))


def _case(site: str, index: int, seed: int, size: int, skew: float) -> Case:
    random = np.random.default_rng([seed, SITES.index(site), index])
    own_way = random.random() < skew
    kinds = _SEEN[site] if own_way else _OVERALL
    diagnosis: Diagnosis = kinds[random.choice(len(kinds), p=[p for _, p in kinds])][0]
    scanner = ("b" if site == "south" else "a") if own_way else str(random.choice(["a", "b"]))
    scan = Scan(seed, site, index, size, diagnosis, scanner)
    name = f"{site}/{index:04d}"
    return Case(
        id=name,
        patient=name,
        fields={"image": ScanField(scan, "image"), "label": ScanField(scan, "label")},
        attributes={"site": site, "diagnosis": diagnosis, "scanner": scanner},
    )


def _lesion(scan: Scan) -> FloatArray:
    """About the distance in pixels to the lesion's border, (size, size), negative inside; far away in normal tissue."""
    random, pixels = scan.random("lesion"), scan.size / _REFERENCE_SIZE
    if scan.diagnosis == "normal":
        return np.full((scan.size, scan.size), 1e3)
    rows, columns = np.indices((scan.size, scan.size)) / pixels
    center = random.uniform((22.0, 18.0), (40.0, 46.0))
    angle = random.uniform(-0.4, 0.4)
    down = (rows - center[0]) * np.cos(angle) - (columns - center[1]) * np.sin(angle)
    across = (rows - center[0]) * np.sin(angle) + (columns - center[1]) * np.cos(angle)
    if scan.diagnosis == "benign":  # wider than tall
        radii = random.uniform((4.5, 7.0), (7.5, 12.0))
        wobble = np.zeros_like(down)
    else:  # taller, lobed, with spikes
        radii = random.uniform((6.0, 5.5), (10.0, 9.0))
        theta = np.arctan2(down / radii[0], across / radii[1])
        wobble = sum(
            random.uniform(0.3, 1.0) * strength * np.cos(k * theta + random.uniform(0, 2 * np.pi))
            for k, strength in ((2, 0.12), (3, 0.12), (5, 0.1), (9, 0.12), (13, 0.1))
        )
    radius = np.hypot(down / radii[0], across / radii[1])
    return np.asarray((radius - 1.0 - wobble) * radii.min() * pixels)


def _image(scan: Scan, lesion: FloatArray) -> NDArray[np.uint8]:
    """Echo strength in dB under fully developed speckle, compressed to gray values."""
    scanner, pixels = _SCANNERS[scan.scanner], scan.size / _REFERENCE_SIZE
    echo_db = _tissue(scan) + _lesion_echo(scan, lesion)
    depth = np.linspace(0.0, 1.0, scan.size)[:, None]
    echo_db = echo_db + scanner.gain_db + scanner.depth_gain_db * depth
    random = scan.random("speckle")
    sigma = tuple(pixels * s for s in scanner.speckle)
    waves = [ndimage.gaussian_filter(random.normal(size=lesion.shape), sigma) for _ in range(2)]
    amplitude = np.hypot(*waves) / np.sqrt(waves[0].var() + waves[1].var())  # Rayleigh, mean square 1
    level_db = echo_db + 20 * np.log10(amplitude + 1e-3)
    gray = np.clip(1.0 + level_db / scanner.dynamic_range_db, 0.0, 1.0)
    if scanner.blur:
        gray = ndimage.gaussian_filter(gray, scanner.blur * pixels)
    return np.asarray(np.rint(255 * gray), dtype=np.uint8)


def _tissue(scan: Scan) -> FloatArray:
    """Skin, fat, glandular tissue and muscle with wavy borders, and dark lobules of fat; dB."""
    random, pixels = scan.random("tissue"), scan.size / _REFERENCE_SIZE
    rows = np.arange(scan.size)[:, None] / pixels
    wave = ndimage.gaussian_filter1d(random.normal(size=(3, scan.size)), 8 * pixels, axis=1, mode="wrap")
    wave *= 2.0 / wave.std()
    borders = np.array([4.0, 14.0, 52.0])[:, None] + wave + random.normal(0.0, 1.5, size=(3, 1))
    echo = np.full((scan.size, scan.size), -5.0)  # skin
    for border, value in zip(borders, (-16.0, -9.0, -13.0), strict=True):
        echo += (value - echo) / (1.0 + np.exp(-(rows - border[None, :]) / 0.8))
    for _ in range(random.integers(2, 5)):  # lobules: dark like a lesion, but small, flat and near the surface
        center = random.uniform((9.0, 4.0), (20.0, 60.0))
        radii = random.uniform((1.2, 3.0), (2.2, 6.0))
        columns = np.arange(scan.size)[None, :] / pixels
        inside = np.hypot((rows - center[0]) / radii[0], (columns - center[1]) / radii[1]) - 1.0
        echo -= 9.0 / (1.0 + np.exp(np.clip(inside * 4, -30, 30)))
    texture = ndimage.gaussian_filter(random.normal(size=echo.shape), 3 * pixels)
    return np.asarray(echo + 1.5 * texture / texture.std())


def _lesion_echo(scan: Scan, lesion: FloatArray) -> FloatArray:
    """What the lesion changes, dB: darker inside, brighter behind a benign one, a shadow behind a malignant one."""
    if scan.diagnosis == "normal":
        return np.zeros_like(lesion)
    random = scan.random("echo")
    inside = 1.0 / (1.0 + np.exp(np.clip(lesion / (0.8 * scan.size / _REFERENCE_SIZE), -30, 30)))
    passed = np.clip(np.cumsum(inside, axis=0) * _REFERENCE_SIZE / scan.size / 12.0, 0.0, 1.0)  # of 12 px of lesion
    behind = passed * (1.0 - inside)
    contrast = random.uniform(13.0, 20.0) if scan.diagnosis == "benign" else random.uniform(11.0, 18.0)
    effect = 5.0 if scan.diagnosis == "benign" else -10.0
    return np.asarray(-contrast * inside + effect * behind)
