"""Masks of a file each, such as ``tendon/`` and ``tear/`` of equal names, as one label map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medray.data.case import Case, FieldRef, Volume
from medray.errors import UserError


@dataclass(frozen=True)
class Mask:
    """One mask of a `CombinedMasks`: its field's name, the value it gets, and where it is; None where it is lacking."""

    name: str
    value: int
    ref: FieldRef | None


@dataclass(frozen=True)
class CombinedMasks:
    """A label map put together when it is loaded.

    Attributes:
        case: id, for messages.
        masks: in order; where several hold a pixel, the last one has it.
    """

    case: str
    masks: tuple[Mask, ...]

    def load(self) -> Volume:
        """(1, *spatial) uint8: 0 and the masks' values.

        Raises:
            UserError: a mask is lacking, cannot be read, holds other values than 0 and 1 (or 255), or has another size.
        """
        given = [mask.name for mask in self.masks if mask.ref is not None]
        label: Volume | None = None
        for mask in self.masks:
            if mask.ref is None:
                raise UserError(f"case {self.case} has a {given[0]} mask but no {mask.name} mask; save an empty one")
            volume = _binary(mask)
            if label is None:
                label = Volume(np.zeros(volume.array.shape, np.uint8), volume.affine, volume.source, volume.header)
            if volume.shape != label.shape:
                raise UserError(
                    f"{volume.source} is {_times(volume)} where {label.source}, another mask of the same image, is "
                    f"{_times(label)}"
                )
            label.array[volume.array > 0] = mask.value
        if label is None:
            raise ValueError("a combined label map needs at least one mask")
        return label

    def fingerprint(self) -> str:
        """Names, values and fingerprints of the masks."""
        return " ".join(f"{m.name}={m.value}:{m.ref.fingerprint() if m.ref else 'none'}" for m in self.masks)


def combine_masks(cases: Sequence[Case], values: Mapping[str, int]) -> list[Case]:
    """Give cases with a field per mask one field ``label`` instead.

    Args:
        cases: as found in a source.
        values: field -> value in the label map, in order; a later mask wins where they overlap, so
            ``{"tendon": 1, "tear": 2}`` makes what both hold a tear.

    Returns:
        The cases in order. Those that have a ``label`` already, or none of the masks, are as they were. One that has
        some of the masks but not all gets a label that says so when it is read.

    Raises:
        ValueError: no masks, or a value outside 1 to 255.
    """
    if not values or not all(1 <= value <= 255 for value in values.values()):
        raise ValueError(f"masks have values from 1 to 255, got {dict(values)}")
    return [_combined(case, values) for case in cases]


def _combined(case: Case, values: Mapping[str, int]) -> Case:
    if "label" in case.fields or not set(values) & set(case.fields):
        return case
    masks = tuple(Mask(name, value, case.fields.get(name)) for name, value in values.items())
    others = {name: ref for name, ref in case.fields.items() if name not in values}
    return replace(case, fields={**others, "label": CombinedMasks(case.id, masks)})


def _binary(mask: Mask) -> Volume:
    assert mask.ref is not None
    volume = mask.ref.load()
    if not isinstance(volume, Volume):
        raise UserError(f"the field {mask.name} is no image; a mask is expected")
    values = np.unique(volume.array)
    unknown = [value for value in values.tolist() if value not in (0, 1, 255)]
    if unknown:
        raise UserError(
            f"{volume.source} holds the value {unknown[0]:g}; a mask of one structure ({mask.name}) holds 0 and 1, or "
            "0 and 255"
        )
    return volume


def _times(volume: Volume) -> str:
    return " x ".join(str(n) for n in volume.shape)
