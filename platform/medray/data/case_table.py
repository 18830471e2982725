"""``labels.csv`` in a folder of images: what is known of its cases besides files, such as grade, class, sex and age.

A manifest names the files too; this table only adds to what `medray.data.folders` has found by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from medray.data.case import BadCase, Case
from medray.data.manifest import Row, read_rows
from medray.data.places import Place
from medray.errors import UserError

TABLE = "labels.csv"
_NAMES = ("case", "id")


def with_table(root: Place, cases: Sequence[Case]) -> tuple[list[Case], list[BadCase]]:
    """The cases with the attributes that ``labels.csv`` gives them; as they are where there is none.

    A row belongs to the case whose id its column ``case`` (or ``id``) has: the whole of it (``mr/a``), or its last part
    (``a``: the file's stem, or the folder of a DICOM series) where that is a single case's. The column ``patient``, if
    there is one, replaces the patient that file names suggest; all others are attributes. Empty cells give nothing.

    Args:
        root: the folder.
        cases: found in it.

    Returns:
        the cases, and a row without a case as a bad case.

    Raises:
        UserError: the table cannot be read, has neither column, or two rows for a case.
    """
    path = root / TABLE
    if not path.exists():
        return list(cases), []
    rows = read_rows(path)
    column = next((name for name in _NAMES if rows and name in rows[0]), None)
    if column is None:
        known = ", ".join(rows[0]) if rows else "no rows"
        raise UserError(f"{path} has no column case or id, which says whose row it is; it has {known}")
    names = _names(cases)
    known_rows: dict[str, Row] = {}
    bad = []
    for number, row in enumerate(rows, start=1):
        name = row[column]
        case_id = names.get(name, "")
        if not case_id:
            reason = f"row {number} of {path} is of {_unnamed(name, cases)}"
            bad.append(BadCase(name or f"row {number}", reason, str(path)))
        elif case_id in known_rows:
            raise UserError(f"{path}, row {number}: case {name!r} has a row already")
        else:
            known_rows[case_id] = row
    return [_with_row(case, known_rows.get(case.id, {}), column) for case in cases], bad


def _names(cases: Iterable[Case]) -> dict[str, str]:
    """What a row may call a case -> its id. Ids come first; a last part that several cases share is nobody's."""
    short: dict[str, list[str]] = {}
    ids = [case.id for case in cases]
    for case_id in ids:
        short.setdefault(case_id.rpartition("/")[2], []).append(case_id)
    return {name: owners[0] for name, owners in short.items() if len(owners) == 1} | {name: name for name in ids}


def _unnamed(name: str, cases: Iterable[Case]) -> str:
    """What a row is of that names no case: a folder of several series, a file name that comes twice, or nothing."""
    several = [case.id for case in cases if case.id.startswith(f"{name}/") or case.id.endswith(f"/{name}")]
    if not name or len(several) < 2:
        return "no image in the folder"
    return f"several images ({', '.join(several[:3])}), name one"


def _with_row(case: Case, row: Mapping[str, str], column: str) -> Case:
    given = {name: value for name, value in row.items() if value and name not in (column, "patient")}
    return replace(case, patient=row.get("patient") or case.patient, attributes={**case.attributes, **given})
