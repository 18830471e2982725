"""Chest radiographs of three classes with a lung mask as the auxiliary modality, for active learning.

A stand-in for COVID-QU-Ex as M-VAAL (Khanal et al., MIUA 2023) takes it: ``image`` is the radiograph and ``auxiliary``
the mask of the lungs, which is known for all of the pool. Findings are drawn on the chest of `phantoms.thorax`:

``normal``      none.
``pneumonia``   one lobe of one lung, dense, with a border at the fissure.
``covid``       faint patches at the outer side of both lungs.

Arrays are as PNG files give them: (1, rows, columns), uint8.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medray.data.case import Case, FieldRef, Volume
from medray.data.phantoms.imbalanced import drawn_sets, stream_of
from medray.data.phantoms.thorax import LUNG_RADII, LUNGS, Frame, draw_thorax

FloatArray = NDArray[np.float64]
Finding = Literal["normal", "pneumonia", "covid"]
Name = Literal["image", "auxiliary"]


_MIN_SIZE = 32
_VESSELS = 0.03
_DENSITY = (0.10, 0.30)  # of a lobe; the chest wall is 0.35 brighter than the lungs
_HAZE = (0.08, 0.20)  # of a patch
_MOST_PATCHES = 3  # in each lung; 2 at least


@dataclass(frozen=True, kw_only=True)
class Film:
    """One radiograph; everything that its fields depend on.

    Attributes:
        seed: of the whole phantom.
        split: train, validation or test.
        index: number of the radiograph in its split.
        finding: its class.
        size: rows and columns.
        noise: standard deviation of the noise; findings are 0.08 to 0.3.
    """

    seed: int
    split: str
    index: int
    finding: Finding
    size: int
    noise: float

    def random(self, stream: str) -> np.random.Generator:
        """One stream per ingredient."""
        return stream_of(self.seed, self.index, self.split, stream)


@dataclass(frozen=True)
class FilmField:
    """The radiograph or its lung mask, generated when loaded."""

    film: Film
    name: Name

    def load(self) -> Volume:
        """(1, size, size), uint8; the mask is 0 and 255, as in the files of COVID-QU-Ex."""
        frame, image = _drawn(self.film)
        if self.name == "auxiliary":
            image = (frame.lungs.sum(axis=0) > 0.5) & (frame.heart < 0.5)
        else:
            image = image + self.film.random("noise").normal(0, 1, size=image.shape) * self.film.noise
        array = np.clip(np.round(255.0 * image), 0, 255).astype(np.uint8)
        return Volume(array[None], np.eye(4), source=f"phantom:chest_xray {self.fingerprint()}")

    def fingerprint(self) -> str:
        """Every parameter by name."""
        return f"{self.name} " + " ".join(f"{f.name}={getattr(self.film, f.name)}" for f in fields(self.film))


def cases(
    n: int = 600,
    validation: int = 90,
    test: int = 150,
    seed: int = 0,
    size: int = 64,
    noise: float = 0.05,
    normal: float = 0.25,
    pneumonia: float = 0.25,
) -> tuple[Case, ...]:
    """Radiographs of as many patients.

    Args:
        n: of the pool. Radiograph i does not depend on n.
        validation: of the validation set, balanced over the classes.
        test: of the test set, likewise.
        seed: of everything.
        size: rows and columns.
        noise: standard deviation of the noise; findings are 0.08 to 0.3.
        normal: share of the pool without a finding.
        pneumonia: share of the pool with pneumonia; the others have covid.

    Returns:
        Cases with the fields ``image`` and ``auxiliary``. Attributes: split (train, validation, test) and class.

    Raises:
        ValueError: a parameter is out of range.
    """
    if size < _MIN_SIZE:
        raise ValueError(f"size must be at least {_MIN_SIZE} pixels for findings to show, got {size}")
    if noise < 0:
        raise ValueError(f"noise must not be negative, got {noise}")
    if normal < 0 or pneumonia < 0 or normal + pneumonia > 1:
        raise ValueError(f"normal and pneumonia are shares that sum to 1 at most, got {normal} and {pneumonia}")
    shares: dict[Finding, float] = {"normal": normal, "pneumonia": pneumonia, "covid": 1.0}
    return tuple(
        _case(Film(seed=seed, split=split, index=index, finding=finding, size=size, noise=noise))
        for split, index, finding in drawn_sets(n, validation, test, seed, shares, "classes")
    )


def _case(film: Film) -> Case:
    patient = f"{film.split}{film.index:05d}"
    names: tuple[Name, ...] = ("image", "auxiliary")
    refs: dict[str, FieldRef] = {name: FilmField(film, name) for name in names}
    return Case(patient, patient, refs, {"split": film.split, "class": film.finding})


@lru_cache(maxsize=8)
def _drawn(film: Film) -> tuple[Frame, FloatArray]:
    """Without noise; the last few are kept, since a mask is asked for right after its radiograph."""
    anatomy = film.random("anatomy")
    frame, image = draw_thorax(anatomy, film.size)
    image = image + _VESSELS * _clouds(film.random("vessels"), film.size, 1.2) * frame.lungs.sum(axis=0)
    finding, visible = film.random("finding"), 1.0 - frame.heart
    if film.finding == "pneumonia":
        image = image + visible * _lobe(finding, frame, film.size)
    elif film.finding == "covid":
        image = image + visible * sum(_patches(finding, frame, side, film.size) for side in range(2))
    return frame, image * anatomy.normal(1, 0.06) + anatomy.normal(0, 0.03)


def _clouds(random: np.random.Generator, size: int, sigma_px: float) -> FloatArray:
    """Gaussian-smoothed white noise of mean 0 and variance 1; lengths are those at 64 pixels."""
    smooth = ndimage.gaussian_filter(random.normal(size=(size, size)), sigma_px * size / 64)
    return np.asarray((smooth - smooth.mean()) / smooth.std())


def _lobe(random: np.random.Generator, frame: Frame, size: int) -> FloatArray:
    """Consolidation above or below a slanting fissure of one lung."""
    side, lower = int(random.integers(2)), bool(random.integers(2))
    fissure = random.uniform(-0.30, -0.05) if not lower else random.uniform(0.05, 0.30)
    slant = random.uniform(-0.3, 0.3)
    across = frame.rows - fissure - slant * (frame.columns - LUNGS[side][1])
    within = 1 / (1 + np.exp((-across if lower else across) / 0.03))
    patchy = np.clip(1.0 + 0.4 * _clouds(random, size, 3.0), 0.0, None)
    return np.asarray(random.uniform(*_DENSITY) * within * patchy * frame.lungs[side])


def _patches(random: np.random.Generator, frame: Frame, side: int, size: int) -> FloatArray:
    """Haze along the outer border of a lung, more often low than high."""
    haze = np.zeros_like(frame.rows)
    outward = 1.0 if side else -1.0
    for _ in range(random.integers(2, _MOST_PATCHES + 1)):
        height = random.uniform(-0.4, 0.8)
        row = LUNGS[side][0] + height * LUNG_RADII[0]
        edge = LUNG_RADII[1] * np.sqrt(1 - height**2)
        column = LUNGS[side][1] + outward * random.uniform(0.5, 0.9) * edge
        far = (frame.rows - row) ** 2 + (frame.columns - column) ** 2
        haze = np.maximum(haze, np.exp(-far / (2 * random.uniform(0.10, 0.18) ** 2)))
    patchy = np.clip(1.0 + 0.4 * _clouds(random, size, 2.0), 0.0, None)
    return np.asarray(random.uniform(*_HAZE) * haze * patchy * frame.lungs[side])
