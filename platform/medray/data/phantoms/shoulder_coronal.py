"""Oblique-coronal slices of shoulders with the supraspinatus tendon and its tear, for CSS-Net (Lee et al., ACCV 2022).

Stands in for the 889 private slices of 42 patients of its table 1: by default 69 % of the slices show neither, 14 %
the tendon and 17 % a torn tendon; a tendon covers about 2.5 % of a slice that shows it and a tear about 0.23 % of one
that is torn. Slices of a patient are cuts through one shoulder (`medray.data.phantoms.shoulder_anatomy`). Fluid in the
bursa, the joint and elsewhere, and without fat suppression the fat, are as bright as a tear.

Arrays are as 16-bit PNG files give them: (1, rows, columns), the head up; the spacing is in the affine.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medray.data.case import Case, FieldRef, Volume
from medray.data.phantoms.shoulder_anatomy import Cut, Shoulder, Tear, drawn_shoulder, tear_membership
from medray.data.phantoms.shoulder_drawing import draw_shoulder
from medray.data.phantoms.shoulder_scanner import (
    FAT_BRIGHT,
    FAT_SUPPRESSED,
    bias_field,
    drawn_contrast,
    mask_of,
    paint,
    rician,
    stored,
    stream_of,
    texture,
)
from medray.data.phantoms.shoulder_tears import Size, drawn_size, drawn_tear

Name = Literal["image", "label"]

FIELD_OF_VIEW_MM = 140.0
_MIDDLE_MM = (-14.0, -10.0)  # lateral and up of the image's middle, from the head's
_WIDTH_MM = (11.0, 13.0)
_OFF_MIDDLE = (0.55, 1.0)  # the gap in a slice, of that in the tear's middle
_SUPPRESSED = 0.6  # share of patients
_FULL = 2400.0  # stored value of intensity 1
_MIN_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One slice; everything that its fields depend on.

    Attributes:
        seed: of the whole phantom.
        patient: number of the patient.
        number: of the slice in the patient.
        size: rows and columns.
        anterior_mm: position of the slice, from the middle of the humeral head.
        torn: whether this slice shows the tear.
        tear_size: factor of the tears' lengths.
        noise: standard deviation of the noise; muscle is 0.2 to 0.5, fluid 0.8.
        bias: amplitude of the bias field.
    """

    seed: int
    patient: int
    number: int
    size: int
    anterior_mm: float
    torn: bool
    tear_size: float
    noise: float
    bias: float

    def random(self, stream: str, *, shared: bool = True) -> np.random.Generator:
        """One stream per ingredient, of the patient or of this slice alone."""
        return stream_of(self.seed, self.patient, stream if shared else f"{stream} {self.number}")


@dataclass(frozen=True)
class CoronalField:
    """The slice or its label, drawn when loaded."""

    slice: Slice
    name: Name

    def load(self) -> Volume:
        """(1, size, size): the image uint16, the label uint8 with 0 background, 1 tendon, 2 tear."""
        image, label = _drawn(self.slice)
        spacing = FIELD_OF_VIEW_MM / self.slice.size
        affine = np.diag([spacing, spacing, 4.0, 1.0])
        array = (label if self.name == "label" else image)[None]
        return Volume(array.copy(), affine, f"phantom:shoulder_coronal {self.fingerprint()}", {"format": "phantom"})

    def fingerprint(self) -> str:
        """Every parameter by name."""
        return f"{self.name} " + " ".join(f"{f.name}={getattr(self.slice, f.name)}" for f in fields(self.slice))


def cases(
    patients: int = 60,
    slices: int = 5,
    size: int = 128,
    seed: int = 0,
    nothing: float = 0.69,
    tendon: float = 0.14,
    tear_size: float = 1.0,
    noise: float = 0.04,
    bias: float = 0.25,
) -> tuple[Case, ...]:
    """Slices of as many patients, each a case of its own.

    Args:
        patients: number of patients. Patient i does not depend on it.
        slices: of each patient, from front to back.
        size: rows and columns of a slice, over 140 mm.
        seed: of everything.
        nothing: share of slices that do not show the tendon.
        tendon: share of slices with a whole tendon; the others show a tear.
        tear_size: factor of the tears' lengths and with them of their share of the pixels.
        noise: standard deviation of the scanner's noise; fluid is about 0.8, the tendon 0.1 to 0.2.
        bias: amplitude of the bias field, below 1.

    Returns:
        Cases ``p003/s2`` of patient ``p003`` with the fields ``image`` and ``label``. Attributes: ``kind`` (nothing,
        tendon, tear), and of torn slices ``class`` (partial, small, medium, large) and ``gap_mm``, the length of the
        gap along the tendon, at most half of what a tear of that class measures from front to back.

    Raises:
        ValueError: a parameter is out of range.
    """
    if patients < 1 or slices < 1 or seed < 0:
        raise ValueError(
            f"patients and slices must be at least 1 and seed not negative, got {patients}, {slices}, {seed}"
        )
    if size < _MIN_SIZE:
        raise ValueError(f"size must be at least {_MIN_SIZE} pixels for the tendon to show, got {size}")
    if nothing < 0 or tendon < 0 or nothing + tendon > 1:
        raise ValueError(f"nothing and tendon are shares that sum to 1 at most, got {nothing} and {tendon}")
    if tear_size <= 0 or noise < 0 or not 0 <= bias < 1:
        raise ValueError(
            f"tear_size is positive, noise not negative and bias in [0, 1), got {tear_size}, {noise}, {bias}"
        )
    made = []
    for patient, (num_tendon, num_torn) in zip(range(patients), _counts(seed, slices, nothing, tendon), strict=False):
        positions, shown = _positions(seed, patient, slices, num_tendon)
        random = stream_of(seed, patient, "torn slices")
        first = int(random.integers(num_tendon - num_torn + 1)) if num_torn else 0
        torn = shown[first : first + num_torn]
        for number, position in enumerate(positions):
            one = Slice(
                seed=seed,
                patient=patient,
                number=number,
                size=size,
                anterior_mm=position,
                torn=number in torn,
                tear_size=tear_size,
                noise=noise,
                bias=bias,
            )
            made.append(_case(one, "tear" if one.torn else "tendon" if number in shown else "nothing"))
    return tuple(made)


def _case(one: Slice, kind: str) -> Case:
    names: tuple[Name, ...] = ("image", "label")
    refs: dict[str, FieldRef] = {name: CoronalField(one, name) for name in names}
    attributes = {"kind": kind}
    if one.torn:
        size, tear = _tear(one)
        attributes |= {"class": size, "gap_mm": f"{tear.gap_mm:.1f}"}
    return Case(f"p{one.patient:03d}/s{one.number}", f"p{one.patient:03d}", refs, attributes)


def _counts(seed: int, slices: int, nothing: float, tendon: float) -> Iterator[tuple[int, int]]:
    """Slices with the tendon, and torn ones among them, of each patient: the shares hold over any stretch of patients.

    Some patients have a whole tendon; the torn slices that are then lacking are made up for by those who follow.
    """
    shown_share = 1 - nothing
    torn_share = (shown_share - tendon) / shown_share if shown_share > 0 else 0.0
    start = float(np.random.default_rng([seed, *b"counts"]).random())
    torn = 0
    for patient in itertools.count():
        before, until = (int(number * slices * shown_share + start) for number in (patient, patient + 1))
        num_torn = 0
        if stream_of(seed, patient, "torn").random() < torn_share**0.5:
            num_torn = min(until - before, max(0, round(until * torn_share) - torn))
        torn += num_torn
        yield until - before, num_torn


def _positions(seed: int, patient: int, slices: int, num_tendon: int) -> tuple[list[float], list[int]]:
    """Anterior position of every slice, mm, front first, and the numbers of those that cut the tendon."""
    random, width = stream_of(seed, patient, "stack"), _shoulder(seed, patient).width
    apart = 2 * width / max(num_tendon, 1)
    off = random.uniform(-0.6, 0.6) * max(0.0, apart / 2 - 1.5)
    inside = [off + apart * (number - (num_tendon - 1) / 2) for number in range(num_tendon)]
    num_behind = round((slices - num_tendon) * random.uniform(0.3, 0.7))
    num_before = slices - num_tendon - num_behind

    def beyond(count: int) -> list[float]:
        step = min(apart, 32 / max(count, 1))
        return [width + 1.5 + step * (number + 0.5) for number in range(count)]

    positions = [-x for x in reversed(beyond(num_behind))] + inside + beyond(num_before)
    return positions[::-1], list(range(num_before, num_before + num_tendon))


@lru_cache(maxsize=1024)
def _shoulder(seed: int, patient: int) -> Shoulder:
    return drawn_shoulder(stream_of(seed, patient, "anatomy"), width=_WIDTH_MM)


@lru_cache(maxsize=1024)
def _tear(one: Slice) -> tuple[Size, Tear]:
    """The patient's tear as this slice cuts it: the gap differs a little from slice to slice."""
    size = drawn_size(one.seed, one.patient, torn=True)
    tear = drawn_tear(one.random("tear"), size, factor=one.tear_size)
    gap = tear.gap_mm * one.random("gap", shared=False).uniform(*_OFF_MIDDLE)
    return size, replace(tear, gap_mm=gap, middle_mm=one.anterior_mm)


@lru_cache(maxsize=8)
def _drawn(one: Slice) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Image and label; the last few are kept, since a label is asked for right after its image."""
    shoulder, cut = _shoulder(one.seed, one.patient), _cut(one)
    random = one.random("contrast")
    values = drawn_contrast(random, FAT_SUPPRESSED if random.random() < _SUPPRESSED else FAT_BRIGHT)
    scale = one.size / 128
    fibers = texture(one.random("fibers", shared=False), (one.size, one.size), (0.8 * scale, 3.0 * scale))
    image, band = draw_shoulder(shoulder, cut, values, fibers)
    label = (band.tendon < 0).astype(np.uint8)
    if one.torn:
        gap = tear_membership(_tear(one)[1], band, cut)
        paint(image, gap, values["fluid"])
        label[mask_of(gap * label)] = 2
    image = image * bias_field(one.random("bias"), image.shape, one.bias)
    return stored(rician(one.random("noise", shared=False), image, one.noise), _FULL, np.uint16), label


def _cut(one: Slice) -> Cut:
    """Coordinates of the pixels: turned, shifted and mirrored as the patient lies, the same in all slices."""
    random = one.random("pose")
    angle, side = random.normal(0, np.deg2rad(5)), -1.0 if random.random() < 0.5 else 1.0
    middle = np.array(_MIDDLE_MM) + random.normal(0, 4, size=2)
    axis = ((np.arange(one.size) + 0.5) / one.size - 0.5) * FIELD_OF_VIEW_MM
    right, up = axis[None, :] * side, -axis[:, None]
    lateral = middle[0] + right * np.cos(angle) - up * np.sin(angle)
    upward = middle[1] + right * np.sin(angle) + up * np.cos(angle)
    anterior = np.full((1, 1), one.anterior_mm, dtype=np.float32)
    return Cut(lateral.astype(np.float32), upward.astype(np.float32), anterior, FIELD_OF_VIEW_MM / one.size)
