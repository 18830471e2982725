"""The folds of the cross-validation, the same for both steps, by patient and with their share of every grade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medray.data.case import Case
from medray.data.splits import folds_by_patient
from medray.errors import UserError
from medray.systems.shoulder.goutallier_config import GoutallierConfig
from medray.systems.shoulder.goutallier_labels import NAMES, grade_strata, is_risky

_SINGLE_SPLIT = 5
"""With one fold, one of so many parts is held out."""
_SELECTION = 7
"""With nested selection, one of so many parts of the training cases (14 %; the card has 15)."""


@dataclass(frozen=True)
class Fold:
    """One training of both steps.

    Attributes:
        number: from 0.
        train: cases that the weights are learnt from.
        selection: cases that decide which epoch counts.
        held_out: cases that are scored; in the paper the same as those of ``selection``.
    """

    number: int
    train: tuple[Case, ...]
    selection: tuple[Case, ...]
    held_out: tuple[Case, ...]

    @property
    def cases(self) -> tuple[Case, ...]:
        """All of them, once."""
        return tuple({case.id: case for case in (*self.train, *self.selection, *self.held_out)}.values())


def make_folds(config: GoutallierConfig, cases: Sequence[Case], seed: int) -> list[Fold]:
    """Cut the cases.

    Raises:
        UserError: fewer patients than folds, or a class that is missing from a part.
    """
    strata = grade_strata(cases)
    parts = folds_by_patient(
        cases, max(config.folds, 2) if config.folds > 1 else _SINGLE_SPLIT, seed=seed, strata=strata
    )
    folds = []
    for number, held_out in enumerate(parts[: config.folds]):
        others = tuple(case for part in parts if part is not held_out for case in part)
        selection: tuple[Case, ...] = held_out
        if config.selection == "nested":
            selection = folds_by_patient(others, _SELECTION, seed=seed, strata=strata)[0]
            kept = {case.id for case in selection}
            others = tuple(case for case in others if case.id not in kept)
        folds.append(Fold(number, others, selection, held_out))
        _check_classes(config, folds[-1])
    return folds


def _check_classes(config: GoutallierConfig, fold: Fold) -> None:
    name = f"fold {fold.number + 1} of {config.folds}"
    parts = {f"{name} holds": fold.held_out, f"the selection of {name} holds": fold.selection,
             f"the training part of {name} holds": fold.train}  # fmt: skip
    for text, cases in parts.items():
        found = {is_risky(case, config.grade2) for case in cases}
        for risky in (True, False):
            if risky not in found:
                raise UserError(
                    f"{text} no case that is {NAMES[risky]}; use fewer folds (--config.folds) or add such patients"
                )
