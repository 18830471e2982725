"""Gray images with a bright square or none: labels that a network learns in a few steps."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medray.data.case import Case, Volume

CLASSES = ("nothing", "dim", "bright")


@dataclass(frozen=True, eq=False)
class ArrayRef:
    """An array in memory as a field."""

    array: NDArray[Any]

    def load(self) -> Volume:
        return Volume(self.array[None], np.eye(4), "memory")

    def fingerprint(self) -> str:
        return hashlib.blake2b(self.array.tobytes()).hexdigest()


def square_cases(num_cases: int, *, seed: int = 0, size: int = 32) -> list[Case]:
    """Every third case has nothing, a dim square or a bright one of 8 x 8 px: a label map, a class, and classes.

    "any" is in both squares' classes, "strong" in the bright one's.
    """
    generator = np.random.default_rng(seed)
    return [_case(f"{seed}-{number}", number % 3, generator, size) for number in range(num_cases)]


def _case(name: str, kind: int, generator: np.random.Generator, size: int) -> Case:
    image = generator.normal(0.3, 0.05, (size, size)).astype(np.float32)
    mask = np.zeros((size, size), dtype=np.uint8)
    row, column = generator.integers(2, size - 10, 2)
    mask[row : row + 8, column : column + 8] = kind
    image += np.float32(0.3) * mask
    attributes = {"class": CLASSES[kind], "classes": ("none", "any", "any;strong")[kind]}
    return Case(name, name, {"image": ArrayRef(image), "label": ArrayRef(mask)}, attributes)
