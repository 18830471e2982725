"""Tables that people open in a spreadsheet, as they are written and as they come back.

Saved by Excel, LibreOffice or a text editor: with commas, semicolons or tabs, columns moved, added and in capitals; or
cut off while it was copied.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass

from medray.errors import UserError

TABLE_SUFFIXES = (".csv", ".tsv")
_NEEDED = ("case", "label", "status")
_SEPARATORS = ",;\t"
_FORMULA = re.compile(r"[\s']*[=+@-]")


@dataclass(frozen=True)
class TableRow:
    """A row of a returned table.

    Attributes:
        number: of its line in the file, from 1; its last one, where it has several.
        cells: text by column, without spaces around it, the columns in lower case; missing cells are empty.
        is_cut: the file ends in the middle of what counts in it.
    """

    number: int
    cells: Mapping[str, str]
    is_cut: bool = False


def cell(text: str) -> str:
    """Text as a cell that a spreadsheet does not take for a formula; `read_rows` gives it back.

    >>> cell("=1+1"), cell("scan 1")
    ("'=1+1", 'scan 1')
    """
    return f"'{text}" if _FORMULA.match(text) else text


def _text_of(cell: str) -> str:
    text = cell.strip()
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def read_rows(data: bytes, column: str = "label") -> list[TableRow]:
    """Read a table that names its cases in a column "case".

    Args:
        data: of the file.
        column: another one that it must have.

    Raises:
        UserError: it is damaged or lacks one of these columns. The sentence says "it" for the file.
    """
    text = _decoded(data)
    separator = _separator(text)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    rows = []
    try:
        for cells in lines:
            if not any(cell.strip() for cell in cells) or cells[0].lower().startswith("sep="):
                continue
            if not header:
                header = _names(cells)
                if column not in header:
                    raise UserError(f"it has no column {column!r}; keep the header")
                continue
            row = dict.fromkeys(header, "") | dict(zip(header, map(_text_of, cells), strict=False))
            rows.append((TableRow(lines.line_num, row), len(cells)))
    except csv.Error as error:
        raise UserError(f"it is damaged near line {lines.line_num}: {error}") from error
    if rows and not text.endswith(("\n", "\r")):
        rows[-1] = (_maybe_cut(*rows[-1], header), 0)
    return [row for row, _ in rows]


def _maybe_cut(row: TableRow, num_cells: int, header: list[str]) -> TableRow:
    """The last row of a file without a line break at its end: its last cell may be longer than what is there."""
    is_cut = num_cells < len(header) or header[-1] in _NEEDED
    return TableRow(row.number, row.cells, is_cut)


def _decoded(data: bytes) -> str:
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # Excel's "Unicode text"
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "cp1252"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:  # a copy that was given its size before its content
            return text
    raise UserError("it is no text, or damaged; save it as CSV (UTF-8)")


def _separator(text: str) -> str:
    for line in text.splitlines():
        for separator in _SEPARATORS:
            if "case" in _names(next(csv.reader([line], delimiter=separator), [])):
                return separator
        if line.strip() and not line.lower().startswith("sep="):
            break
    raise UserError('it has no column "case" in its first line; keep the header of worklist.csv')


def _names(cells: list[str]) -> list[str]:
    return [cell.strip().lower() for cell in cells]
