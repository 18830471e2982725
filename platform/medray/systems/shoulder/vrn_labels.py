"""The five size classes of a tear, and what people call them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medray.data.case import BadCase, Case
from medray.errors import UserError
from medray.systems.classification.labels import class_column

CLASSES = ("none", "partial", "small", "medium", "large")
"""In their order: small is below 1 cm, medium 1 to 3 cm, large above 3 cm, from front to back (DeOrio and Cofield)."""
_SYNONYMS = {
    **dict.fromkeys(("no", "normal", "healthy", "intact", "negative", "control", "0"), "none"),
    **dict.fromkeys(("partialthickness", "1"), "partial"),
    "2": "small",
    **dict.fromkeys(("moderate", "3"), "medium"),
    **dict.fromkeys(("massive", "largetomassive", "largemassive", "4"), "large"),
}


def class_of(text: str) -> int | None:
    """Position of a class in `CLASSES`, by its name or another one for it; None for any other text.

    Case, blanks, hyphens and the word tear do not count: ``Large-to-Massive``, ``no tear``, ``Partial thickness``.
    """
    name = re.sub(r"[^a-z0-9]|tears?|rotator|cuff|sized?$", "", text.lower())
    name = _SYNONYMS.get(name, name)
    return CLASSES.index(name) if name in CLASSES else None


def classes_of(cases: Sequence[Case]) -> NDArray[np.int64]:
    """Class of every case, (N,).

    Raises:
        UserError: a case has none, or one of another name.
    """
    column = class_column(cases)
    found = []
    for case in cases:
        known = class_of(case.attributes.get(column, ""))
        if known is None:
            raise UserError(f"case {case.id}: {_reason(case, column)}")
        found.append(known)
    return np.array(found, dtype=np.int64)


def class_problems(cases: Sequence[Case]) -> list[BadCase]:
    """Cases without a class, or with one of another name.

    Raises:
        UserError: no case says its class.
    """
    column = class_column(cases)
    return [
        BadCase(case.id, _reason(case, column)) for case in cases if class_of(case.attributes.get(column, "")) is None
    ]


def _reason(case: Case, column: str) -> str:
    if column not in case.attributes:
        return f"its {column} is missing, while others have one"
    return f"its {column} is {case.attributes[column]!r}; known are {', '.join(CLASSES)}, also as normal or massive"
