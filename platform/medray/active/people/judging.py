"""Reads each returned file once: a verdict holds as long as the file stays the same, mistakes included.

The memory only saves time, where a folder with hundreds of masks is looked at every few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from medray.active.exchange import Exchange, Item
from medray.active.people.masks import Mask, kept_mask, read_mask
from medray.active.people.rules import LabelRules
from medray.active.people.tables import TableRow, read_rows
from medray.data.case import Case
from medray.data.modalities import MAIN
from medray.errors import UserError
from medray.storage import StorageError

T = TypeVar("T")


@dataclass(frozen=True)
class _Unusable:
    """Why a file cannot be used: the sentence alone, since an error that is kept keeps all it was raised through."""

    reason: str


class Judge:
    """Reads masks and tables out of an exchange.

    Each method raises FileNotFoundError for a file that is gone or still being written, a StorageError where storage
    does not answer, and another UserError for what cannot be used.

    Args:
        exchange: where they are.
        cases: of the data, by id.
        rules: what counts as a label.
    """

    def __init__(self, exchange: Exchange, cases: Mapping[str, Case], rules: LabelRules) -> None:
        self._exchange, self._cases, self._rules = exchange, cases, rules
        self._tables: dict[tuple[str, str], list[TableRow] | _Unusable] = {}
        self._masks: dict[tuple[str, str, str], Mask | _Unusable] = {}

    def rows(self, table: Item) -> list[TableRow]:
        """The rows of a table."""
        key = (table.name, table.marker)
        if key not in self._tables:
            self._tables[key] = _verdict(lambda: read_rows(self._read(table)))
        return _value(self._tables[key])

    def mask(self, item: Item, case: str) -> Mask:
        """A file as the mask of a case."""
        key = (item.name, item.marker, case)
        if key not in self._masks:
            image = self._cases[case].volume(MAIN)  # outside of the verdict: that it cannot be read may pass
            self._masks[key] = _verdict(lambda: read_mask(self._read(item), item.name, image, self._rules))
        return _value(self._masks[key])

    def _read(self, item: Item) -> bytes:
        if not item.is_settled:
            raise FileNotFoundError(item.name)
        return self._exchange.read(item.name)

    def empty_mask(self, case: str) -> Mask:
        """The mask of a case with nothing in it."""
        key = ("", "", case)
        if key not in self._masks:
            image = self._cases[case].volume(MAIN)
            self._masks[key] = kept_mask(np.zeros(image.shape, np.uint8), image)
        return _value(self._masks[key])


def _verdict(read: Callable[[], T]) -> T | _Unusable:
    try:
        return read()
    except StorageError:
        raise
    except UserError as error:
        return _Unusable(str(error))


def _value(verdict: T | _Unusable) -> T:
    if isinstance(verdict, _Unusable):
        raise UserError(verdict.reason)
    return verdict
