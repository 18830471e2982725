"""A pool of small images in memory: a common kind and a rare one, each with an auxiliary image that shows it too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medray.data.case import Case, Volume


@dataclass(frozen=True)
class ToyField:
    """An image that is made whenever it is asked for.

    Attributes:
        kind: ``common``, a bright patch on the left; ``rare``, on the right.
        number: of the image, which moves the patch and seeds its noise.
        size: rows and columns.
        auxiliary: the other modality, which has no noise.
    """

    kind: str
    number: int
    size: int = 16
    auxiliary: bool = False

    def load(self) -> Volume:
        draw = np.random.default_rng(self.number)
        row, column = draw.integers(0, self.size // 4, 2)
        image = np.full((1, self.size, self.size), 0.3, np.float32)
        left = column + (self.size // 2 if self.kind == "rare" else 0)
        image[0, 2 + row : 2 + row + self.size // 2, left : left + self.size // 4] = 0.8
        if not self.auxiliary:
            image += 0.05 * draw.standard_normal(image.shape, dtype=np.float32)
        return Volume(image, np.eye(4), f"toy {self.kind} {self.number}")

    def fingerprint(self) -> str:
        return f"{self}"


def toy_cases(kind: str, numbers: range, size: int = 16) -> tuple[Case, ...]:
    """Cases of one kind, with both modalities."""
    return tuple(
        Case(
            f"{kind}-{number:03d}",
            f"p{kind}{number}",
            {"image": ToyField(kind, number, size), "auxiliary": ToyField(kind, number, size, auxiliary=True)},
        )
        for number in numbers
    )
