"""Which images are registered to which. Shared by the registration systems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medray.data.case import BadCase, Case
from medray.data.intensity import Mode
from medray.errors import UserError

Pairing = Literal["auto", "all", "patient"]


@dataclass(frozen=True)
class PairRef:
    """Two cases to align, or one case that holds both images."""

    id: str
    moving: Case
    fixed: Case

    @property
    def ready_made(self) -> bool:
        """Whether one case holds both images, under the names moving and fixed."""
        return self.moving is self.fixed

    @property
    def field_names(self) -> tuple[str, str]:
        """Names of the two image fields."""
        return ("moving", "fixed") if self.ready_made else ("image", "image")

    @property
    def cases(self) -> tuple[Case, Case]:
        """Moving, fixed."""
        return self.moving, self.fixed


def form_pairs(cases: Sequence[Case], *, moving: str = "", fixed: str = "", pairing: Pairing = "auto") -> list[PairRef]:
    """Decide which image is registered to which.

    Args:
        cases: ready-made pairs (fields moving and fixed), or single images with the attribute modality.
        moving: modality of the moving images; with exactly two modalities the first in alphabetical order.
        fixed: modality of the fixed images; the other one.
        pairing: "patient" pairs images of one patient, "all" every moving with every fixed one, "auto" the former where
            any patient has both and the latter otherwise.

    Raises:
        UserError: the modalities cannot be told, or no pair comes out.
    """
    if cases and all("moving" in case.fields for case in cases):
        return [PairRef(case.id, case, case) for case in cases]
    moving, fixed = modalities(cases, moving, fixed)
    sides = [[case for case in cases if case.attributes.get("modality") == name] for name in (moving, fixed)]
    same = {case.patient for case in sides[0]} & {case.patient for case in sides[1]}
    if pairing == "auto":
        pairing = "patient" if same else "all"
    pairs = [
        PairRef(f"{m.id}-{f.id}", m, f)
        for m in sides[0]
        for f in sides[1]
        if m is not f and (pairing == "all" or m.patient == f.patient)
    ]
    if not pairs:
        raise UserError(
            f"no {moving} image can be paired with a {fixed} image: no patient has both; use --config.pairing all"
        )
    return pairs


def modalities(cases: Iterable[Case], moving: str = "", fixed: str = "") -> tuple[str, str]:
    """Names of the moving and the fixed modality among the cases.

    Raises:
        UserError: they cannot be told, or a name given does not occur.
    """
    found = sorted({case.attributes.get("modality", "") for case in cases} - {""})
    for flag, name in (("moving", moving), ("fixed", fixed)):
        if name and name not in found:
            raise UserError(f"--config.{flag} {name}: the data has no such modality, only {', '.join(found) or 'none'}")
    if moving and fixed:
        return moving, fixed
    rest = [name for name in found if name not in (moving, fixed)]
    if len(found) == 2:
        return moving or rest[0], fixed or rest[-1]
    raise UserError(
        f"the data has {len(found)} modalities ({', '.join(found) or 'none named'}); "
        "say which to register with --config.moving and --config.fixed"
    )


def default_normalization(modality: str) -> Mode:
    """CT has absolute units and a fixed window; everything else is scaled by its own percentiles."""
    return "ct" if modality.lower().startswith("ct") else "percentile"


def label_values(cases: Iterable[Case], label_channels: int = 1) -> dict[str, frozenset[int]]:
    """Organ values in every labelled image: "case/field" to the values other than background."""
    found = {}
    for case in cases:
        for name in case.fields:
            if name == "label" or name.endswith("_label"):
                array = case.volume(name).array
                found[f"{case.id}/{name}"] = frozenset(int(v) for v in np.unique(organs(array, label_channels))) - {0}
    return found


def stray_labels(cases: Sequence[Case], known: Sequence[int], label_channels: int = 1) -> list[BadCase]:
    """Cases with a label value that nothing else explains.

    Args:
        cases: with label fields.
        known: the only values allowed; empty allows every value that more than one image has.
        label_channels: how many channels of a label file with several are organs.
    """
    values = label_values(cases, label_channels)
    owners = Counter(value for found in values.values() for value in found)
    allowed = set(known) or {value for value, count in owners.items() if count > 1 or len(values) <= 2}
    problems = []
    for case in cases:
        mine = [found for name, found in values.items() if name.rsplit("/", 1)[0] == case.id]
        strays = sorted(set().union(*mine) - allowed)
        if strays:
            reason = (
                f"label value {strays[0]} is not one of the expected {sorted(allowed)}; "
                "remove it, or name the organs with --config.labels"
            )
            problems.append(BadCase(case.id, reason))
    return problems


def organs(masks: NDArray[np.generic], label_channels: int = 1) -> NDArray[np.int64]:
    """One label map, (*shape), from a channel of values or from the first channels of several masks (later on top)."""
    if masks.shape[0] == 1:
        return np.ascontiguousarray(masks[0], dtype=np.int64)
    label = np.zeros(masks.shape[1:], dtype=np.int64)
    for value, mask in enumerate(masks[:label_channels], start=1):
        label[mask > 0] = value
    return label
