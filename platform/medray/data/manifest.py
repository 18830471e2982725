"""A manifest: a CSV or Parquet table with a row per case."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from medray.data.case import Case
from medray.data.fields import Kind, kind_of, ref_to
from medray.data.places import Place, Places, StoredPath, ask_ahead, split_key
from medray.data.readers import suffix_of
from medray.errors import UserError
from medray.storage import is_url

SUFFIXES = (".csv", ".tsv", ".parquet")
Row = dict[str, str]


def read_manifest(path: Path | StoredPath, kinds: Mapping[str, Kind] | None = None) -> list[Case]:
    """Read the cases of a manifest.

    The columns ``case`` (unique) and ``patient`` are required. A column whose cells name files (a known suffix, with or
    without ``#key``, or an existing folder of DICOM slices), relative to the manifest, is a field of that name; any
    other column is an attribute: split, modality, site, grade, age. An empty cell means that the case lacks the field.

    Raises:
        UserError: unreadable, a required column missing, an empty or repeated case, a cell that names no file where
            its column names files, a file that is missing; each with its row, counted from 1 below the header.
    """
    rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else read_rows(path)
    columns = list(rows[0]) if rows else []
    for required in ("case", "patient"):
        if required not in columns:
            raise UserError(
                f"{path} has no column {required!r}; a manifest needs the columns case and patient, it has "
                f"{', '.join(columns) or 'no rows'}"
            )
    others = [name for name in columns if name not in ("case", "patient")]
    places = Places()
    files = [name for name in others if any(_names_file(path, row[name], places) for row in rows)]
    targets = [_target(path, row[name]) for row in rows for name in files if row[name]]
    ask_ahead(places(text) for target in targets for text in {target, target.partition("#")[0]})
    if not files:
        raise UserError(
            f"{path} has no column that names files; add one such as image (paths relative to the manifest)"
        )
    cases: dict[str, tuple[int, Case]] = {}
    for number, row in enumerate(rows, start=1):
        case = _case(path, number, row, files, [name for name in others if name not in files], kinds, places)
        if case.id in cases:
            raise UserError(f"{path}, row {number}: case {case.id!r} was given in row {cases[case.id][0]} already")
        cases[case.id] = (number, case)
    return [case for _, case in cases.values()]


def _case(
    path: Path | StoredPath,
    number: int,
    row: Row,
    files: Sequence[str],
    attributes: Sequence[str],
    kinds: Mapping[str, Kind] | None,
    places: Places,
) -> Case:
    for required in ("case", "patient"):
        if not row[required]:
            raise UserError(f"{path}, row {number}: the column {required} is empty")
    fields = {}
    for name in files:
        cell = row[name]
        if not cell:
            continue
        if not _names_file(path, cell, places):
            raise UserError(f"{path}, row {number}, column {name}: {cell!r} is not a file of a known kind")
        target = _target(path, cell)
        try:
            file, key = split_key(target, places)
        except UserError as error:
            raise UserError(f"{path}, row {number}, column {name}: {error}") from error
        fields[name] = ref_to(file, kind_of(name, target, kinds), key)
    if not fields:
        raise UserError(f"{path}, row {number}: case {row['case']!r} has no file; fill one of {', '.join(files)}")
    return Case(row["case"], row["patient"], fields, {name: row[name] for name in attributes if row[name]})


def _target(manifest: Path | StoredPath, cell: str) -> str:
    """What a cell names: as it is if absolute or a url, else beside the manifest."""
    if "://" in cell or Path(cell).is_absolute():
        return cell
    return f"{manifest.parent}/{cell}" if isinstance(manifest, StoredPath) else str(manifest.parent / cell)


def _names_file(manifest: Path | StoredPath, cell: str, places: Places) -> bool:
    if not cell:
        return False
    if suffix_of(cell):
        return True
    folder = _target(manifest, cell.split("#", 1)[0])
    return ("/" in cell or "\\" in cell) and ("://" not in folder or is_url(folder)) and places(folder).is_dir()


def read_rows(path: Place) -> list[Row]:
    """The rows of a text table by the names of its header, cells without the space around them; empty rows left out.

    Commas, semicolons or tabs, whichever the header has most of.

    Raises:
        UserError: it is no UTF-8 text, a column comes twice, or a row has another number of cells than the header.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable UTF-8 text table: {error}") from error
    lines = text.splitlines()
    if not lines:
        raise UserError(f"{path} is empty; a manifest needs the columns case and patient")
    delimiter = max((",", ";", "\t"), key=lines[0].count)
    reader = csv.reader(lines, delimiter=delimiter)
    header = [name.strip() for name in next(reader)]
    if len(set(header)) != len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise UserError(f"{path} has the column {twice!r} twice")
    rows = []
    for number, cells in enumerate((cells for cells in reader if any(cell.strip() for cell in cells)), start=1):
        if len(cells) != len(header):
            raise UserError(f"{path}, row {number}: {len(cells)} cells where the header has {len(header)} columns")
        rows.append(dict(zip(header, (cell.strip() for cell in cells), strict=True)))
    return rows


def _read_parquet(path: Path | StoredPath) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(path.read_bytes()))
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path} is truncated or not a Parquet table: {' '.join(str(error).split())}") from error
    return [
        {name: "" if value is None else str(value).strip() for name, value in row.items()} for row in table.to_pylist()
    ]
