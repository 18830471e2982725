"""A healthy chest as a radiograph shows it: what the chest phantoms draw their findings on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

LUNGS = ((-0.05, -0.42), (-0.05, 0.42))
"""Row and column of the lungs' centers, where the image reaches from -1 to 1."""
LUNG_RADII = (0.62, 0.30)
"""Half length and half width of a lung."""
LUNG_VALUE, BODY_VALUE = 0.2, 0.55
"""Brightness, from 0 to 1."""


@dataclass(frozen=True)
class Frame:
    """Where things are, from -1 to 1.

    Attributes:
        rows: of every pixel, (H, W), in the patient's own frame.
        columns: likewise.
        lungs: memberships of the two lungs, (2, H, W), 1 inside with soft borders. The heart may hide a part.
        heart: membership of the heart, (H, W).
    """

    rows: FloatArray
    columns: FloatArray
    lungs: FloatArray
    heart: FloatArray

    def place(self, random: np.random.Generator, lower: float = -0.75, upper: float = 0.75) -> tuple[int, float, float]:
        """A lung and a point inside it, its height as a share of the lung's half length (negative is up)."""
        side = int(random.integers(2))
        height = random.uniform(lower, upper)
        reach = 0.7 * np.sqrt(1 - height**2) * LUNG_RADII[1]
        return side, LUNGS[side][0] + height * LUNG_RADII[0], LUNGS[side][1] + random.uniform(-reach, reach)

    def disc(self, row: float, column: float, radius: float) -> FloatArray:
        """A disc with soft borders."""
        distance = np.hypot(self.rows - row, self.columns - column)
        return np.asarray(1 / (1 + np.exp((distance - radius) / 0.012)))

    def line(self, row: float, column: float, angle: float, length: float, width: float) -> FloatArray:
        """A straight line with soft borders."""
        along = (self.rows - row) * np.sin(angle) + (self.columns - column) * np.cos(angle)
        across = (self.rows - row) * np.cos(angle) - (self.columns - column) * np.sin(angle)
        return np.asarray(np.exp(-((across / width) ** 2)) * (np.abs(along) < length / 2))


def draw_thorax(anatomy: np.random.Generator, size: int, heart_scale: float = 1.0) -> tuple[Frame, FloatArray]:
    """One patient's chest without findings and noise.

    Args:
        anatomy: draws the patient's proportions.
        size: rows and columns.
        heart_scale: of an enlarged heart.

    Returns:
        Where things are, and the radiograph (size, size), brightness from 0 to 1.
    """
    shift, zoom = anatomy.normal(0, 0.03, size=2), anatomy.normal(1, 0.03)
    axis = np.linspace(-1, 1, size)
    rows, columns = (mesh / zoom for mesh in np.meshgrid(axis - shift[0], axis - shift[1], indexing="ij"))
    lungs = np.stack(
        [
            1 / (1 + np.exp((np.hypot((rows - r) / LUNG_RADII[0], (columns - c) / LUNG_RADII[1]) - 1) / 0.05))
            for r, c in LUNGS
        ]
    )
    image = BODY_VALUE - (BODY_VALUE - LUNG_VALUE) * lungs.sum(axis=0)
    waves = 2 * np.pi * (rows + 0.5 * columns**2) / 0.22 + anatomy.uniform(0, 6)
    image += 0.03 * np.cos(waves) * (np.abs(columns) < 0.85)  # ribs
    radius = anatomy.normal(0.22, 0.012) * heart_scale
    heart = 1 / (1 + np.exp((np.hypot((rows - 0.3) / (1.15 * radius), (columns - 0.1) / radius) - 1) / 0.05))
    image += (0.62 - image) * heart
    image += 0.12 * np.exp(-((columns / 0.1) ** 2))  # spine
    return Frame(rows, columns, lungs, heart), image
