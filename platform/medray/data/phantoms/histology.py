"""Synthetic histology: H&E-like tiles of nuclei with their centers, and PAS-like kidney sections of two labs.

Both are drawn by one renderer. Tissue is a map of dye concentrations; a lab's stain turns them into color by the
Beer-Lambert law, I = white * exp(-sum_k c_k^gamma_k s_k), then blurs and adds noise. With an exponent other than 1 no
linear map between the optical densities of two labs exists, so a linear normalizer cannot undo the shift.

`nuclei_cases` stands in for CRCHistoPhenotypes (VOCA, Xie et al., MIDL 2019): clustered nuclei (Thomas process), weak
borders, debris, and centers as a person clicks them, a pixel off. `kidney_cases` stands in for renal biopsies of two
hospitals (de Bel et al., MIDL 2019): tubuli, glomeruli and arteries as a label map, seen through either lab's stain.

Lengths are in pixels; arrays have axes (row, column).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from medray.data.case import Case, Volume

FloatArray = NDArray[np.float64]

TISSUES = ("tubule", "glomerulus", "artery")
"""Label values 1 to 3 of the kidney sections in this order; 0 is everything between them."""

_MIN_SIZE = 48
_HEMATOXYLIN = (0.65, 0.70, 0.29)  # optical density per unit of dye in R, G, B: Ruifrok & Johnston 2001
_EOSIN = (0.07, 0.99, 0.11)
_PAS = (0.175, 0.972, 0.155)


@dataclass(frozen=True, kw_only=True)
class Stain:
    """How a lab's dyes and scanner show tissue.

    Attributes:
        dyes: optical density per unit of concentration in red, green and blue, one row per dye.
        gamma: exponent of each dye's concentration; 1 is the Beer-Lambert law as it stands.
        white: brightness of empty glass in red, green and blue, 0 to 1.
        blur_px: standard deviation of the scanner's blur.
        noise: standard deviation of the pixel noise, of 255 levels.
    """

    dyes: tuple[tuple[float, float, float], ...]
    gamma: tuple[float, ...]
    white: tuple[float, float, float] = (0.96, 0.95, 0.96)
    blur_px: float = 0.6
    noise: float = 2.0


H_AND_E = Stain(dyes=(_HEMATOXYLIN, _EOSIN), gamma=(1.0, 1.0), blur_px=0.8)
LABS: Mapping[str, Stain] = {
    "A": Stain(dyes=(_HEMATOXYLIN, _PAS), gamma=(1.0, 1.0)),
    "B": Stain(
        dyes=((0.45, 0.74, 0.50), (0.32, 0.84, 0.44)),
        gamma=(0.6, 1.7),
        white=(0.93, 0.90, 0.80),
        blur_px=0.9,
        noise=3.0,
    ),
}
"""The two labs of the kidney sections. B's hematoxylin saturates early, its PAS comes late, and its glass is yellow."""


def render(concentrations: FloatArray, stain: Stain, random: np.random.Generator) -> NDArray[np.uint8]:
    """Dye concentrations (dyes, H, W), 0 or more, as an RGB image (3, H, W)."""
    powers = [np.clip(c, 0, None) ** gamma for c, gamma in zip(concentrations, stain.gamma, strict=True)]
    density = np.tensordot(np.asarray(stain.dyes).T, np.stack(powers), axes=1)
    light = 255 * np.asarray(stain.white)[:, None, None] * np.exp(-density)
    seen = ndimage.gaussian_filter(light, (0, stain.blur_px, stain.blur_px))
    seen += stain.noise * random.normal(size=seen.shape)
    return np.clip(np.rint(seen), 0, 255).astype(np.uint8)


def _smooth_noise(random: np.random.Generator, shape: tuple[int, ...], sigma: float) -> FloatArray:
    """Gaussian-smoothed white noise of mean 0 and variance 1."""
    smooth = ndimage.gaussian_filter(random.normal(size=shape), sigma, mode="wrap")
    return np.asarray(smooth / smooth.std())


# --- nuclei in H&E -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NucleiTile:
    """One tile and everything its fields depend on; see `nuclei_cases`."""

    seed: int
    index: int
    size: int
    density: float
    jitter_px: float
    stain_spread: float

    def random(self, stream: str) -> np.random.Generator:
        """One stream per ingredient: other stains leave the nuclei where they are."""
        return np.random.default_rng([self.seed, self.index, *stream.encode()])


@dataclass(frozen=True)
class _Nucleus:
    center: tuple[float, float]
    radii: tuple[float, float]
    angle: float
    ink: float

    def window(self, size: int, margin: float) -> tuple[tuple[slice, slice], FloatArray]:
        """The part of the tile around it, and there the elliptic distance from its center (1 at its border)."""
        reach = max(self.radii) + margin
        rows, columns = (slice(max(0, int(c - reach)), min(size, int(c + reach) + 2)) for c in self.center)
        y, x = np.mgrid[rows, columns].astype(np.float64)
        dy, dx = y - self.center[0], x - self.center[1]
        along = dx * np.cos(self.angle) + dy * np.sin(self.angle)
        across = dy * np.cos(self.angle) - dx * np.sin(self.angle)
        return (rows, columns), np.hypot(along / self.radii[0], across / self.radii[1])


_REACH = 10.0  # nuclei centered this far outside still show at the border; they are not annotated
_MIN_DISTANCE = 7.0
_CLUSTER_SIZE, _CLUSTER_SPREAD = 6.0, 10.0


def nuclei_cases(
    n: int = 12,
    seed: int = 0,
    size: int = 255,
    density: float = 1.2e-3,
    jitter: float = 1.0,
    stain_spread: float = 0.15,
) -> tuple[Case, ...]:
    """H&E-like tiles with clustered nuclei.

    Args:
        n: tiles, each of a patient of its own. Tile i does not depend on n.
        seed: of everything.
        size: pixels along each side.
        density: nuclei per square pixel (CRCHistoPhenotypes has 1.2e-3).
        jitter: standard deviation of the annotated centers about the true ones, px along each axis.
        stain_spread: how much the amounts of both dyes vary between tiles, as a share.

    Returns:
        n cases with the fields ``image`` (3 channels, uint8), ``points`` (table with the columns x and y in pixels, x
        along the row, 0 at the middle of the first pixel) and ``instances`` (label map, one value per nucleus).

    Raises:
        ValueError: a parameter is out of range.
    """
    if n < 1 or seed < 0:
        raise ValueError(f"n must be at least 1 and seed not negative, got {n} and {seed}")
    if size < _MIN_SIZE:
        raise ValueError(f"size must be at least {_MIN_SIZE} pixels, got {size}")
    if not 0 < density <= 5e-3:
        raise ValueError(f"density must lie in (0, 0.005] nuclei per square pixel, got {density:g}")
    if jitter < 0 or not 0 <= stain_spread < 1:
        raise ValueError(
            f"jitter must not be negative and stain_spread lie in [0, 1), got {jitter:g} and {stain_spread:g}"
        )
    tiles = (
        NucleiTile(seed=seed, index=i, size=size, density=density, jitter_px=jitter, stain_spread=stain_spread)
        for i in range(n)
    )
    names: tuple[Literal["image", "points", "instances"], ...] = ("image", "points", "instances")
    return tuple(
        Case(f"tile{t.index:03d}", f"tile{t.index:03d}", {name: NucleiField(t, name) for name in names}) for t in tiles
    )


@dataclass(frozen=True)
class NucleiField:
    """One field of a tile, generated when loaded."""

    tile: NucleiTile
    name: Literal["image", "points", "instances"]

    def load(self) -> Any:
        """The image, the table of points or the label map, as `nuclei_cases` says."""
        tile, source = self.tile, f"phantom:nuclei {self.fingerprint()}"
        if self.name == "points":
            return _clicked(tile)
        nuclei = _nuclei(tile)
        if self.name == "instances":
            return Volume(_instances(tile, nuclei)[None], np.eye(4), source)
        return Volume(render(_nuclear_dyes(tile, nuclei), H_AND_E, tile.random("noise")), np.eye(4), source)

    def fingerprint(self) -> str:
        """Every parameter by name."""
        return f"{self.name} {_parameters(self.tile)}"


def _parameters(item: NucleiTile | KidneySlide) -> str:
    return " ".join(f"{f.name}={getattr(item, f.name)}" for f in fields(item))


def _centers(tile: NucleiTile) -> FloatArray:
    """(N, 2) rows and columns: a Thomas process with a hard core, so that many neighbors are 8 to 14 px apart."""
    random, low, high = tile.random("centers"), -_REACH, tile.size + _REACH
    # The hard core drops about one nucleus in four; that many more are drawn.
    wanted = tile.density * (high - low) ** 2 / 0.75
    parents = random.uniform(low, high, (max(1, random.poisson(0.75 * wanted / _CLUSTER_SIZE)), 2))
    children = np.repeat(parents, random.poisson(_CLUSTER_SIZE, len(parents)), axis=0)
    children = children + random.normal(0, _CLUSTER_SPREAD, children.shape)
    single = random.uniform(low, high, (random.poisson(0.25 * wanted), 2))
    centers = random.permutation(np.concatenate([parents[:1], children, single]))
    centers = centers[((centers >= low) & (centers < high)).all(axis=1)]
    tree, kept = cKDTree(centers), np.ones(len(centers), dtype=bool)
    for first, second in sorted(tree.query_pairs(_MIN_DISTANCE)):
        if kept[first]:
            kept[second] = False
    return np.asarray(centers[kept])


def _nuclei(tile: NucleiTile) -> list[_Nucleus]:
    random = tile.random("shapes")
    return [
        _Nucleus(
            center=(float(row), float(column)),
            radii=(float(random.uniform(6, 10)), float(random.uniform(5, 7))),
            angle=float(random.uniform(0, np.pi)),
            ink=float(random.uniform(0.55, 1.3)),
        )
        for row, column in _centers(tile)
    ]


def _inside(tile: NucleiTile, centers: FloatArray) -> NDArray[np.bool_]:
    return np.asarray(((centers > -0.5) & (centers < tile.size - 0.5)).all(axis=1))


def _clicked(tile: NucleiTile) -> dict[str, FloatArray]:
    """Centers as annotated: a pixel off, nuclei centered outside the tile left out."""
    centers = _centers(tile)
    centers = centers[_inside(tile, centers)]
    clicks = centers + tile.jitter_px * tile.random("clicks").normal(size=centers.shape)
    clicks = np.clip(clicks, 0, tile.size - 1)
    return {"x": clicks[:, 1], "y": clicks[:, 0]}


def _instances(tile: NucleiTile, nuclei: list[_Nucleus]) -> NDArray[np.uint16]:
    """1, 2, ... for the nuclei centered in the tile; where two overlap, the one whose center is nearer."""
    label = np.zeros((tile.size, tile.size), dtype=np.uint16)
    nearest = np.ones(label.shape)
    inside = _inside(tile, np.array([nucleus.center for nucleus in nuclei]))
    for value, nucleus in enumerate((n for n, own in zip(nuclei, inside, strict=True) if own), start=1):
        window, distance = nucleus.window(tile.size, margin=1)
        mine = distance < nearest[window]
        label[window][mine] = value
        nearest[window][mine] = distance[mine]
    return label


def _nuclear_dyes(tile: NucleiTile, nuclei: list[_Nucleus]) -> FloatArray:
    """Hematoxylin and eosin: fibrous pink stroma, purple nuclei with chromatin and weak borders, debris, lumen."""
    random, shape = tile.random("tissue"), (tile.size, tile.size)
    fibers = ndimage.gaussian_filter(random.normal(size=shape), (1.0, 5.0), mode="wrap")
    eosin = 0.45 + 0.12 * fibers / fibers.std() + 0.08 * _smooth_noise(random, shape, 12.0)
    hematoxylin = 0.12 + 0.05 * _smooth_noise(random, shape, 6.0)
    chromatin = 1.0 + 0.25 * _smooth_noise(random, shape, 1.2)
    for _ in range(random.poisson(1.5e-4 * tile.size**2)):  # debris: too small or too pale to be a nucleus
        spot = _Nucleus(
            (float(random.uniform(0, tile.size)), float(random.uniform(0, tile.size))),
            (float(random.uniform(1.5, 3.0)), float(random.uniform(1.5, 2.5))),
            0.0,
            float(random.uniform(0.3, 0.8)),
        )
        window, distance = spot.window(tile.size, margin=3)
        hematoxylin[window] += spot.ink * _soft(distance, 0.15)
    for nucleus in nuclei:
        window, distance = nucleus.window(tile.size, margin=4)
        body = nucleus.ink * _soft(distance, 0.10) * chromatin[window]
        hematoxylin[window] = np.maximum(hematoxylin[window], body)
    lumen = _smooth_noise(random, shape, 14.0)
    open_ = _soft(1.0 - (lumen - 2.0), 0.1) * (hematoxylin < 0.3)
    amounts = 1.0 + tile.stain_spread * tile.random("stain").normal(size=2)
    return np.stack([hematoxylin * (1 - open_), eosin * (1 - open_)]) * amounts[:, None, None]


def _soft(distance: FloatArray, width: float) -> FloatArray:
    """1 inside (distance below 1), 0 outside, with a border of that width."""
    return np.asarray(1.0 / (1.0 + np.exp(np.clip((distance - 1.0) / width, -30, 30))))


# --- kidney in PAS -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class KidneySlide:
    """One section and everything its fields depend on; see `kidney_cases`."""

    seed: int
    lab: str
    index: int
    size: int
    jitter: float
    drift: float

    def random(self, stream: str) -> np.random.Generator:
        """One stream per ingredient; the two labs cut different patients."""
        return np.random.default_rng([self.seed, self.index, *self.lab.encode(), *stream.encode()])


@dataclass(frozen=True)
class _Structure:
    tissue: int
    row: float
    column: float
    radius: float
    phase: float


_RADII = {2: (20.0, 27.0), 3: (10.0, 15.0), 1: (8.0, 13.0)}  # glomeruli first: the large ones need the room
_TRIES_PER_PIXEL = {2: 0.00025, 3: 0.0006, 1: 0.02}
_CELL = 60.0  # twice the largest radius and a gap: only neighbors in a grid of such cells can touch


def kidney_cases(
    n: int = 8, seed: int = 0, size: int = 192, jitter: float = 0.08, drift: float = 0.0
) -> tuple[Case, ...]:
    """PAS-like kidney sections of two labs that stained different patients.

    Args:
        n: sections per lab, each of a patient of its own. Section i does not depend on n.
        seed: of everything.
        size: pixels along each side.
        jitter: how much the amounts of both dyes vary between the sections of a lab, as a share.
        drift: how much the amount of dye varies across a section, as a share; below 1.

    Returns:
        2 n cases ``A/slide000``, ..., ``B/slide000``, ... with the fields ``image`` (3 channels, uint8) and ``label``
        (see `TISSUES`), and the attribute ``class`` (the lab), as a folder per lab gives it.

    Raises:
        ValueError: a parameter is out of range.
    """
    if n < 1 or seed < 0:
        raise ValueError(f"n must be at least 1 and seed not negative, got {n} and {seed}")
    if size < _MIN_SIZE:
        raise ValueError(f"size must be at least {_MIN_SIZE} pixels, got {size}")
    if not (0 <= jitter < 1 and 0 <= drift < 1):
        raise ValueError(f"jitter and drift must lie in [0, 1), got {jitter:g} and {drift:g}")
    names: tuple[Literal["image", "label"], ...] = ("image", "label")
    labels = " ".join(f"{value}={name}" for value, name in enumerate(TISSUES, start=1))
    slides = (
        KidneySlide(seed=seed, lab=lab, index=index, size=size, jitter=jitter, drift=drift)
        for lab in LABS
        for index in range(n)
    )
    return tuple(
        Case(
            id=f"{slide.lab}/slide{slide.index:03d}",
            patient=f"{slide.lab}-slide{slide.index:03d}",
            fields={name: KidneyField(slide, name) for name in names},
            attributes={"class": slide.lab, "folder": slide.lab, "labels": labels},
        )
        for slide in slides
    )


@dataclass(frozen=True)
class KidneyField:
    """One field of a section, generated when loaded."""

    slide: KidneySlide
    name: Literal["image", "label"]

    def load(self) -> Volume:
        """The image or the label map, as `kidney_cases` says."""
        layout = list(_layout(self.slide))
        source = f"phantom:kidney {self.fingerprint()}"
        if self.name == "label":
            return Volume(_tissue(self.slide, layout)[None], np.eye(4), source)
        return Volume(kidney_image(self.slide, self.slide.lab), np.eye(4), source)

    def fingerprint(self) -> str:
        """Every parameter by name."""
        return f"{self.name} {_parameters(self.slide)}"


def kidney_image(slide: KidneySlide, lab: str) -> NDArray[np.uint8]:
    """A section as a lab shows it, (3, H, W): its own, or the other one (a truth no real data have)."""
    amounts = 1.0 + slide.jitter * slide.random("stain").normal(size=2)
    field = 1.0 + slide.drift * _drift(slide)
    dyes = _kidney_dyes(slide, list(_layout(slide))) * amounts[:, None, None] * field
    return render(dyes, LABS[lab], slide.random("noise"))


def _drift(slide: KidneySlide) -> FloatArray:
    """A slow wave over the section, -1 to 1."""
    phase = slide.random("drift").uniform(0, 2 * np.pi, 2)
    turns = 2 * np.pi * np.arange(slide.size) / slide.size
    return np.asarray(0.5 * (np.sin(turns + phase[0])[:, None] + np.sin(turns + phase[1])[None]))


def _layout(slide: KidneySlide) -> Iterator[_Structure]:
    """Structures that do not overlap, placed one after the other where there is room."""
    random = slide.random("layout")
    cells: dict[tuple[int, int], list[_Structure]] = {}
    for tissue, (low, high) in _RADII.items():
        for _ in range(int(_TRIES_PER_PIXEL[tissue] * slide.size**2)):
            row, column = random.uniform(0, slide.size, 2)
            new = _Structure(tissue, row, column, random.uniform(low, high), random.uniform(0, 2 * np.pi))
            cell = (int(row // _CELL), int(column // _CELL))
            near = (
                other
                for i in range(cell[0] - 1, cell[0] + 2)
                for j in range(cell[1] - 1, cell[1] + 2)
                for other in cells.get((i, j), ())
            )
            if all(np.hypot(o.row - row, o.column - column) > 1.1 * (o.radius + new.radius) + 1 for o in near):
                cells.setdefault(cell, []).append(new)
                yield new


def _shape(slide: KidneySlide, item: _Structure) -> tuple[tuple[slice, slice], FloatArray]:
    """The window around a structure, and there the distance from its center with its border at 1."""
    reach = 1.1 * item.radius + 3
    rows, columns = (
        slice(max(0, int(c - reach)), min(slide.size, int(c + reach) + 2)) for c in (item.row, item.column)
    )
    y, x = np.mgrid[rows, columns].astype(np.float64)
    dy, dx = y - item.row, x - item.column
    border = item.radius * (1 + 0.08 * np.cos(2 * np.arctan2(dy, dx) + item.phase))
    return (rows, columns), np.hypot(dy, dx) / border


def _tissue(slide: KidneySlide, layout: list[_Structure]) -> NDArray[np.uint8]:
    label = np.zeros((slide.size, slide.size), dtype=np.uint8)
    for item in layout:
        window, distance = _shape(slide, item)
        label[window][distance < 1] = item.tissue
    return label


def _kidney_dyes(slide: KidneySlide, layout: list[_Structure]) -> FloatArray:
    """Hematoxylin and PAS before any lab's hand: stroma, then every structure, then nuclei."""
    random, shape = slide.random("tissue"), (slide.size, slide.size)
    fine = _smooth_noise(random, shape, 1.2)
    hematoxylin = 0.10 + 0.03 * _smooth_noise(random, shape, 4.0)
    pas = 0.28 + 0.06 * _smooth_noise(random, shape, 3.0)
    nuclei = _smooth_noise(random, shape, 1.6)
    crowding = np.full(shape, 2.2)  # sigmas above which the noise is a nucleus
    for item in layout:
        window, distance = _shape(slide, item)
        inside = distance < 1
        if item.tissue == 1:  # epithelium around a lumen, within a membrane that PAS likes
            lumen = distance < 0.40
            membrane = np.exp(-(((distance - 0.96) * item.radius / 1.2) ** 2))
            blue, pink = np.where(lumen, 0.02, 0.18), np.where(lumen, 0.03, 0.42) + 0.9 * membrane
            crowd = np.where(lumen | (distance > 0.85), 9.0, 1.5)
        elif item.tissue == 2:  # a tuft of capillaries in its capsule
            space = (distance > 0.86) & (distance < 0.95)
            blue = np.where(space, 0.02, 0.30)
            pink = np.where(space, 0.03, 0.65 + 0.25 * fine[window])
            crowd = np.where(space, 9.0, 0.9)
        else:  # a muscular wall
            lumen = distance < 0.45
            blue, pink = np.where(lumen, 0.02, 0.34), np.where(lumen, 0.03, 0.30 + 0.10 * np.cos(18 * distance))
            crowd = np.where(lumen, 9.0, 1.9)
        hematoxylin[window][inside] = blue[inside]
        pas[window][inside] = pink[inside]
        crowding[window][inside] = crowd[inside]
    hematoxylin = np.maximum(hematoxylin, 0.9 * _soft(1.0 - (nuclei - crowding), 0.1))
    return np.stack([hematoxylin, pas])
