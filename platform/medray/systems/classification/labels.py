"""Which class a case belongs to: the folder it lies in, or a column of the manifest."""

from __future__ import annotations

from collections.abc import Sequence

from medray.data.case import BadCase, Case
from medray.errors import UserError

COLUMNS = ("class", "label", "diagnosis", "grade")
"""Attributes that say the class where none is named; folders of classes give ``class``."""
_HEALTHY = ("normal", "healthy", "control", "negative", "no", "none")


def class_column(cases: Sequence[Case], wanted: str = "") -> str:
    """The attribute that holds the class.

    Args:
        cases: of a source.
        wanted: its name; the first of `COLUMNS` that a case has if left out.

    Raises:
        UserError: no case has it.
    """
    known = sorted({name for case in cases for name in case.attributes})
    found = next((name for name in ([wanted] if wanted else COLUMNS) if name in known), None)
    if found is None:
        asked = f"the column {wanted!r}" if wanted else f"a column named {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}"
        raise UserError(
            f"no case says its class: expected one folder per class, or {asked} in the manifest, which has "
            f"{', '.join(known) or 'none besides its files'}"
        )
    return found


def class_names(cases: Sequence[Case], column: str) -> tuple[str, ...]:
    """The classes that occur: the healthy one first, numbers in their order, then by name.

    Raises:
        UserError: fewer than two.
    """
    names = {case.attributes[column] for case in cases if column in case.attributes}
    if len(names) < 2:
        raise UserError(f"all cases are of the class {next(iter(names), 'unknown')!r}; a classifier needs two or more")
    return tuple(
        sorted(names, key=lambda name: (name.lower() not in _HEALTHY, name.zfill(9) if name.isdigit() else name))
    )


def class_indices(cases: Sequence[Case], column: str, names: Sequence[str]) -> list[int]:
    """The class of each case as a position in ``names``."""
    position = {name: index for index, name in enumerate(names)}
    return [position[case.attributes[column]] for case in cases]


def unlabelled(cases: Sequence[Case], column: str, names: Sequence[str] = ()) -> list[BadCase]:
    """Cases without a class, or of one that a model does not know.

    Args:
        cases: of a source.
        column: attribute that holds the class.
        names: the model's classes; any are allowed if empty.
    """
    bad = []
    for case in cases:
        given = case.attributes.get(column)
        if given is None:
            bad.append(BadCase(case.id, f"its {column} is missing, while others have one"))
        elif names and given not in names:
            bad.append(BadCase(case.id, f"its {column} {given!r} is none of the model's: {', '.join(names)}"))
    return bad
