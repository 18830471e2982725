"""Label maps that hold a value which the system has no class for."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from medray.data.case import BadCase, Case
from medray.data.check import label_values


def unknown_values(cases: Sequence[Case], allowed: Collection[int], field: str = "label") -> list[BadCase]:
    """The cases whose label map holds a value that is not allowed, each with the sentence that names it.

    For `System.problems`, whose cases can be read.

    Args:
        cases: those without the field are passed over.
        allowed: values besides 0.
        field: name of the label map.

    Raises:
        UserError: a label map cannot be read.
    """
    known = sorted({0, *allowed})
    bad = []
    for case in cases:
        if field not in case.fields:
            continue
        volume = case.volume(field)
        unknown = sorted(label_values(volume) - set(known))
        if unknown:
            where = volume.source or f"its {field}"
            listed = ", ".join(str(value) for value in known)
            bad.append(BadCase(case.id, f"{where} holds the label value {unknown[0]}; known are {listed}"))
    return bad
