"""Y-view slices of the shoulder with fat in the supraspinatus, for the two-step Goutallier grader (MEDS Clinic, 2020).

Stands in for 606 private T2-weighted sagittal-oblique slices: the scapula is cut into a Y, and above it the oval
supraspinatus fills its fossa. The grade decides only how much of the muscle is streaks of fat; the fat under the skin,
around the muscle and in all other muscles is drawn independently of it, so that the fat of the whole image misleads.

Arrays are as 8-bit PNG files give them: (1, rows, columns), the head up; the spacing is in the affine.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medray.data.case import Case, FieldRef, Volume
from medray.data.phantoms.shoulder_anatomy import Cut
from medray.data.phantoms.shoulder_scanner import (
    FAT_BRIGHT,
    bias_field,
    drawn_class,
    drawn_contrast,
    rician,
    soft,
    stored,
    stream_of,
)
from medray.data.phantoms.shoulder_y_drawing import Oval, draw_body, draw_scapula, fat_streaks, paint_muscle, waves

Name = Literal["image", "label", "fat"]

MIX = (403, 114, 51, 24, 14)
"""Images of the grades 0 to 4 in the paper."""
FAT = ((0.0, 0.012), (0.05, 0.015), (0.20, 0.04), (0.50, 0.05), (0.70, 0.05))
"""Fat in the muscle by grade: mean and standard deviation of its share of the area."""
FIELD_OF_VIEW_MM = 150.0
_MEN = 333 / 606
_AGE = (55.1, 13.2)
_FULL = 255.0
_MIN_SIZE = 48


@dataclass(frozen=True, kw_only=True)
class View:
    """One Y-view; everything that its fields depend on.

    Attributes:
        seed: of the whole phantom.
        index: number of the patient.
        grade: Goutallier's, 0 to 4.
        size: rows and columns.
        noise: standard deviation of the noise; muscle is 0.2, fat 0.7.
        bias: amplitude of the bias field.
    """

    seed: int
    index: int
    grade: int
    size: int
    noise: float
    bias: float

    def random(self, stream: str) -> np.random.Generator:
        """One stream per ingredient: the anatomy does not depend on the grade."""
        return stream_of(self.seed, self.index, stream)


@dataclass(frozen=True)
class ViewField:
    """The image, the muscle or the fat in it, drawn when loaded."""

    view: View
    name: Name

    def load(self) -> Volume:
        """(1, size, size), uint8; the masks are 0 and 1."""
        image, muscle, fat = _drawn(self.view)
        array = {"image": image, "label": muscle, "fat": fat}[self.name][None]
        spacing = FIELD_OF_VIEW_MM / self.view.size
        affine = np.diag([spacing, spacing, 4.0, 1.0])
        return Volume(array.copy(), affine, f"phantom:shoulder_y {self.fingerprint()}", {"format": "phantom"})

    def fingerprint(self) -> str:
        """Every parameter by name."""
        return f"{self.name} " + " ".join(f"{f.name}={getattr(self.view, f.name)}" for f in fields(self.view))


def cases(
    n: int = 300, size: int = 96, seed: int = 0, even: bool = False, noise: float = 0.03, bias: float = 0.25
) -> tuple[Case, ...]:
    """Y-views of one shoulder per patient.

    Args:
        n: patients. Patient i does not depend on n.
        size: rows and columns, over 150 mm.
        seed: of everything.
        even: as many patients of every grade; else the paper's 66.5, 18.8, 8.4, 4.0 and 2.3 %.
        noise: standard deviation of the scanner's noise; muscle is about 0.2 and fat 0.7.
        bias: amplitude of the bias field, below 1.

    Returns:
        n cases with the fields ``image``, ``label`` (1 in the supraspinatus) and ``fat`` (1 in the fat inside it, for
        evaluation). Attributes: ``grade`` ("0" to "4"), ``sex`` ("M", "F") and ``age`` in years.

    Raises:
        ValueError: a parameter is out of range.
    """
    if n < 1 or seed < 0:
        raise ValueError(f"n must be at least 1 and seed not negative, got {n} and {seed}")
    if size < _MIN_SIZE:
        raise ValueError(f"size must be at least {_MIN_SIZE} pixels for streaks to show, got {size}")
    if noise < 0 or not 0 <= bias < 1:
        raise ValueError(f"noise is not negative and bias lies in [0, 1), got {noise} and {bias}")
    weights = [1] * len(MIX) if even else MIX
    made = []
    for index in range(n):
        grade = drawn_class(seed, "grades", index, weights)
        made.append(_case(View(seed=seed, index=index, grade=grade, size=size, noise=noise, bias=bias)))
    return tuple(made)


def _case(view: View) -> Case:
    person = view.random("person")
    sex, age = "M" if person.random() < _MEN else "F", int(np.clip(round(person.normal(*_AGE)), 18, 90))
    names: tuple[Name, ...] = ("image", "label", "fat")
    refs: dict[str, FieldRef] = {name: ViewField(view, name) for name in names}
    attributes = {"grade": str(view.grade), "sex": sex, "age": str(age)}
    return Case(f"y{view.index:04d}", f"y{view.index:04d}", refs, attributes)


@lru_cache(maxsize=8)
def _drawn(view: View) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Image, muscle and fat; the last few are kept, since the masks are asked for right after the image."""
    values = drawn_contrast(view.random("contrast"), FAT_BRIGHT)
    cut, random = _cut(view), view.random("anatomy")
    image = np.full((view.size, view.size), values["air"], dtype=np.float32)
    draw_body(image, cut, values, random, view.random)
    draw_scapula(image, cut, values, random)
    wasting = random.uniform(0.72, 1.0)  # of the muscle in its fossa; what is left is fat
    oval = Oval(
        (random.normal(0, 2), 17.0 + random.normal(0, 1)),
        (22.0 * wasting * random.uniform(0.92, 1.05), 12.0 * wasting * random.uniform(0.9, 1.05)),
        random.normal(0.05, 0.08),
    )
    inside = oval.distance(cut) + waves(view.random("waves supraspinatus"), image.shape)
    muscle = inside < 0
    mean, spread = FAT[view.grade]
    share = float(np.clip(abs(view.random("fat").normal(mean, spread)), 0, 0.85))
    fat = fat_streaks(view.random("streaks supraspinatus"), muscle, share)
    paint_muscle(image, soft(inside, cut.pixel_mm), fat, values, view.random("fibers"))
    image = image * bias_field(view.random("bias"), image.shape, view.bias)
    noisy = rician(view.random("noise"), image, view.noise)
    return stored(noisy, _FULL, np.uint8), muscle.astype(np.uint8), fat.astype(np.uint8)


def _cut(view: View) -> Cut:
    """Coordinates of the pixels (forward, up); turned, scaled, shifted and mirrored as the patient lies."""
    random = view.random("pose")
    angle, side = random.uniform(-0.26, 0.26), -1.0 if random.random() < 0.5 else 1.0
    zoom = random.uniform(0.92, 1.08)
    middle = np.array([0.0, 0.0]) + random.normal(0, 4, size=2)
    axis = ((np.arange(view.size) + 0.5) / view.size - 0.5) * FIELD_OF_VIEW_MM / zoom
    right, up = axis[None, :] * side, -axis[:, None]
    forward = middle[0] + right * np.cos(angle) - up * np.sin(angle)
    upward = middle[1] + right * np.sin(angle) + up * np.cos(angle)
    flat = np.zeros((1, 1), dtype=np.float32)
    pixel = FIELD_OF_VIEW_MM / view.size / zoom
    return Cut(forward.astype(np.float32), upward.astype(np.float32), flat, pixel)
