"""Synthetic fundus photographs: classes that differ in how many small lesions there are, not in how much lesion.

Stands in for APTOS (diabetic retinopathy, ``dr``), iChallenge-AMD (``amd``) and ORIGA (``glaucoma``) in ToFi-ML (Ahmed
& Coskunuzer, MIUA 2023). An orange disc on black with vessels, optic disc and macula under an uneven light, with grain.
Every photograph carries the same area of bright and of dark lesion, to the pixel: in the sick in many small spots, in
the healthy merged into a few blobs (in glaucoma the other way round, and a wide cup in place of a bright patch beside
the optic disc). So a histogram of the colors hardly tells the classes apart, while counting components and holes does.

Arrays are as PNG files give them: (3, rows, columns), uint8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medray.data.case import Case, Volume

Disease = Literal["dr", "amd", "glaucoma"]
FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]

GRADES = 5
"""0: no retinopathy, 4: proliferative, as in APTOS."""

_REFERENCE_SIZE = 64
_MIN_SIZE = 48
_RETINA = 0.95  # radius, where the image reaches from -1 to 1
_DISC_RADIUS = 0.17
_COLORS = {  # red, green, blue, 0 to 255
    "retina": (185.0, 92.0, 40.0),
    "disc": (215.0, 150.0, 85.0),
    "cup": (235.0, 190.0, 130.0),
    "bright": (225.0, 160.0, 70.0),
    "dark": (120.0, 40.0, 22.0),
    "vessel": (140.0, 55.0, 30.0),
}
_BRIGHT_AREA, _DARK_AREA = 140, 120  # pixels at the reference size, in every photograph
_SMALL_AREA, _DRUSEN_AREA = 3, 9
_SICK = (0.4, 1.0)  # the rest of the lesion area is in blobs: 20 to 47 small spots of each color
_NUM_BLOBS = 3
_CONTRAST = (0.25, 1.0)  # of lesions, from barely above the grain to as painted above
_SLOPE, _EXPOSURE = 0.08, 0.1
_TRIES = 30
_MIXED = (1.0, 1.5, 2.0)


@dataclass(frozen=True, kw_only=True)
class Eye:
    """One photographed eye; everything that its image depends on.

    Attributes:
        seed: of the whole phantom.
        index: number of the eye.
        disease: which one the set is about.
        severity: 0 healthy to 1, the share of the lesion area that is in small spots.
        size: rows and columns.
        noise: standard deviation of the grain, gray values.
    """

    seed: int
    index: int
    disease: Disease
    severity: float
    size: int
    noise: float

    def random(self, stream: str) -> np.random.Generator:
        """One stream per ingredient: the eye's anatomy does not depend on its lesions."""
        return np.random.default_rng([self.seed, self.index, *stream.encode()])


@dataclass(frozen=True)
class FundusField:
    """The photograph, generated when loaded."""

    eye: Eye

    def load(self) -> Volume:
        """(3, size, size), uint8."""
        return Volume(_photograph(self.eye), np.eye(4), source=f"phantom:fundus {self.fingerprint()}")

    def fingerprint(self) -> str:
        """Every parameter by name."""
        return " ".join(f"{f.name}={getattr(self.eye, f.name)}" for f in fields(self.eye))


def cases(
    n: int = 200,
    seed: int = 0,
    size: int = 64,
    disease: Literal["dr", "amd", "glaucoma"] = "dr",
    positive: float = 0.5,
    grades: bool = False,
    mixed: bool = False,
    noise: float = 6.0,
) -> tuple[Case, ...]:
    """Photographs of one eye per patient.

    Args:
        n: eyes. Eye i does not depend on n.
        seed: of everything.
        size: rows and columns.
        disease: dr: 20 to 60 small bright exudates and dark microaneurysms; amd: drusen around the macula; glaucoma: a
            wide cup and fewer dark specks.
        positive: share of the sick, 0 to 1; 0.15 is a long tail.
        grades: grades 0 to 4 of retinopathy as classes instead of two.
        mixed: sizes of 1, 1.5 and 2 times ``size``, whatever the class.
        noise: standard deviation of the grain in gray values; counts of components are hungry for it.

    Returns:
        n cases with the field ``image`` and the attribute ``class``: ``normal`` or the disease, or the grade.

    Raises:
        ValueError: a parameter is out of range.
    """
    if n < 1 or seed < 0:
        raise ValueError(f"n must be at least 1 and seed not negative, got {n} and {seed}")
    if size < _MIN_SIZE:
        raise ValueError(f"size must be at least {_MIN_SIZE} pixels for lesions to show, got {size}")
    if not 0 <= positive <= 1 or noise < 0:
        raise ValueError(f"positive lies in [0, 1] and noise is not negative, got {positive} and {noise}")
    if grades and disease != "dr":
        raise ValueError(f"grades are those of dr, got disease={disease}")
    found = []
    for index in range(n):
        sick = int((index + 1) * positive) > int(index * positive)
        grade = index % GRADES
        drawn = np.random.default_rng([seed, index])
        severity = grade / (GRADES - 1) if grades else float(sick) * round(drawn.uniform(*_SICK), 3)
        scale = drawn.choice(_MIXED) if mixed else 1.0
        eye = Eye(seed=seed, index=index, disease=disease, severity=severity, size=round(size * scale), noise=noise)
        name = str(grade) if grades else disease if sick else "normal"
        found.append(Case(f"eye{index:04d}", f"patient{index:04d}", {"image": FundusField(eye)}, {"class": name}))
    return tuple(found)


def _photograph(eye: Eye) -> NDArray[np.uint8]:
    rows, columns = np.meshgrid(*[np.linspace(-1, 1, eye.size)] * 2, indexing="ij")
    anatomy = eye.random("anatomy")
    retina = rows**2 + columns**2 < _RETINA**2
    side = anatomy.choice([-1, 1])
    center = np.array([anatomy.normal(0, 0.06), side * (0.45 + anatomy.normal(0, 0.03))])
    macula = np.array([center[0] + 0.05, center[1] - side * 0.55])
    from_disc = np.hypot(rows - center[0], columns - center[1])
    vessels = _vessels(anatomy, center, side, eye.size) & retina

    image = np.zeros((3, eye.size, eye.size))
    _paint(image, retina, "retina")
    image *= 1 - 0.25 * np.exp(-((rows - macula[0]) ** 2 + (columns - macula[1]) ** 2) / (2 * 0.12**2))
    _paint(image, (from_disc < _DISC_RADIUS) & retina, "disc")
    _paint(image, vessels, "vessel")
    faintness = 1 - eye.random("contrast").uniform(*_CONTRAST)
    clean = image.copy()
    for name, mask in _lesions(eye, from_disc, macula, retina, vessels).items():
        _paint(image, mask, name)
    image += faintness * (clean - image)
    light = eye.random("light")
    slope = light.normal(0, _SLOPE, size=2)
    image *= 1 + slope[0] * rows + slope[1] * columns + light.normal(0, _EXPOSURE)
    image += eye.random("grain").normal(0, eye.noise, size=image.shape) if eye.noise else 0.0
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def _paint(image: FloatArray, where: Mask, name: str) -> None:
    image[:, where] = np.array(_COLORS[name])[:, None]


def _vessels(random: np.random.Generator, center: FloatArray, side: int, size: int) -> Mask:
    """Four arcades that leave the optic disc and bend around the macula, each with a few branches."""
    mask = np.zeros((size, size), dtype=bool)
    along = np.linspace(0, 1, 3 * size)
    for vertical, lateral in ((-1, -1), (1, -1), (-1, 0.45), (1, 0.45)):
        bend, reach = random.uniform(0.55, 0.8), random.uniform(1.0, 1.4)
        rows = center[0] + vertical * bend * np.sqrt(along) + random.normal(0, 0.02)
        columns = center[1] + side * lateral * reach * along**1.3
        _draw(mask, rows, columns)
        for start in random.uniform(0.25, 0.8, size=2):
            first = int(start * len(along))
            length = along[: len(along) // 3]
            _draw(
                mask,
                rows[first] + random.uniform(-0.9, 0.9) * length,
                columns[first] + side * lateral * random.uniform(0.3, 0.9) * length,
            )
    width = max(1, round(size / _REFERENCE_SIZE / 1.5))
    return np.asarray(ndimage.binary_dilation(mask, iterations=width - 1) if width > 1 else mask)


def _draw(mask: Mask, rows: FloatArray, columns: FloatArray) -> None:
    size = len(mask)
    pixels = np.round((np.stack([rows, columns]) + 1) / 2 * (size - 1)).astype(int)
    inside = ((pixels >= 0) & (pixels < size)).all(axis=0)
    mask[pixels[0, inside], pixels[1, inside]] = True


def _lesions(eye: Eye, from_disc: FloatArray, macula: FloatArray, retina: Mask, vessels: Mask) -> dict[str, Mask]:
    """Masks by color. The pixels of each color do not depend on the severity, their arrangement does."""
    random = eye.random("lesions")
    area = (eye.size / _REFERENCE_SIZE) ** 2
    away = ndimage.binary_erosion(retina, iterations=2) & (from_disc > _DISC_RADIUS + 0.08)
    free = away & ~vessels
    anywhere = _uniform(random)
    if eye.disease == "glaucoma":
        # Radii of the cup: healthy 0.3 to 0.45 of the disc's, sick 0.6 to 0.8; what the healthy lack is a bright patch.
        narrow, wide = random.uniform(0.3, 0.45), random.uniform(0.6, 0.8)
        ratio = narrow + (wide - narrow) * eye.severity
        cup, widest = from_disc < ratio * _DISC_RADIUS, from_disc < wide * _DISC_RADIUS
        patch = _spots(free, 1, int(widest.sum() - cup.sum()), anywhere)
        spread = 1 - eye.severity
        specks = _mixture(free & ~patch, _DARK_AREA * area, _SMALL_AREA * area, spread, anywhere)
        return {"dark": specks, "cup": cup | patch}
    if eye.disease == "amd":
        near = _around(random, macula, 0.3, eye.size)
        return {"bright": _mixture(free, _BRIGHT_AREA * area, _DRUSEN_AREA * area, eye.severity, near)}
    bright = _mixture(free, _BRIGHT_AREA * area, _SMALL_AREA * area, eye.severity, anywhere)
    free &= ~ndimage.binary_dilation(bright)
    return {"bright": bright, "dark": _mixture(free, _DARK_AREA * area, _SMALL_AREA * area, eye.severity, anywhere)}


Where = Callable[[Mask], tuple[int, int]]


def _uniform(random: np.random.Generator) -> Where:
    def pick(free: Mask) -> tuple[int, int]:
        candidates = np.argwhere(free)
        row, column = candidates[random.integers(len(candidates))]
        return int(row), int(column)

    return pick


def _around(random: np.random.Generator, middle: FloatArray, spread: float, size: int) -> Where:
    def pick(free: Mask) -> tuple[int, int]:
        drawn = np.round((random.normal(middle, spread, size=(_TRIES, 2)) + 1) / 2 * (size - 1)).astype(int)
        inside = drawn[((drawn >= 0) & (drawn < size)).all(axis=1)]
        row, column = next((place for place in inside if free[tuple(place)]), np.argwhere(free)[0])
        return int(row), int(column)

    return pick


def _mixture(free: Mask, total: float, small: float, share: float, where: Where) -> Mask:
    """``total`` pixels: ``share`` of them in spots of ``small`` pixels, the rest in a few blobs."""
    total_px, small_px = round(total), max(1, round(small))
    num_small = round(share * total_px / small_px)
    spots = _spots(free, num_small, min(total_px, num_small * small_px), where)
    apart = free & ~ndimage.binary_dilation(spots)
    return spots | _spots(apart, _NUM_BLOBS, total_px - int(spots.sum()), where)


def _spots(free: Mask, count: int, total: int, where: Where) -> Mask:
    """``total`` free pixels in ``count`` round spots that do not touch each other, as far as there is room."""
    spots, open_ = np.zeros_like(free), free.copy()
    for number in range(count):
        left = total - int(spots.sum())
        wanted = -(-left // (count - number))
        if wanted < 1 or open_.sum() < wanted:
            break
        row, column = where(open_)
        rows, columns = np.nonzero(open_)
        nearest = np.argsort((rows - row) ** 2 + (columns - column) ** 2, kind="stable")[:wanted]
        one = np.zeros_like(free)
        one[rows[nearest], columns[nearest]] = True
        spots |= one
        open_ &= ~ndimage.binary_dilation(one, np.ones((3, 3)))
    return spots
