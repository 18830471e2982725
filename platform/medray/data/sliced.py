"""Axial slices of volumes as cases of their own, cut when they are loaded: nothing is written.

For methods that choose, label or learn single slices of a data set of volumes (M-VAAL on BraTS, sec. 3.2). A method
that takes whole volumes slice by slice and puts its results back reads them through `medray.data.slices` instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from threading import Lock
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from medray.data.case import Case, FieldRef, Volume
from medray.data.fields import FileRef, is_label_name
from medray.data.geometry import Grid, canonical, resample
from medray.data.readers import suffix_of
from medray.errors import UserError

BRATS_CLASSES: Mapping[int, str] = {1: "NCR", 2: "ED", 3: "ET", 4: "ET"}
"""Sub-regions of a tumor by label value; ET was 4 until BraTS 2021 and is 3 since."""

_VOLUMES_KEPT = 6  # two cases with an image, an auxiliary one and a label
_ALWAYS_2D = (".png", ".jpg", ".jpeg", ".bmp")
_SAME_VOXELS = 1e-3
_decoding = Lock()  # else every thread would decode the volume that all of them are about to need


@dataclass(frozen=True)
class SliceField:
    """One plane of a volume.

    Attributes:
        ref: the volume.
        plane: where; a 2D grid. It need not lie on the volume's own voxels.
        label: whether the volume is a label map, which is sampled by nearest neighbor.
    """

    ref: FieldRef
    plane: Grid
    label: bool = False

    def load(self) -> Volume:
        """(C, *plane.shape), of the volume's type. What lies beyond the volume is its minimum, 0 for a label map.

        Raises:
            UserError: the volume cannot be read, or is not 3D.
        """
        volume = self.whole()
        index = _index_of(self.plane, volume)
        if index is not None:
            return Volume(volume.array[..., index].copy(), self.plane.affine, volume.source)
        there = resample(volume, self.plane, order=0 if self.label else 1, fill=0.0 if self.label else None)
        return replace(there, header={})

    def whole(self) -> Volume:
        """The volume it is cut from, turned to run Right, Anterior, Superior; see `load`."""
        return _volume(self.ref)

    def fingerprint(self) -> str:
        """The volume's, and where the plane is to a ten-thousandth of a mm."""
        place = repr((self.plane.shape, (np.round(self.plane.affine, 4) + 0.0).tolist(), self.label))
        return f"{self.ref.fingerprint()} {hashlib.blake2b(place.encode(), digest_size=8).hexdigest()}"


def slices_as_cases(
    cases: Sequence[Case],
    fields: Sequence[str] = ("image", "auxiliary", "label"),
    *,
    min_label_px: int = 1000,
    label: str = "label",
    occupied: float = 0.1,
    every: int = 1,
    classes: Mapping[int, str] = BRATS_CLASSES,
    workers: int = 4,
) -> list[Case]:
    """Every case of a volume as one case per axial slice that is worth having.

    Volumes are turned to run Right, Anterior, Superior and cut across their last axis, as in `medray.data.slices`. The
    first of ``fields`` says where the slices lie; the others are sampled there in scanner coordinates.

    Args:
        cases: of volumes. 2D cases pass as they are, and so do cases that cannot be read, for the checks to report.
        fields: those that are cut, where a case has them; other fields are left out.
        min_label_px: pixels other than 0 that the label map of a slice must have; the paper's 1000 are of 1 mm. With 0
            the label map does not decide, and slices without anything labelled are cases too.
        label: the field with the label map.
        occupied: where no label map decides, the share of a slice's pixels that must be above the volume's mean.
        every: keeps each n-th of a volume's slices.
        classes: names of label values. A volume whose values all have names, and that does not only have the value 1,
            gives its slices the attribute ``classes``: the names of the values in the slice, as in "ET;ED".
        workers: threads that read.

    Returns:
        Cases ``<case>/z=077`` of the volume's patient, with its attributes and ``slice``.

    Raises:
        ValueError: no field, or a number out of range.
    """
    if not fields or min_label_px < 0 or every < 1 or not 0 <= occupied <= 1:
        raise ValueError(
            f"slices need a field, min_label_px of 0 and every of 1 at least and occupied in [0, 1], got "
            f"{tuple(fields)}, {min_label_px}, {every} and {occupied}"
        )
    rules = _Rules(tuple(fields), min_label_px, label, occupied, every, classes)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        return [one for found in pool.map(partial(_cut, rules=rules), cases) for one in found]


@dataclass(frozen=True)
class _Rules:
    """What is kept, see `slices_as_cases`."""

    fields: tuple[str, ...]
    min_label_px: int
    label: str
    occupied: float
    every: int
    classes: Mapping[int, str]


def _cut(case: Case, rules: _Rules) -> list[Case]:
    main = case.fields.get(rules.fields[0])
    if main is None or _surely_2d(main):
        return [case]
    try:
        image = main.load()
        if not isinstance(image, Volume) or image.spatial_dims != 3:
            return [case]
        turned = canonical(image)
        grid, occupied = Grid.of(turned), _occupied(turned.array, rules.occupied)
        ref = case.fields.get(rules.label)
        if ref is None:
            return [_slice(case, rules, grid, index, {}) for index in occupied[:: rules.every]]
        values = _on_grid(canonical(ref.load()), grid)
    except UserError:
        return [case]
    counts = (values != 0).any(axis=0).sum(axis=(0, 1))
    named = _named(values, rules.classes)
    by_label = [index for index, count in enumerate(counts) if count >= rules.min_label_px]
    kept = by_label if rules.min_label_px else occupied
    return [
        _slice(case, rules, grid, index, _classes(values[..., index], named) if named else {})
        for index in kept[:: rules.every]
    ]


def _surely_2d(ref: FieldRef) -> bool:
    """By its name, so that a folder of pictures is not read for nothing; nor are slices that were cut before."""
    return isinstance(ref, SliceField) or (isinstance(ref, FileRef) and suffix_of(ref.path) in _ALWAYS_2D)


def _on_grid(label: Volume, grid: Grid) -> NDArray[Any]:
    if label.spatial_dims != 3:
        raise UserError(f"{label.source} is a 2D label map of a 3D image")
    return label.array if Grid.of(label) == grid else resample(label, grid, order=0, fill=0.0).array


def _occupied(array: NDArray[Any], share: float) -> list[int]:
    filled = (array.mean(axis=0) > array.mean()).mean(axis=(0, 1))
    return [index for index, part in enumerate(filled) if part >= share]


def _named(values: NDArray[Any], classes: Mapping[int, str]) -> Mapping[int, str]:
    """``classes`` if a label map speaks of them, else nothing: a plain mask has the value 1 only."""
    present = {int(value) for value in np.unique(values)} - {0}
    return classes if present <= set(classes) and max(present, default=1) > 1 else {}


def _classes(values: NDArray[Any], named: Mapping[int, str]) -> Mapping[str, str]:
    present = {named[int(value)]: None for value in sorted(np.unique(values), reverse=True) if value}
    return {"classes": ";".join(present)}


def _slice(case: Case, rules: _Rules, grid: Grid, index: int, attributes: Mapping[str, str]) -> Case:
    affine = grid.affine.copy()
    affine[:3, 3] += index * affine[:3, 2]
    plane = Grid(grid.shape[:2], affine)
    fields: dict[str, FieldRef] = {
        name: SliceField(case.fields[name], plane, name == rules.label or is_label_name(name))
        for name in rules.fields
        if name in case.fields
    }
    number = f"{index:03d}"
    return Case(f"{case.id}/z={number}", case.patient, fields, {**case.attributes, **attributes, "slice": number})


def _volume(ref: FieldRef) -> Volume:
    """Canonical; the last few are kept, since the slices of a volume are mostly read one after the other."""
    with _decoding:
        return _decode(cast(Hashable, ref), ref.fingerprint())


@lru_cache(maxsize=_VOLUMES_KEPT)
def _decode(ref: Any, fingerprint: str) -> Volume:
    """The fingerprint is a part of the key: a file may have been replaced."""
    volume = ref.load()
    if not isinstance(volume, Volume) or volume.spatial_dims != 3:
        raise UserError(f"{getattr(volume, 'source', ref)} is not 3D where slices of a volume are expected")
    return canonical(volume)


def _index_of(plane: Grid, volume: Volume) -> int | None:
    """The number of the volume's own slice that lies there, voxel on voxel; None if none does."""
    if plane.shape != volume.shape[:2]:
        return None
    inside = np.linalg.inv(volume.affine) @ plane.affine
    index = round(float(inside[2, 3]))
    expected = np.eye(4)[:, [0, 1, 3]]
    expected[2, 2] = index
    voxels = np.abs(inside[:, [0, 1, 3]] - expected) * np.array([*plane.shape, 1.0])  # at the far end of an axis
    return index if voxels.max() < _SAME_VOXELS and 0 <= index < volume.shape[2] else None
