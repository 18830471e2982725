"""Synthetic chest radiographs with a tree of findings: 14 signs under 5 higher nodes, several at a time.

Stands in for the PLCO radiographs of HMLC (Chen et al., MIDL 2019); the tree is ours, since the paper's is a figure
that is not at hand. Findings are drawn down the tree: a child can only be there where its parent is. Siblings look
alike (a nodule is a small disc, a mass a larger one; scars and fibrosis are both thin lines), so telling them apart is
what is hard, while opacities as such are easier to see.

Arrays are as PNG files give them: (1, rows, columns), uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medray.data.case import Case, Volume
from medray.data.phantoms.thorax import LUNGS, Frame, draw_thorax

FloatArray = NDArray[np.float64]

TAXONOMY: Mapping[str, str | None] = {
    "abnormality": None,
    "pulmonary": "abnormality",
    "nodules_and_masses": "pulmonary",
    "nodule": "nodules_and_masses",
    "mass": "nodules_and_masses",
    "granuloma": "pulmonary",
    "infiltrate": "pulmonary",
    "scarring": "pulmonary",
    "fibrosis": "pulmonary",
    "atelectasis": "pulmonary",
    "copd": "pulmonary",
    "pleural": "abnormality",
    "pleural_thickening": "pleural",
    "pleural_fluid": "pleural",
    "extrapulmonary": "abnormality",
    "cardiomegaly": "extrapulmonary",
    "hilar": "extrapulmonary",
    "bone_lesion": "extrapulmonary",
    "other": "extrapulmonary",
}
"""Child to parent; the five higher nodes are those that are a parent."""

# fmt: off
_GIVEN_PARENT = {
    "pulmonary": 0.65, "pleural": 0.25, "extrapulmonary": 0.3, "nodules_and_masses": 0.4, "nodule": 0.7, "mass": 0.35,
    "granuloma": 0.12, "infiltrate": 0.2, "scarring": 0.25, "fibrosis": 0.15, "atelectasis": 0.12, "copd": 0.15,
    "pleural_thickening": 0.65, "pleural_fluid": 0.45, "cardiomegaly": 0.45, "hilar": 0.3, "bone_lesion": 0.2,
    "other": 0.2,
}
# fmt: on
_MIN_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Chest:
    """One radiograph; everything that its image depends on.

    Attributes:
        seed: of the whole phantom.
        index: number of the radiograph.
        prevalence: of any abnormality.
        size: rows and columns.
        noise: standard deviation of the noise; signs are 0.1 to 0.5.
    """

    seed: int
    index: int
    prevalence: float
    size: int
    noise: float

    def random(self, stream: str) -> np.random.Generator:
        """One stream per ingredient."""
        return np.random.default_rng([self.seed, self.index, *stream.encode()])

    def findings(self) -> frozenset[str]:
        """Nodes of the tree that are there: every parent with at least one of its children."""
        random = self.random("findings")
        if random.random() >= self.prevalence:
            return frozenset()
        found, level = {"abnormality"}, ["abnormality"]
        while level:
            parent = level.pop()
            children = [child for child, above in TAXONOMY.items() if above == parent]
            chances = np.array([_GIVEN_PARENT[child] for child in children])
            drawn = random.random(len(children)) < chances
            if children and not drawn.any():
                drawn[random.choice(len(children), p=chances / chances.sum())] = True
            chosen = [child for child, there in zip(children, drawn, strict=True) if there]
            found.update(chosen)
            level += chosen
        return frozenset(found)


@dataclass(frozen=True)
class ChestField:
    """The radiograph, generated when loaded."""

    chest: Chest

    def load(self) -> Volume:
        """(1, size, size), uint8."""
        return Volume(_radiograph(self.chest)[None], np.eye(4), source=f"phantom:chest {self.fingerprint()}")

    def fingerprint(self) -> str:
        """Every parameter by name."""
        return " ".join(f"{f.name}={getattr(self.chest, f.name)}" for f in fields(self.chest))


def cases(
    n: int = 2000, seed: int = 0, size: int = 64, prevalence: float = 0.35, noise: float = 0.04
) -> tuple[Case, ...]:
    """Radiographs, one per patient.

    Args:
        n: radiographs. Number i does not depend on n.
        seed: of everything.
        size: rows and columns.
        prevalence: of any abnormality; single signs are in 0.5 to 12 % of the images at 0.35.
        noise: standard deviation of the noise; signs are 0.1 to 0.5.

    Returns:
        n cases with the field ``image`` and, for each sign of `TAXONOMY`, an attribute of its name, "0" or "1".

    Raises:
        ValueError: a parameter is out of range.
    """
    if n < 1 or seed < 0:
        raise ValueError(f"n must be at least 1 and seed not negative, got {n} and {seed}")
    if size < _MIN_SIZE:
        raise ValueError(f"size must be at least {_MIN_SIZE} pixels for signs to show, got {size}")
    if not 0 <= prevalence <= 1 or noise < 0:
        raise ValueError(f"prevalence lies in [0, 1] and noise is not negative, got {prevalence} and {noise}")
    found = []
    for index in range(n):
        chest = Chest(seed=seed, index=index, prevalence=prevalence, size=size, noise=noise)
        there = chest.findings()
        attributes = {sign: str(int(sign in there)) for sign in SIGNS}
        found.append(Case(f"cxr{index:05d}", f"patient{index:05d}", {"image": ChestField(chest)}, attributes))
    return tuple(found)


def _radiograph(chest: Chest) -> NDArray[np.uint8]:
    anatomy, there = chest.random("anatomy"), chest.findings()
    frame, image = draw_thorax(anatomy, chest.size, heart_scale=1.45 if "cardiomegaly" in there else 1.0)
    for sign in SIGNS:  # each with a stream of its own: a second finding leaves the first where it is
        if sign in there:
            image += _SIGNS[sign](chest.random(sign), frame)
    image = image * anatomy.normal(1, 0.06) + anatomy.normal(0, 0.03)
    image += chest.random("noise").normal(0, chest.noise, size=image.shape) if chest.noise else 0.0
    return np.clip(np.round(255 * image), 0, 255).astype(np.uint8)


def _nodule(random: np.random.Generator, frame: Frame) -> FloatArray:
    _, row, column = frame.place(random)
    return 0.25 * frame.disc(row, column, random.uniform(0.05, 0.085))


def _mass(random: np.random.Generator, frame: Frame) -> FloatArray:
    _, row, column = frame.place(random, -0.6, 0.6)
    return 0.25 * frame.disc(row, column, random.uniform(0.11, 0.17))


def _granuloma(random: np.random.Generator, frame: Frame) -> FloatArray:
    _, row, column = frame.place(random)
    return 0.6 * frame.disc(row, column, random.uniform(0.025, 0.04))


def _infiltrate(random: np.random.Generator, frame: Frame) -> FloatArray:
    side, row, column = frame.place(random)
    near = np.exp(-((frame.rows - row) ** 2 + (frame.columns - column) ** 2) / (2 * 0.16**2))
    patches = ndimage.gaussian_filter(random.normal(size=near.shape), len(near) / 24)
    return np.asarray(0.35 * near * (patches > 0) * frame.lungs[side])


def _scarring(random: np.random.Generator, frame: Frame) -> FloatArray:
    side, row, column = frame.place(random, -0.8, 0.2)
    streaks = [
        frame.line(row + random.normal(0, 0.05), column + random.normal(0, 0.05), random.uniform(0, np.pi), 0.3, 0.02)
        for _ in range(3)
    ]
    return np.asarray(0.25 * np.max(streaks, axis=0) * frame.lungs[side])


def _fibrosis(random: np.random.Generator, frame: Frame) -> FloatArray:
    side, row, column = frame.place(random, 0.1, 0.8)
    angle = random.uniform(0, np.pi)
    lines = [
        frame.line(row + step * np.cos(turn), column - step * np.sin(turn), turn, 0.3, 0.016)
        for turn in (angle, angle + np.pi / 2)
        for step in np.linspace(-0.13, 0.13, 4)
    ]
    return np.asarray(0.2 * np.max(lines, axis=0) * frame.lungs[side])


def _atelectasis(random: np.random.Generator, frame: Frame) -> FloatArray:
    side, row, column = frame.place(random, -0.3, 0.5)
    outward = 1.0 if side else -1.0
    reach = (frame.columns - column) * outward + 0.15
    wedge = (reach > 0) & (np.abs(frame.rows - row) < 0.45 * reach)
    return np.asarray(0.25 * wedge * frame.lungs[side])


def _copd(random: np.random.Generator, frame: Frame) -> FloatArray:
    return np.asarray(-random.uniform(0.07, 0.12) * frame.lungs.sum(axis=0))


def _pleural_thickening(random: np.random.Generator, frame: Frame) -> FloatArray:
    side, start = int(random.integers(2)), random.uniform(-0.5, 0.1)
    lung = frame.lungs[side]
    outside = (frame.columns * (1 if side else -1)) > 0.42
    rim = lung * (1 - lung) * 4 * outside * (np.abs(frame.rows - start) < 0.3)
    return np.asarray(0.3 * rim)


def _pleural_fluid(random: np.random.Generator, frame: Frame) -> FloatArray:
    side = int(random.integers(2))
    level = random.uniform(0.2, 0.4) - 1.2 * (frame.columns - LUNGS[side][1]) ** 2
    return np.asarray(0.33 * frame.lungs[side] / (1 + np.exp((level - frame.rows) / 0.02)))


def _cardiomegaly(random: np.random.Generator, frame: Frame) -> FloatArray:
    return np.zeros_like(frame.rows)  # the heart itself is drawn larger


def _hilar(random: np.random.Generator, frame: Frame) -> FloatArray:
    side = 1 if random.random() < 0.5 else -1
    blobs = [frame.disc(random.normal(-0.08, 0.04), side * random.normal(0.2, 0.03), 0.07) for _ in range(3)]
    return np.asarray(0.22 * np.max(blobs, axis=0))


def _bone_lesion(random: np.random.Generator, frame: Frame) -> FloatArray:
    side = 1 if random.random() < 0.5 else -1
    return 0.35 * frame.disc(random.uniform(-0.6, 0.3), side * random.uniform(0.74, 0.82), 0.05)


def _other(random: np.random.Generator, frame: Frame) -> FloatArray:
    column = random.normal(0.0, 0.06)
    return 0.4 * frame.line(-0.4, column, np.pi / 2 + random.normal(0, 0.1), 0.9, 0.02)  # a wire


_SIGNS: Mapping[str, Callable[[np.random.Generator, Frame], FloatArray]] = {
    "nodule": _nodule,
    "mass": _mass,
    "granuloma": _granuloma,
    "infiltrate": _infiltrate,
    "scarring": _scarring,
    "fibrosis": _fibrosis,
    "atelectasis": _atelectasis,
    "copd": _copd,
    "pleural_thickening": _pleural_thickening,
    "pleural_fluid": _pleural_fluid,
    "cardiomegaly": _cardiomegaly,
    "hilar": _hilar,
    "bone_lesion": _bone_lesion,
    "other": _other,
}
SIGNS = tuple(_SIGNS)
"""The leaves of the tree."""
