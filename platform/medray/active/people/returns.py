"""What annotators put back: mask files and filled tables, each read for what it says about a case.

Files may be half copied, doubled, for the wrong case or no labels at all; `docs/annotation.md` says what happens with
each. What is said of the same files is the same at every call, so that it needs to be told only once.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from medray.active.answers import NO_CLASSES, Answer
from medray.active.exchange import Exchange, Item
from medray.active.oracle import Problem
from medray.active.people.claims import Claim
from medray.active.people.filled import read_row
from medray.active.people.judging import Judge
from medray.active.people.masks import Mask
from medray.active.people.rules import MASK_SUFFIXES, LabelRules, did_you_mean
from medray.active.people.tables import TABLE_SUFFIXES, TableRow
from medray.active.people.worklist import GUIDE, IMAGES, LABELS, PAGE, PLACEHOLDER, QUERY, safe_name
from medray.data.case import Case
from medray.data.readers import is_image_name, stem_of, suffix_of
from medray.errors import UserError
from medray.storage import StorageError

KEPT = "accepted"
"""Folder of the masks that were taken."""
_OURS = (PAGE, GUIDE, QUERY, PLACEHOLDER)
_NO_LABELS = ("thumbs.db", "desktop.ini", "__macosx")
_UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".filepart", "~", "#")
_SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
_MISPLACED = (
    f"it lies where no label is looked for; masks belong into {LABELS} of a round, tables into the round's folder"
)


@dataclass
class _Haul:
    """What was found so far.

    Attributes:
        claims: about cases that were asked for.
        problems: what cannot be used.
        named: mask files that a row leads to.
        notes: of rows, by case.
    """

    claims: list[Claim] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    notes: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def telling(self, subject: str, case: str = "") -> Iterator[None]:
        """Make a problem of what cannot be used. A file that has gone since it was listed is none."""
        try:
            yield
        except StorageError:
            raise
        except FileNotFoundError:
            pass
        except UserError as error:
            self.problems.append(Problem(subject, str(error), case))

    def noted(self, claim: Claim) -> Claim:
        """A mask file with what a row says besides."""
        note = claim.answer.note or self.notes.get(claim.answer.case, "")
        return replace(claim, answer=replace(claim.answer, note=note))


class ReturnReader:
    """Reads what lies in the rounds' folders.

    Args:
        exchange: where to look.
        cases: of the data, by id.
        rules: what counts as a label.
    """

    def __init__(self, exchange: Exchange, cases: Mapping[str, Case], rules: LabelRules) -> None:
        self._exchange, self._cases, self._rules = exchange, cases, rules
        self._judge = Judge(exchange, cases, rules)

    def read(self, asked: Collection[str]) -> tuple[list[Claim], list[Problem]]:
        """What is claimed about cases that were asked for, and what cannot be used: tables first, each by name.

        Raises:
            StorageError: object storage does not answer.
        """
        items = {item.name: item for item in self._exchange.list() if _may_be_label(item.name)}
        haul = _Haul()
        for item in items.values():
            if _is_table(item.name):
                self._read_table(item, items, asked, haul)
        by_stem = {safe_name(case): case for case in asked}
        for item in items.values():
            case = by_stem.get(stem_of(item.name).lower(), "")
            if not _is_table(item.name) and (case or item.name not in haul.named):
                with haul.telling(item.name, case):
                    haul.claims += self._file_claim(item, case, asked)
        return [haul.noted(claim) for claim in haul.claims], haul.problems

    def _read_table(self, table: Item, items: Mapping[str, Item], asked: Collection[str], haul: _Haul) -> None:
        rows: list[TableRow] = []
        with haul.telling(table.name):
            rows = self._rows(table)
        for row in (self._as_asked(row, asked) for row in rows):
            case, mask = row.cells["case"], self._mask_of(table, row, items)
            subject = f"{table.name}, row {row.number}"
            with haul.telling(subject, case):
                haul.claims += self._row_claim(subject, row, mask, asked)
            if mask is not None:
                haul.named.add(mask.name)
            if row.cells.get("note"):
                haul.notes.setdefault(case, row.cells["note"])

    def _rows(self, table: Item) -> list[TableRow]:
        if "/" not in table.name:
            raise UserError(_MISPLACED)
        return self._judge.rows(table)

    def _as_asked(self, row: TableRow, asked: Collection[str]) -> TableRow:
        """The row of case 007, which a spreadsheet has taken for a number and saved as 7."""
        case = row.cells["case"]
        if case in self._cases or not case.isdecimal():
            return row
        meant = [one for one in asked if one.isdecimal() and one.lstrip("0") == case.lstrip("0")]
        return replace(row, cells={**row.cells, "case": meant[0]}) if len(meant) == 1 else row

    def _mask_of(self, table: Item, row: TableRow, items: Mapping[str, Item]) -> Item | None:
        """The file that a row's label names, from the round's folder or its labels; None if it is not there."""
        label = row.cells.get("label", "").replace("\\", "/")
        if self._rules.kind != "mask" or not label:
            return None
        folder = table.name.split("/", 1)[0]
        names = [posixpath.normpath(posixpath.join(folder, below, label)) for below in ("", LABELS)]
        return next((items[name] for name in names if name in items), None)

    def _row_claim(self, subject: str, row: TableRow, file: Item | None, asked: Collection[str]) -> list[Claim]:
        """What a row says; nothing where it is not filled in."""
        answer = read_row(row, self._rules)
        if answer is None:
            return []
        if answer.case not in asked:
            known = answer.case in self._cases
            raise UserError(_not_asked(answer.case) if known else _no_case(answer.case, asked))
        if self._rules.kind != "mask" or answer.status == "cannot_label":
            return [Claim(subject, answer)]
        if answer.value.lower() == NO_CLASSES:
            return [_claim(subject, answer, self._judge.empty_mask(answer.case))]
        if file is None:
            raise UserError(f"{answer.value!r} is no file in this round's folder; expected its path, or {NO_CLASSES}")
        return [self._unless_empty(_claim(subject, answer, self._judge.mask(file, answer.case)))]

    def _file_claim(self, file: Item, case: str, asked: Collection[str]) -> list[Claim]:
        """What a file says of the case that it is named after; nothing where files are no labels."""
        if file.name.lower().endswith(_SPREADSHEETS):
            raise UserError("it is a spreadsheet; save it as CSV")
        if self._rules.kind != "mask":
            return []
        if file.name.split("/")[1:2] != [LABELS]:
            if is_image_name(file.name):
                raise UserError(_MISPLACED)
            return []
        if suffix_of(file.name) not in MASK_SUFFIXES:
            raise UserError(f"it is no mask that can be read; expected one of {' '.join(MASK_SUFFIXES)}")
        if not case:
            stem = stem_of(file.name).lower()
            known = next((one for one in self._cases if safe_name(one) == stem), None)
            raise UserError(_not_asked(known) if known is not None else _no_case(stem, map(safe_name, asked)))
        return [self._unless_empty(_claim(file.name, Answer(case, "labelled"), self._judge.mask(file, case)))]

    def _unless_empty(self, claim: Claim) -> Claim:
        """A mask file with nothing in it counts for certain only if the rules say so."""
        empty = claim.mask is not None and claim.mask.is_empty
        return replace(claim, is_certain=self._rules.empty_masks or not empty)


def _claim(subject: str, answer: Answer, mask: Mask) -> Claim:
    return Claim(subject, replace(answer, value="", digest=mask.digest), mask)


def _not_asked(case: str) -> str:
    return f"case {case!r} was not asked for"


def _no_case(name: str, known: Iterable[str]) -> str:
    return f"no case that was asked for is called {name!r}{did_you_mean(name, list(known))}"


def _may_be_label(name: str) -> bool:
    folder, _, rest = name.partition("/")
    parts = name.lower().split("/")
    if folder == KEPT or rest in _OURS or parts[1:2] == [IMAGES] or parts[-1].endswith(_UNFINISHED):
        return False
    return not any(part in _NO_LABELS or part.startswith((".", "~$")) for part in parts)


def _is_table(name: str) -> bool:
    return name.lower().endswith(TABLE_SUFFIXES)
